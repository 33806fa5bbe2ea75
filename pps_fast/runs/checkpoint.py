"""Checkpoints of safetensors and JSON, which are complete or absent even if the process is killed.

A run directory holds

    config.json                 the resolved config
    metrics.jsonl               see `metrics_log`
    trace.jsonl                 see `trace`; only with `train.trace_every`
    checkpoints/step_000123/    a model folder, see `model_folder`, with training.safetensors
    latest.json, best.json      names of the checkpoints to use; best.json only where a validation split chose one

A checkpoint is written to a temporary directory, flushed and renamed; then the pointers are replaced; then checkpoints
that no pointer names are deleted. So a pointer always names a complete checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.data.identity import describe_data as describe_data
from pps_fast.files import TEMPORARY, flush
from pps_fast.model import PPS, Model, build_model
from pps_fast.runs.leftovers import delete_leftovers
from pps_fast.runs.model_folder import (
    HEADER_FILE,
    ModelInputs,
    is_model_folder,
    read_tensors,
    read_weights,
    write_folder,
)
from pps_fast.runs.model_folder import TRAINING_FILE as TRAINING_FILE
from pps_fast.runs.model_folder import Header as Header
from pps_fast.runs.model_folder import read_header as read_header
from pps_fast.runs.pointers import Which, read_pointer
from pps_fast.types import FeatureSizes

Result = TypeVar("Result")


def save_checkpoint(
    run: Path,
    model: nn.Module,
    training: Mapping[str, Tensor],
    header: Header,
    inputs: ModelInputs | None = None,
) -> Path:
    """Writes the checkpoint of `header.step` and returns its directory; one that exists already is left alone.

    Training is deterministic, so an existing checkpoint of the same step holds the same values.

    Args:
        training: what training needs to continue, as named tensors; see `train.state`.
        inputs: words, statistics and recipe of the training data; None where these are not at hand.
    Raises:
        ValueError: where a link, or something that is no checkpoint, has its name.
    """
    final = run / "checkpoints" / f"step_{header.step:06d}"
    if final.is_symlink() or (final.exists() and not is_model_folder(final)):
        raise ValueError(f"{final}: somebody else's, where a checkpoint has to be written; give it another name")
    if final.exists():
        return final
    temporary = final.with_name(TEMPORARY + final.name)
    delete_leftovers(run)
    temporary.mkdir(parents=True)
    try:
        write_folder(temporary, model.state_dict(), training, header, inputs)
    except OSError:
        # on a full disk its part would take the room that the next attempt needs
        delete_leftovers(run)
        raise
    os.rename(temporary, final)
    flush(final.parent)
    return final


def find_checkpoint(directory: Path, which: Which = "best") -> Path:
    """Returns `directory` if it is a model folder, or the checkpoint that a run directory points to.

    Where no validation split chose a best checkpoint, the latest is the best.

    Raises:
        ValueError: for a directory that is neither, or a pointer to a checkpoint that is gone.
    """
    if is_model_folder(directory):
        return directory
    pointer = (read_pointer(directory, "best") if which == "best" else None) or read_pointer(directory, "latest")
    if pointer is None:
        raise ValueError(
            f"{directory}: no checkpoint here (neither {HEADER_FILE} nor latest.json); expected a run directory of "
            "`python -m pps_fast.train` that has saved at least once, one of its checkpoints/step_* directories, or "
            "another model folder"
        )
    checkpoint = directory / pointer["checkpoint"]
    if not checkpoint.is_dir():
        again = (read_pointer(directory, "best") if which == "best" else None) or read_pointer(directory, "latest")
        if again != pointer:
            # a running training has replaced it between the two looks
            return find_checkpoint(directory, which)
        raise ValueError(
            f"{directory}: {checkpoint} is named by the run's pointer but missing; copy the whole run directory again"
        )
    return checkpoint


def read_newest(directory: Path, which: Which, read: Callable[[Path], Result]) -> Result:
    """Returns what `read` makes of a run's checkpoint; of the next one where a running training has deleted it.

    Args:
        directory: as `find_checkpoint`.
        read: is given the directory of the checkpoint.
    Raises:
        ValueError: as `find_checkpoint` and `read` for a checkpoint that is still the run's.
    """
    while True:
        checkpoint = find_checkpoint(directory, which)
        try:
            return read(checkpoint)
        except ValueError:
            if find_checkpoint(directory, which) == checkpoint:
                raise


def restore(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    """Loads the weights that `save_checkpoint` wrote into `model`, and returns its `training` tensors.

    Nothing else has a state: dropout and hidden words follow from the number of the update. Random numbers that older
    checkpoints hold besides are returned too, and can be ignored.

    Raises:
        ValueError: for missing or damaged files, or weights that do not fit; the message names them.
    """
    load_weights(checkpoint, model)
    return read_tensors(checkpoint, TRAINING_FILE)


def load_model(
    directory: str | Path, device: torch.device | str = "cpu", which: Which = "best"
) -> tuple[Model, PPSConfig, FeatureSizes]:
    """Builds the model of a run and loads its weights, in eval mode: a `PPS`, or an `AlignmentModel`.

    Args:
        directory: a run directory, one checkpoint of it, or another model folder.
        device: where the model shall live.
        which: of a run directory, the checkpoint a validation split chose (the latest where none did), or the latest.

    Raises:
        ValueError: for missing or damaged files, another version, or tensors that do not fit; the message names them.
    """
    return read_newest(Path(directory), which, lambda checkpoint: _load_model(checkpoint, device))


def _load_model(checkpoint: Path, device: torch.device | str) -> tuple[Model, PPSConfig, FeatureSizes]:
    header = read_header(checkpoint)
    tensors = read_weights(checkpoint)
    # without memory: the file decides whether these sizes are true before they are allocated
    with torch.device("meta"):
        shapes = build_model(header.config, header.sizes).state_dict()
    _check_shapes(checkpoint, tensors, shapes)
    model = build_model(header.config, header.sizes)
    model.load_state_dict(tensors)
    return model.to(device).eval(), header.config, header.sizes


def load_pps(
    directory: str | Path, device: torch.device | str = "cpu", which: Which = "best"
) -> tuple[PPS, PPSConfig, FeatureSizes]:
    """As `load_model`, of a model whose proposals a generator makes.

    Raises:
        ValueError: besides, for a model that is an alignment alone.
    """
    model, config, sizes = load_model(directory, device, which)
    if not isinstance(model, PPS):
        raise ValueError(f"{directory}: an alignment, without networks; name a model of `python -m pps_fast.train`")
    return model, config, sizes


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Loads the weights of a model folder into a model.

    Raises:
        ValueError: for missing or damaged files, or weights that do not fit; the message names them.
    """
    tensors = read_weights(checkpoint)
    _check_shapes(checkpoint, tensors, model.state_dict())
    model.load_state_dict(tensors)


def _check_shapes(checkpoint: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a folder's tensors are not those of the model."""
    faults = [f"no tensor {name}" for name in sorted(wanted.keys() - tensors.keys())]
    faults += [f"unknown tensor {name}" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        shape, expected = list(tensors[name].shape), list(wanted[name].shape)
        if shape != expected:
            faults.append(f"{name} has shape {shape}, the model {expected}")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(f"{checkpoint}: does not fit the config beside it: {'; '.join(faults[:5])}{more}")
