"""Checkpoints of safetensors and JSON, which are complete or absent even if the process is killed.

A run directory holds

    config.json                 the resolved config
    metrics.jsonl               see `metrics_log`
    trace.jsonl                 see `trace`; only with `train.trace_every`
    checkpoints/step_000123/    model.safetensors, training.safetensors, checkpoint.json
    latest.json, best.json      names of the checkpoints to use; best.json only where a validation split chose one

A checkpoint is written to a temporary directory, flushed and renamed; then the pointers are replaced; then checkpoints
that no pointer names are deleted. So a pointer always names a complete checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict, to_dict
from pps_fast.data.prepared import PreparedData
from pps_fast.files import TEMPORARY, flush, read_json, replace_bytes, write_json
from pps_fast.model import PPS
from pps_fast.runs.pointers import Which, read_pointer
from pps_fast.types import FeatureSizes

FORMAT = "pps_fast.checkpoint"
VERSION = 1
MODEL_FILE, TRAINING_FILE, HEADER_FILE = "model.safetensors", "training.safetensors", "checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything of a checkpoint that is not a tensor.

    Attributes:
        step: updates done.
        epoch, batch: finished passes over the data, and finished batches of the current pass.
        elapsed_s: seconds of training so far.
        device: type of the device that trains.
        config, sizes: what the model was built from.
        data: `describe_data` of the training data.
    """

    step: int
    epoch: int
    batch: int
    elapsed_s: float
    device: str
    config: PPSConfig
    sizes: FeatureSizes
    data: dict[str, Any]


def describe_data(data: PreparedData) -> dict[str, Any]:
    """Returns name and sha256 of a data set: of its provenance, words, sentences and splits (not of every feature)."""
    digest = hashlib.sha256(json.dumps([data.provenance, data.video_ids, data.words], sort_keys=True).encode())
    for array in (data.word_ids, data.sample_video, data.fold, np.asarray(data.split, dtype="U10")):
        digest.update(np.ascontiguousarray(array).tobytes())
    return {"name": str(data.provenance.get("name", "unnamed")), "sha256": digest.hexdigest()}


def save_checkpoint(run: Path, model: nn.Module, training: Mapping[str, Tensor], header: Header) -> Path:
    """Writes the checkpoint of `header.step` and returns its directory; one that exists already is left alone.

    Training is deterministic, so an existing checkpoint of the same step holds the same values.

    Args:
        training: what training needs to continue, as named tensors; see `train.state`.
    """
    final = run / "checkpoints" / f"step_{header.step:06d}"
    if final.exists():
        return final
    temporary = final.with_name(TEMPORARY + final.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # not safetensors' own writing to a file, which denies reading to everybody else
    replace_bytes(temporary / MODEL_FILE, save(_on_host(model.state_dict())))
    replace_bytes(temporary / TRAINING_FILE, save(_on_host(training)))
    values = {"format": FORMAT, "version": VERSION, "torch": torch.__version__}
    values.update({item.name: getattr(header, item.name) for item in dataclasses.fields(header)})
    values.update(config=to_dict(header.config), sizes=to_dict(header.sizes))
    write_json(temporary / HEADER_FILE, values)
    os.rename(temporary, final)
    flush(final.parent)
    return final


def find_checkpoint(directory: Path, which: Which = "best") -> Path:
    """Returns `directory` if it is a checkpoint, or the checkpoint that a run directory points to.

    Where no validation split chose a best checkpoint, the latest is the best.

    Raises:
        ValueError: for a directory that is neither, or a pointer to a checkpoint that is gone.
    """
    if (directory / HEADER_FILE).is_file():
        return directory
    pointer = (read_pointer(directory, "best") if which == "best" else None) or read_pointer(directory, "latest")
    if pointer is None:
        raise ValueError(
            f"{directory}: no checkpoint here (neither {HEADER_FILE} nor latest.json); expected a run directory of "
            "`python -m pps_fast.train` that has saved at least once, or one of its checkpoints/step_* directories"
        )
    checkpoint = directory / pointer["checkpoint"]
    if not checkpoint.is_dir():
        raise ValueError(
            f"{directory}: {checkpoint} is named by the run's pointer but missing; copy the whole run directory again"
        )
    return checkpoint


def read_header(checkpoint: Path) -> Header:
    """Reads checkpoint.json.

    Raises:
        ValueError: for a missing, damaged or foreign file, another version, or a config of another version.
    """
    path = checkpoint / HEADER_FILE
    values = read_json(path, ("format", "version"))
    if values["format"] != FORMAT or values["version"] != VERSION:
        raise ValueError(
            f"{path}: format {values['format']!r} version {values['version']!r}; this pps_fast reads {FORMAT!r} "
            f"version {VERSION}. Use the pps_fast that wrote it, or train again"
        )
    missing = [item.name for item in dataclasses.fields(Header) if item.name not in values]
    if missing:
        raise ValueError(f"{path}: the field {missing[0]} is missing; the file was changed after it was written")
    values = {item.name: values[item.name] for item in dataclasses.fields(Header)}
    values["config"] = from_dict(PPSConfig, values["config"])
    values["sizes"] = from_dict(FeatureSizes, values["sizes"], "sizes")
    return Header(**values)


def restore(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    """Loads the weights that `save_checkpoint` wrote into `model`, and returns its `training` tensors.

    Nothing else has a state: dropout and hidden words follow from the number of the update. Random numbers that older
    checkpoints hold besides are returned too, and can be ignored.

    Raises:
        ValueError: for missing or damaged files, or weights that do not fit; the message names them.
    """
    _load_weights(checkpoint, model)
    return _read_tensors(checkpoint / TRAINING_FILE)


def load_model(
    directory: str | Path, device: torch.device | str = "cpu", which: Which = "best"
) -> tuple[PPS, PPSConfig, FeatureSizes]:
    """Builds the model of a run and loads its weights, in eval mode.

    Args:
        directory: a run directory, or one checkpoint of it.
        device: where the model shall live.
        which: of a run directory, the checkpoint a validation split chose (the latest where none did), or the latest.

    Raises:
        ValueError: for missing or damaged files, another version, or tensors that do not fit; the message names them.
    """
    checkpoint = find_checkpoint(Path(directory), which)
    header = read_header(checkpoint)
    model = PPS(header.config, header.sizes)
    _load_weights(checkpoint, model)
    return model.to(device).eval(), header.config, header.sizes


def _load_weights(checkpoint: Path, model: nn.Module) -> None:
    path = checkpoint / MODEL_FILE
    tensors = _read_tensors(path)
    wanted = model.state_dict()
    faults = [f"no tensor {name}" for name in sorted(wanted.keys() - tensors.keys())]
    faults += [f"unknown tensor {name}" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        shape, expected = list(tensors[name].shape), list(wanted[name].shape)
        if shape != expected:
            faults.append(f"{name} has shape {shape}, the model {expected}")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(f"{path}: does not fit the config beside it: {'; '.join(faults[:5])}{more}")
    model.load_state_dict(tensors)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: missing; copy the whole checkpoint directory again") from error
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or damaged ({error}); copy it again or take another checkpoint") from error


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # copied, because safetensors refuses tensors that share memory
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
