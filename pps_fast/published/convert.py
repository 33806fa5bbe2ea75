"""Checkpoint files of the published code -> run directories that `pps_fast.eval` takes, and back.

The published code saves with torch.save a dict with `model_parameters` (the state dict), `num_updates` and `config`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import to_dict
from pps_fast.data.prepared import PreparedData
from pps_fast.files import replace_bytes
from pps_fast.model import PPS
from pps_fast.published.weights import export_released, import_released
from pps_fast.runs.checkpoint import (
    Header,
    describe_data,
    find_checkpoint,
    load_model,
    read_header,
    save_checkpoint,
)
from pps_fast.runs.environment import environment
from pps_fast.runs.leftovers import delete_leftovers
from pps_fast.runs.lock import owning
from pps_fast.runs.model_folder import inputs_of
from pps_fast.runs.pointers import point
from pps_fast.runs.run_directory import require_fresh
from pps_fast.types import FeatureSizes

# of a model whose data set is not at hand; no data set has this sha256
UNKNOWN_DATA = {"name": "not recorded (published weights)", "sha256": "0" * 64}
_STATE, _STEP = "model_parameters", "num_updates"


def read_published(path: Path) -> tuple[dict[str, Tensor], int]:
    """Reads a checkpoint of the published code, or its state dict alone, without running code from the file.

    Returns:
        The state dict, and the number of updates behind it, 0 where the file does not tell it.
    Raises:
        ValueError: for a file that is missing, damaged, or holds other objects than tensors and plain values.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a checkpoint of the published code, saved by torch.save")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path}: not only tensors and plain values, which are all that is loaded from a file of others "
            f"({_first_line(error)}); save its model_parameters alone with torch.save"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: damaged or not a file of torch.save ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a dict with {_STATE}, or a state dict")
    state = content.get(_STATE, content)
    strangers = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers or not state:
        names = ", ".join(strangers[:3]) or "nothing"
        raise ValueError(f"{path}: no {_STATE}, and as a state dict it holds {names}, expected tensors by name")
    step = content.get(_STEP, 0)
    return dict(state), step if isinstance(step, int) else 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def import_checkpoint(
    source: Path, out: Path, config: PPSConfig, sizes: FeatureSizes, data: PreparedData | None = None
) -> Path:
    """Writes a run directory with the weights of a checkpoint of the published code, and returns its checkpoint.

    It holds a model to evaluate and no state of training, which the published code does not save.

    Args:
        source: see `read_published`.
        out: empty or new.
        config: that computes what the published code computes, for example of a *_released preset.
        sizes: of the data the weights were trained on.
        data: these data; None where they are not at hand.
    Raises:
        ValueError: for a file that cannot be read, weights that do not fit, or a directory that is not empty.
    """
    require_fresh(out)
    state, step = read_published(source)
    model = PPS(config, sizes)
    try:
        import_released(model, state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    header = Header(
        step=step,
        epoch=0,
        batch=0,
        elapsed_s=0.0,
        device="cpu",
        config=config,
        sizes=sizes,
        data=UNKNOWN_DATA if data is None else describe_data(data),
        environment=environment(),
    )
    inputs = None if data is None else inputs_of(data, _training_samples(data))
    with owning(out):
        delete_leftovers(out)
        checkpoint = save_checkpoint(out, model, {}, header, inputs)
        point(out, "latest", checkpoint, step=step)
    return checkpoint


def _training_samples(data: PreparedData) -> np.ndarray:
    """Returns the samples of the training split, or all where there is none."""
    is_train = np.asarray(data.split) == "train"
    return np.flatnonzero(is_train if is_train.any() else np.ones_like(is_train))


def export_checkpoint(model_dir: Path, path: Path) -> None:
    """Writes the weights of a run directory or checkpoint as the published code saves them.

    Raises:
        ValueError: for a model that cannot be read, or that has no counterpart in the published code.
    """
    model, config, _ = load_model(model_dir)
    header = read_header(find_checkpoint(model_dir))
    content = {_STEP: header.step, "config": to_dict(config), _STATE: export_released(model)}
    # torch's own writing to a file tells no reason when the disk is full
    buffer = io.BytesIO()
    torch.save(content, buffer)
    replace_bytes(path, buffer.getvalue())
