"""One run of an experiment: its name, its training, and its files.

A run is a config with a fold and a seed on a data set. Its name follows from these alone, so that equal runs of
different tables are one run. DIR/runs/NAME is an ordinary run directory of `pps_fast.train`, and also holds

    evaluation_test.json, .md   the evaluation beside blind baselines and control (`pps_fast.eval`)
    samples.npz                 every tested sample: its names, its truth, and the model's overlaps with it
    result.json                 written last: the run is finished. Data set, commit, machine, seconds of training

A run without result.json continues from its checkpoint; one with it is never done again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pps_fast.config import PPSConfig
from pps_fast.config_tree import differences, first_names, override
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import Splits
from pps_fast.devices import Device, devices
from pps_fast.eval.results import MODEL, SHUFFLED, EvalReport
from pps_fast.files import replacing, write_json
from pps_fast.pipeline import train_and_evaluate
from pps_fast.runs.checkpoint import find_checkpoint, read_header
from pps_fast.runs.lock import owning
from pps_fast.runs.run_directory import CONFIG_FILE

RESULT_FILE, SAMPLES_FILE = "result.json", "samples.npz"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """A config to train, with the name of its directory.

    Attributes:
        name: of its directory.
        config: whole config, with `train.seed` and `data.fold`.
        about: label shown in progress messages.
    """

    name: str
    config: PPSConfig
    about: str

    @property
    def seed_fold(self) -> tuple[int, int | None]:
        """Seed and fold; runs of different configs are paired by them."""
        return self.config.train.seed, self.config.data.fold


def plan_run(config: PPSConfig, data: dict[str, Any], seed: int, fold: int | None, about: str) -> Run:
    """Returns the run of a config with a seed on a fold.

    Args:
        data: `checkpoint.describe_data` of the data set; it and not its path is part of the name.
        fold: None for the data set's own splits.
    """
    config = override(config, {"train.seed": seed, "data.fold": fold})
    # what is not a default: a field that is added later leaves the names alone
    values = first_names(differences(PPSConfig(), override(config, {"data.path": None, "data.residence": "auto"})))
    digest = hashlib.sha256(json.dumps([values, data["sha256"]], sort_keys=True).encode()).hexdigest()
    where = "" if fold is None else f"_fold{fold}"
    return Run(name=f"seed{seed}{where}_{digest[:12]}", config=config, about=about)


def num_updates(config: PPSConfig, splits: Splits) -> int:
    """Returns how many updates a run makes."""
    options = config.train
    return min(options.epochs * -(-len(splits.train) // options.batch_size), options.max_steps or 2**62)


def is_finished(run: Path) -> bool:
    """Whether the run directory holds a complete result."""
    return (run / RESULT_FILE).is_file()


def run_one(config: PPSConfig, run: Path, device: Device, threads: int | None, commit: str) -> int | None:
    """Trains in a run directory, or continues there, evaluates on the test split and writes the result.

    Args:
        commit: of the code that runs, for the record; see `runs.environment.source_commit`.
    Returns:
        None when finished, or the number of the signal that stopped the training, whose state is saved.
    Raises:
        ValueError: for data, device or a run directory that cannot be used.
        NonFiniteLossError: when training met a loss that is not finite.
    """
    with owning(run):
        # a directory that is neither a run nor what a kill before config.json has left is refused, never deleted
        resume = (run / CONFIG_FILE).is_file()
        result = train_and_evaluate(config, run, resume=resume, device=device, threads=threads, progress=False)
        if result.report is None:
            return result.stopped_by
        _write_samples(run / SAMPLES_FILE, result.report, result.data)
        _write_result(run, result.device, result.data, commit)
    return None


def _write_samples(path: Path, report: EvalReport, data: PreparedData) -> None:
    """Writes the overlaps of every sample in float64, so that metrics computed from them are exact."""
    samples = report.answers.samples[report.answers.is_scored]
    video, truth = data.sample_video[samples], data.truth(samples)
    values = {
        "sample": samples,
        "video": video,
        "video_id": np.array([data.video_ids[index] for index in video]),
        "sentence": np.array([data.sentences[index] for index in samples]),
        "moment": truth[:, 0] if truth.shape[1] == 1 else truth,
    }
    if data.kind is not None:
        values["kind"] = data.kind[samples]
    for prefix, name in (("model", MODEL), ("shuffled", SHUFFLED)):
        if name in report.tables:
            table = report.tables[name]
            for column, overlap in (("top1", table.iou_top1), ("topn", table.iou_topn)):
                # a model has both
                if overlap is not None:
                    values[f"{prefix}_{column}"] = overlap.numpy()
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **values)


def _write_result(run: Path, device: torch.device, data: PreparedData, commit: str) -> None:
    header = read_header(find_checkpoint(run, "latest"))
    device_info = devices()[f"{device.type}:{device.index or 0}" if device.type == "cuda" else "cpu"]
    machine = f"{device_info['name']}, {device_info['memory_gib']} GiB"
    if device.type == "cpu":
        machine += f", {device_info['threads']} thread(s)"
    write_json(
        run / RESULT_FILE,
        {
            "format": "pps_fast.lab.run",
            "version": VERSION,
            "data": {**header.data, "protocol": str(data.provenance.get("protocol", "not recorded"))},
            "commit": commit,
            "device": device.type,
            "machine": machine,
            "processor": device_info["name"],
            # a GPU's results do not depend on them
            "threads": device_info["threads"] if device.type == "cpu" else None,
            "torch": str(torch.__version__),
            "updates": header.step,
            "train_s": header.elapsed_s,
        },
    )
