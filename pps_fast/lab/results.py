"""Reads finished runs: overlaps with the truth for every sample, and where the run was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict
from pps_fast.eval.blind import blind_table
from pps_fast.eval.metrics import MAX_RANK, SampleTable, sample_values
from pps_fast.files import read_json
from pps_fast.lab.runs import RESULT_FILE, SAMPLES_FILE, VERSION
from pps_fast.runs.run_directory import CONFIG_FILE

EVALUATION_FILE = "evaluation_test.json"


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


def read_run(run: Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
        ValueError: for files that are missing, damaged or of another version; the message names the file and says what
            to do.
    """
    record = read_json(run / RESULT_FILE, ("format", "version", "data", "train_s"))
    if record["version"] != VERSION:
        raise ValueError(
            f"{run / RESULT_FILE}: version {record['version']}, this pps_fast reads {VERSION}; "
            f"remove {run} and repeat it"
        )
    config = from_dict(PPSConfig, read_json(run / CONFIG_FILE, ("train",)))
    evaluation = read_json(run / EVALUATION_FILE, ("intervals", "provenance"))
    path = run / SAMPLES_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return FinishedRun(
            name=run.name,
            config=config,
            record=record,
            provenance=evaluation["provenance"],
            sample=arrays["sample"],
            video=torch.from_numpy(arrays["video"]),
            video_id=arrays["video_id"],
            sentence=arrays["sentence"],
            kind=arrays.get("kind"),
            moment=torch.from_numpy(arrays["moment"]),
            model=_table(arrays, "model", config),
            shuffled=_table(arrays, "shuffled", config) if "shuffled_top1" in arrays else None,
            intervals={
                name: torch.tensor(guesses, dtype=torch.float64) for name, guesses in evaluation["intervals"].items()
            },
        )
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: missing or damaged ({error}); remove {run} and repeat it") from error


def _table(arrays: dict[str, np.ndarray], prefix: str, config: PPSConfig) -> SampleTable:
    return SampleTable(
        iou_top1=torch.from_numpy(arrays[f"{prefix}_top1"]),
        iou_topn=torch.from_numpy(arrays[f"{prefix}_topn"]),
        num_ranked=min(config.proposals.num_proposals, MAX_RANK),
    )
