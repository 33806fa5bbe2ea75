"""Reads finished runs: overlaps with the truth for every sample, and where the run was made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.arrays import open_npz
from pps_fast.config import PPSConfig, require
from pps_fast.eval.blind import blind_table
from pps_fast.eval.metrics import MAX_RANK, SampleTable, sample_values
from pps_fast.files import read_json
from pps_fast.lab.runs import RESULT_FILE, SAMPLES_FILE, VERSION
from pps_fast.reading import FAILURES, cause_of
from pps_fast.runs.records import DataIdentity, read_config, read_record, require_count, require_finite

EVALUATION_FILE = "evaluation_test.json"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """result.json, see `runs._write_result`; fields with a default are missing in older ones."""

    format: str
    version: int
    data: DataIdentity
    device: str
    machine: str
    torch: str
    updates: int
    train_s: float
    commit: str = "not recorded"
    processor: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        require_count("updates", self.updates)
        require_count("threads", self.threads)
        require_finite("train_s", self.train_s)


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """What is read of evaluation_test.json."""

    intervals: dict[str, list[list[float]]]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        for name, guesses in self.intervals.items():
            is_table = all(len(guess) == 2 for guess in guesses) and len(guesses) > 0
            require(is_table, f"intervals.{name}", guesses, "pairs of start and end")
            require_finite(f"intervals.{name}", *(value for guess in guesses for value in guess))


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run.

    Attributes:
        name: of its directory.
        config: of the run.
        record: contents of result.json.
        provenance: of the data set.
        sample, video: [B] int64, indices in the data set.
        video_id, sentence: [B] text.
        kind: [B] text, or None where the data set tells no kinds.
        moment: [B, 2] truth, fractions of the video; [B, w, 2] where samples have several windows.
        model: overlaps of the model.
        shuffled: of its answers to shuffled queries, or None where the test split has one video.
        intervals: blind baseline -> [n, 2] its guesses, of those that guess the same for every sample.
    """

    name: str
    config: PPSConfig
    record: dict[str, Any]
    provenance: dict[str, Any]
    sample: np.ndarray
    video: Tensor
    video_id: np.ndarray
    sentence: np.ndarray
    kind: np.ndarray | None
    moment: Tensor
    model: SampleTable
    shuffled: SampleTable | None
    intervals: dict[str, Tensor]

    @property
    def fold(self) -> int | None:
        """The tested fold."""
        return self.config.data.fold

    def values(self, table: SampleTable) -> dict[str, Tensor]:
        """Returns metric -> [B] percentages of a table of overlaps, at the run's thresholds."""
        return sample_values(table, self.config.inference.iou_thresholds)

    def blind_values(self) -> dict[str, dict[str, Tensor]]:
        """Returns blind baseline -> metric -> [B] percentages."""
        return {name: self.values(blind_table(guesses, self.moment)) for name, guesses in self.intervals.items()}


def read_result(run: Path) -> dict[str, Any]:
    """Reads result.json of a finished run.

    Raises:
        ValueError: for a file that is missing, damaged or of another version.
    """
    path = run / RESULT_FILE
    version = read_json(path, ("format", "version"))["version"]
    if version != VERSION:
        raise ValueError(f"{path}: version {version}, this pps_fast reads {VERSION}; remove {run} and repeat it")
    record = read_record(RunRecord, path, is_part=True)
    values = {name: value for name, value in asdict(record).items() if name not in ("processor", "threads")}
    data = {name: value for name, value in values["data"].items() if value not in (None, {})}
    # results from before these fields existed are told apart by their absence
    later = {"processor": record.processor, "threads": record.threads} if record.processor is not None else {}
    return {**values, "data": data, **later}


def read_run(run: Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
        ValueError: for files that are missing, damaged or of another version; the message names the file and says what
            to do.
    """
    record = read_result(run)
    config = read_config(run)
    evaluation = read_record(_Evaluation, run / EVALUATION_FILE, is_part=True)
    path = run / SAMPLES_FILE
    try:
        arrays = _read_samples(path)
        return FinishedRun(
            name=run.name,
            config=config,
            record=record,
            provenance=evaluation.provenance,
            sample=arrays["sample"],
            video=torch.from_numpy(arrays["video"]),
            video_id=arrays["video_id"],
            sentence=arrays["sentence"],
            kind=arrays.get("kind"),
            moment=torch.from_numpy(arrays["moment"]),
            model=_table(arrays, "model", config),
            shuffled=_table(arrays, "shuffled", config) if "shuffled_top1" in arrays else None,
            intervals={
                name: torch.tensor(guesses, dtype=torch.float64) for name, guesses in evaluation.intervals.items()
            },
        )
    except FAILURES as error:
        raise ValueError(f"{path}: missing or damaged ({cause_of(error)}); remove {run} and repeat it") from error


def _read_samples(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of samples.npz, of as many samples each, fractions within 0 and 1.

    Raises:
        One of `reading.FAILURES`: for a file that is missing or damaged, or arrays that do not fit together.
    """
    with open_npz(path) as archive:
        arrays = {name: archive.load(name) for name in archive.names}
    for name, array in arrays.items():
        kind = "U" if name in ("video_id", "sentence", "kind") else "i" if name in ("sample", "video") else "f"
        is_table = array.ndim == 1 or (name == "moment" and array.ndim in (2, 3) and array.shape[-1] == 2)
        if array.dtype.kind != kind or not is_table or len(array) != len(arrays["sample"]):
            raise ValueError(f"{name} has dtype {array.dtype} and shape {list(array.shape)}")
        if kind == "f" and not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"{name} has values outside 0 to 1")
    return arrays


def _table(arrays: dict[str, np.ndarray], prefix: str, config: PPSConfig) -> SampleTable:
    return SampleTable(
        iou_top1=torch.from_numpy(arrays[f"{prefix}_top1"]),
        iou_topn=torch.from_numpy(arrays[f"{prefix}_topn"]),
        num_ranked=min(config.proposals.num_proposals, MAX_RANK),
    )
