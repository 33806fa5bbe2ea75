"""Checkpoint files of the published code -> run directories that `pps_fast.eval` takes, and back.

The published code saves with torch.save a dict with `model_parameters` (the state dict), `num_updates` and `config`
(see `settings`).
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override, to_dict
from pps_fast.data.prepared import PreparedData
from pps_fast.data.record import feature_recipe
from pps_fast.files import Note, replace_bytes
from pps_fast.model import PPS
from pps_fast.prepare.readers.vocabulary import detect_vocabulary_format, read_vocabulary
from pps_fast.published.settings import Settings, describe_differences, read_settings
from pps_fast.published.weights import export_released, import_released
from pps_fast.reading import FAILURES, cause_of, cut
from pps_fast.runs.checkpoint import (
    Header,
    describe_data,
    load_pps,
    read_header,
    read_newest,
    save_checkpoint,
)
from pps_fast.runs.environment import environment
from pps_fast.runs.leftovers import delete_leftovers
from pps_fast.runs.lock import owning
from pps_fast.runs.model_folder import ModelInputs, inputs_of
from pps_fast.runs.pointers import point
from pps_fast.runs.run_directory import require_fresh
from pps_fast.torch_files import load_plain
from pps_fast.types import FeatureSizes

# of a model whose data set is not at hand; no data set has this sha256
UNKNOWN_DATA = {"name": "not recorded (published weights)", "sha256": "0" * 64}
_STATE, _STEP, _SETTINGS = "model_parameters", "num_updates", "config"
# of the published code, for a file that does not tell
_NUM_SEGMENTS = 200
# published parameters whose last, last and first axis are the widths and the classes of the data
_FRAME, _WORD, _CLASSES = "frame_fc.weight", "word_fc.weight", ("fc_comp.weight", "fc_rec.weight")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint of the published code.

    Attributes:
        path: its file.
        state: the state dict.
        step: updates behind it, 0 where the file does not tell.
        stored: its settings as they stand in the file, or None.
    """

    path: Path
    state: dict[str, Tensor]
    step: int
    stored: Any

    @property
    def settings(self) -> Settings:
        """Its settings.

        Raises:
            ValueError: where it has none, or they are unknown.
        """
        try:
            return read_settings(self.stored)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; name the settings of its training with --preset") from error

    def sizes(self, num_segments: int) -> FeatureSizes:
        """Returns the sizes of the data it was trained on, from the shapes of its weights.

        Raises:
            ValueError: where it lacks these weights.
        """
        classes = next((name for name in _CLASSES if name in self.state), _CLASSES[0])
        for name in (_FRAME, _WORD, classes):
            if name not in self.state or self.state[name].ndim != 2:
                raise ValueError(f"{self.path}: has no matrix {name}; expected weights of PPS, CPL or CNM")
        return FeatureSizes(
            frame_dim=self.state[_FRAME].shape[1],
            word_dim=self.state[_WORD].shape[1],
            vocab_size=self.state[classes].shape[0],
            num_segments=num_segments,
        )


def read_published(path: Path) -> Published:
    """Reads a checkpoint of the published code, or its state dict alone, without running code from the file.

    Raises:
        ValueError: for a file that is missing, damaged, or holds other objects than tensors and plain values.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a checkpoint of the published code, saved by torch.save")
    try:
        content = load_plain(path)
    except UnpicklingError as error:
        raise ValueError(
            f"{path}: not only tensors and plain values, which are all that is loaded from a file of others; save its "
            f"{_STATE} alone with torch.save"
        ) from error
    except FAILURES as error:
        raise ValueError(f"{path}: damaged or not a file of torch.save ({cause_of(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a dict with {_STATE}, or a state dict")
    state = content.get(_STATE, content)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path}: its {_STATE} is a {type(state).__name__}, expected tensors by name")
    strangers = [cut(str(name), 60) for name, value in state.items() if not _is_plain(name, value)]
    if strangers or not state:
        names = ", ".join(strangers[:3]) or "nothing"
        raise ValueError(f"{path}: no {_STATE}, and as a state dict it holds {names}, expected tensors by name")
    step = content.get(_STEP, 0)
    stored = content.get(_SETTINGS) if _STATE in content else None
    is_count = isinstance(step, int) and 0 <= step < 2**62
    return Published(path=path, state=dict(state), step=step if is_count else 0, stored=stored)


def _is_plain(name: object, value: object) -> bool:
    """Whether an entry of a state dict is a dense tensor of real numbers, all of which are stored."""
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.numel() <= max(value.untyped_storage().nbytes(), 1)
    )


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    preset: PPSConfig | None = None,
    vocabulary: Path | None = None,
    data: PreparedData | None = None,
    data_path: str | None = None,
) -> Path:
    """Writes a run directory with the weights of a checkpoint of the published code, and returns its checkpoint.

    It holds a model to evaluate and no state of training, which the published code does not save.

    Args:
        source: see `read_published`.
        out: empty or new.
        preset: computes what the published code computes, for example a *_released preset; None takes the settings that
            the file carries. Where both are there and differ, a note says so.
        vocabulary: file of the words and their counts that the weights were trained with, glove.pkl.
        data: the data they were trained on, in place of the vocabulary; without either the model does not know its
            words.
        data_path: where these data lie, for the config.
    Raises:
        ValueError: for a file that cannot be read, weights that do not fit, or a directory that is not empty.
    """
    require_fresh(out)
    published = read_published(source)
    config, num_segments = _settings(published, preset)
    sizes = published.sizes(num_segments) if data is None else data.sizes
    model = PPS(override(config, {"data.path": data_path}), sizes)
    try:
        import_released(model, published.state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    inputs = None if data is None else inputs_of(data, _training_samples(data))
    if vocabulary is not None:
        inputs = _inputs_from(vocabulary, sizes)
    return _write(out, model, published.step, UNKNOWN_DATA if data is None else describe_data(data), inputs)


def _write(out: Path, model: PPS, step: int, data: dict[str, Any], inputs: ModelInputs | None) -> Path:
    """Writes a run directory with one checkpoint; `data` as `describe_data` of what the model was trained on."""
    header = Header(
        step=step,
        epoch=0,
        batch=0,
        elapsed_s=0.0,
        device="cpu",
        config=model.config,
        sizes=model.sizes,
        data=data,
        environment=environment(),
    )
    with owning(out):
        delete_leftovers(out)
        checkpoint = save_checkpoint(out, model, {}, header, inputs)
        point(out, "latest", checkpoint, step=step)
    return checkpoint


def _settings(published: Published, preset: PPSConfig | None) -> tuple[PPSConfig, int]:
    """Returns the config to build the model with, and the segments of a video's features."""
    try:
        settings = published.settings
    except ValueError:
        if preset is None:
            raise
        # what is unknown here cannot be compared with the preset
        return preset, _NUM_SEGMENTS
    if preset is not None:
        differing = describe_differences(settings, preset)
        if differing:
            warnings.warn(
                Note(f"{published.path}: its own settings differ from the preset's, which are taken: {differing}"),
                stacklevel=3,
            )
    return preset or settings.config, settings.num_segments or _NUM_SEGMENTS


def _inputs_from(vocabulary: Path, sizes: FeatureSizes) -> ModelInputs:
    """Returns the words of a model from the vocabulary of its training: the most frequent, as many as it has classes.

    Raises:
        ValueError: for a file that cannot be read, has no counts, or other words than the weights.
    """
    if detect_vocabulary_format(vocabulary) == "glove_text":
        raise ValueError(f"{vocabulary}: has no counts, which number the words; name the published code's glove.pkl")
    read = read_vocabulary(vocabulary, token_counts=Counter(), vocab_size=sizes.vocab_size - 1)
    num_words, width = read.vectors.shape
    if (num_words, width) != (sizes.vocab_size, sizes.word_dim):
        raise ValueError(
            f"{vocabulary}: {read.num_available} words with vectors of width {width}, the weights are of "
            f"{sizes.vocab_size - 1} words and width {sizes.word_dim}; name the vocabulary of their training"
        )
    return ModelInputs(words=read.words, word_vectors=read.vectors, recipe=feature_recipe([], sizes.num_segments))


def _training_samples(data: PreparedData) -> np.ndarray:
    """Returns the samples of the training split, or all where there is none."""
    is_train = np.asarray(data.split) == "train"
    return np.flatnonzero(is_train if is_train.any() else np.ones_like(is_train))


def export_checkpoint(model_dir: Path, path: Path) -> None:
    """Writes the weights of a run directory or checkpoint as the published code saves them.

    Raises:
        ValueError: for a model that cannot be read, or that has no counterpart in the published code.
    """
    loaded, header = read_newest(model_dir, "best", lambda folder: (load_pps(folder), read_header(folder)))
    model, config, _ = loaded
    settings = {**to_dict(config), "sizes": to_dict(header.sizes)}
    content = {_STEP: header.step, _SETTINGS: settings, _STATE: export_released(model)}
    # torch's own writing to a file tells no reason when the disk is full
    buffer = io.BytesIO()
    torch.save(content, buffer)
    replace_bytes(path, buffer.getvalue())
