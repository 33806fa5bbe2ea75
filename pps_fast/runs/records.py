"""The JSON records of a run directory besides config and model: their fields, types and ranges.

Every one is read by `read_record` or `checked_line`, which go through `config_tree.from_dict`: a field of another type,
out of range, missing or unknown is refused by name, and old names of fields are known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pps_fast.config import PPSConfig, require
from pps_fast.config_tree import from_dict
from pps_fast.files import read_json
from pps_fast.reading import Refused, reading

CONFIG_FILE, METRICS_FILE, TRACE_FILE = "config.json", "metrics.jsonl", "trace.jsonl"
_CHECKPOINT = re.compile(r"checkpoints/step_\d{6,18}")
_LARGEST = 2**62

Record = TypeVar("Record")


def require_count(name: str, value: int | None) -> None:
    """Raises ValueError for a number that counts nothing: below 0, or beyond what counts can reach."""
    require(value is None or 0 <= value < _LARGEST, name, value, "a count, 0 or more")


def require_finite(name: str, *values: float | None) -> None:
    """Raises ValueError for a number that is not finite."""
    for value in values:
        require(value is None or (abs(value) < 1e300 and math.isfinite(value)), name, value, "a finite number")


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """latest.json or best.json.

    Attributes:
        checkpoint: path below the run directory, "checkpoints/step_000123".
        step: updates done.
        mIoU: of the validation split, of a best checkpoint.
    """

    checkpoint: str
    step: int = 0
    mIoU: float | None = None  # noqa: N815  # the field's name in files

    def __post_init__(self) -> None:
        expected = "checkpoints/step_ and six digits or more"
        require(_CHECKPOINT.fullmatch(self.checkpoint) is not None, "checkpoint", self.checkpoint, expected)
        require_count("step", self.step)
        require_finite("mIoU", self.mIoU)


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """What a record says about the data of a run, see `data.identity.describe_data`; older ones lack the last two."""

    name: str
    sha256: str
    content: dict[str, str] = field(default_factory=dict)
    origin_sha256: str | None = None
    protocol: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingLine:
    """A line of metrics.jsonl after an update, see `metrics_log`."""

    step: int
    epoch: int
    lr: float
    loss: float
    terms: dict[str, float]
    grad_norm: float
    seconds: float = 0.0
    samples_per_s: float = 0.0

    def __post_init__(self) -> None:
        require_count("step", self.step)
        require_finite("a value", self.lr, self.loss, self.grad_norm, *self.terms.values())


@dataclass(frozen=True, kw_only=True)
class ValidationLine:
    """A line of metrics.jsonl after a pass over the validation split."""

    step: int
    epoch: int
    validation: dict[str, float]

    def __post_init__(self) -> None:
        require_count("step", self.step)
        require("mIoU" in self.validation, "validation", self.validation, "metrics with mIoU")
        require_finite("a metric", *self.validation.values())


@dataclass(frozen=True, kw_only=True)
class VideoGainLine:
    """A line of metrics.jsonl about what the video tells a model, see `train.video_gain`."""

    step: int
    epoch: int
    split: str
    num_pairs: int
    video_gain: dict[str, float]

    def __post_init__(self) -> None:
        require_count("step", self.step)
        require_count("num_pairs", self.num_pairs)
        names = {"nats", "reward"} & self.video_gain.keys()
        require(bool(names), "video_gain", self.video_gain, "nats or reward")
        require_finite("a value", *self.video_gain.values())


@dataclass(frozen=True, kw_only=True)
class TraceLine:
    """A line of trace.jsonl, see `trace`: n samples, E components and K proposals of each."""

    step: int
    samples: list[int]
    center: list[list[float]]
    width: list[list[float]]
    importance: list[list[float]]
    start: list[list[float]]
    end: list[list[float]]
    nll: list[list[float]]

    def __post_init__(self) -> None:
        require_count("step", self.step)
        for sample in self.samples:
            require_count("samples", sample)
        for names in (("center", "width", "importance"), ("start", "end", "nll")):
            sizes = [[len(row) for row in getattr(self, name)] for name in names]
            is_table = len(sizes[0]) == len(self.samples) and len(set(sizes[0])) <= 1
            require(is_table and sizes[1:] == sizes[:1] * 2, names[0], sizes, "rows of one length for each sample")
            require_finite(names[0], *(value for name in names for row in getattr(self, name) for value in row))


def checked_line(line: dict[str, Any], kind: type[Any], where: str) -> dict[str, Any]:
    """Returns a line of JSON Lines if it is of a kind; a later version may have added fields.

    Raises:
        Refused: naming line and field.
    """
    try:
        from_dict(kind, line, "the line", ignores_others=True)
    except ValueError as error:
        raise Refused(f"{where}: {error}; copy the file again") from error
    return line


def read_record(kind: type[Record], path: Path, fields: tuple[str, ...] = (), *, is_part: bool = False) -> Record:
    """Reads a JSON file of ours.

    Args:
        kind: dataclass of its fields.
        fields: that it must have besides those without a default.
        is_part: the class has some of the file's fields only.
    Raises:
        ValueError: for a missing, damaged or foreign file; the message names file and field.
    """
    values = read_json(path, fields)
    with reading(path):
        try:
            record: Record = from_dict(kind, values, "the record", ignores_others=is_part)
        except ValueError as error:
            raise Refused(f"{error}; copy the file again") from error
    return record


def read_config(run: Path) -> PPSConfig:
    """Reads config.json of a run directory; fields that an older run did not have yet have their defaults.

    Raises:
        ValueError: as `read_record`.
    """
    return read_record(PPSConfig, run / CONFIG_FILE, ("train",))
