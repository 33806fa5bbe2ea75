"""A model as a folder that needs nothing else: weights, config, words and their vectors, recipe, statistics.

    model.json               format, config, sizes, what the model was trained on and with, sha256 of every other file
    model.safetensors        weights of the networks; absent where there are none
    alignment.safetensors    maps and statistics of an alignment, see `alignment.model`
    words.safetensors        vectors of the words; the words themselves are in its header
    statistics.safetensors   mean and scale of the frames of the training videos
    recipe.json              how the features were made
    confidence.json          what turns evidence of an alignment into confidence, see `alignment.confidence`
    training.safetensors     what training needs to continue; a model folder that has it is a checkpoint

The words, the statistics and the recipe are absent where the data set was not at hand. Folders of older versions have
checkpoint.json in place of model.json, and weights and state of training alone; they are still read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pps_fast.alignment.confidence import Confidence
from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict, to_dict
from pps_fast.data.record import PreparedData, feature_recipe
from pps_fast.data.statistics import frame_statistics
from pps_fast.files import read_json, replace_bytes, write_json
from pps_fast.reading import FAILURES, brief, reading, require_file
from pps_fast.runs.records import DataIdentity, require_count, require_finite
from pps_fast.types import FeatureSizes

FORMAT = "pps_fast.model"
VERSION = 1
HEADER_FILE, MODEL_FILE, TRAINING_FILE = "model.json", "model.safetensors", "training.safetensors"
ALIGNMENT_FILE = "alignment.safetensors"
WORDS_FILE, STATISTICS_FILE, RECIPE_FILE = "words.safetensors", "statistics.safetensors", "recipe.json"
CONFIDENCE_FILE = "confidence.json"
OLD_HEADER_FILE = "checkpoint.json"
MAX_NUM_WORDS = 20
"""words of a sentence that count, where a folder does not say: what `prepare` keeps by default"""
# names of the tensors that go into alignment.safetensors, and of a model's buffers that statistics.safetensors has
_ALIGNMENT_PREFIX = "alignment."
_STATISTICS = {"embed.frame_input.mean": "mean", "embed.frame_input.scale": "scale"}
_UNREADABLE: tuple[type[Exception], ...] = (SafetensorError, *FAILURES)

# file with the header -> its format and version
_READ = {HEADER_FILE: (FORMAT, VERSION), OLD_HEADER_FILE: ("pps_fast.checkpoint", 1)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything of a model folder that is not a tensor.

    Attributes:
        step: updates done.
        epoch, batch: finished passes over the data, and finished batches of the current pass.
        elapsed_s: seconds of training so far.
        device: type of the device that trains.
        config, sizes: what the model was built from.
        data: `data.identity.describe_data` of the training data.
        environment: `environment.environment` of the training; empty where an older version did not record it.
    """

    step: int
    epoch: int
    batch: int
    elapsed_s: float
    device: str
    config: PPSConfig
    sizes: FeatureSizes
    data: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("step", "epoch", "batch"):
            require_count(name, getattr(self, name))
        require_finite("elapsed_s", self.elapsed_s)
        from_dict(DataIdentity, self.data, "data", ignores_others=True)


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """What a model needs to take sentences and frames that are not in its data set.

    Attributes:
        words: V words; the class of a word is its index.
        word_vectors: [V, W] float32.
        frame_mean, frame_scale: [F] float32, see `data.statistics.frame_statistics`; None where the features of the
            training are not at hand.
        recipe: JSON-able record of how features were made.
        max_num_words: words of a sentence that count, the first ones.
        confidence: calibration of an alignment's answers, or None.
    """

    words: list[str]
    word_vectors: np.ndarray
    recipe: dict[str, Any]
    max_num_words: int = MAX_NUM_WORDS
    confidence: Confidence | None = None
    frame_mean: np.ndarray | None = None
    frame_scale: np.ndarray | None = None


def inputs_of(data: PreparedData, samples: np.ndarray) -> ModelInputs:
    """Returns the inputs of a model that is trained on some samples of a data set."""
    mean, scale = frame_statistics(data, samples)
    recipe = data.recipe or feature_recipe([], data.sizes.num_segments)
    return ModelInputs(
        words=list(data.words),
        word_vectors=data.word_vectors,
        frame_mean=mean,
        frame_scale=scale,
        recipe=recipe,
        max_num_words=data.word_ids.shape[1],
    )


def write_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    header: Header,
    inputs: ModelInputs | None = None,
) -> None:
    """Writes a model folder into an empty directory, model.json last."""
    alignment = {name: value for name, value in weights.items() if name.startswith(_ALIGNMENT_PREFIX)}
    networks = {name: value for name, value in weights.items() if name not in alignment and name not in _STATISTICS}
    statistics = {_STATISTICS[name]: weights[name] for name in _STATISTICS if name in weights}
    if not statistics and inputs is not None and inputs.frame_mean is not None:
        statistics = {"mean": torch.tensor(inputs.frame_mean), "scale": torch.tensor(inputs.frame_scale)}
    tensors = {
        MODEL_FILE: networks, ALIGNMENT_FILE: alignment, STATISTICS_FILE: statistics, TRAINING_FILE: training
    }  # fmt: skip
    # not safetensors' own writing to a file, which denies reading to everybody else
    contents = {name: save(_on_host(values)) for name, values in tensors.items() if values}
    if inputs is not None:
        vectors = {"vectors": torch.tensor(inputs.word_vectors), "max_num_words": torch.tensor(inputs.max_num_words)}
        # one text alone: safetensors writes several in any order, and the same model has to have the same bytes
        contents[WORDS_FILE] = save(vectors, metadata={"words": json.dumps(inputs.words)})
        contents[RECIPE_FILE] = _json_bytes(inputs.recipe)
        if inputs.confidence is not None:
            contents[CONFIDENCE_FILE] = _json_bytes(to_dict(inputs.confidence))
    for name, content in contents.items():
        replace_bytes(folder / name, content)
    values = {"format": FORMAT, "version": VERSION}
    values |= {item.name: getattr(header, item.name) for item in dataclasses.fields(Header)}
    values |= {"config": to_dict(header.config), "sizes": to_dict(header.sizes)}
    values["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write_json(folder / HEADER_FILE, sealed(values))


def _json_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of model.json with the sha256 of all others in the field sha256."""
    others = {name: value for name, value in values.items() if name != "sha256"}
    return {**others, "sha256": hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()}


def is_model_folder(folder: Path) -> bool:
    """Whether a directory holds the header of a model folder, of this version or an older one."""
    return any((folder / name).is_file() for name in _READ)


def read_header(folder: Path) -> Header:
    """Reads model.json.

    Raises:
        ValueError: for a missing, damaged or foreign file, another version, or a config of another version.
    """
    path, values = _read_values(folder)
    fields = dataclasses.fields(Header)
    missing = [item.name for item in fields if item.name not in values and item.name != "environment"]
    if missing:
        raise ValueError(f"{path}: the field {missing[0]} is missing; the file was changed after it was written")
    try:
        header: Header = from_dict(Header, values, "the record", ignores_others=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; copy the whole folder again, or train again") from error
    return header


def _read_values(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the file with a folder's header, and its verified content."""
    is_old = not (folder / HEADER_FILE).is_file() and (folder / OLD_HEADER_FILE).is_file()
    path = folder / (OLD_HEADER_FILE if is_old else HEADER_FILE)
    values = read_json(path, ("format", "version"))
    expected = _READ[path.name]
    if (values["format"], values["version"]) != expected:
        raise ValueError(
            f"{path}: format {values['format']!r} version {values['version']!r}; this pps_fast reads {expected[0]!r} "
            f"version {expected[1]}. Use the pps_fast that wrote it, or train again"
        )
    if not isinstance(values.get("files", {}), dict):
        raise ValueError(f"{path}: its field files is no object; copy the whole folder again")
    if not is_old and values.get("sha256") != sealed(values)["sha256"]:
        raise ValueError(f"{path}: damaged or changed after it was written (sha256); copy the whole folder again")
    return path, values


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Reads one file of tensors, verified against model.json.

    Raises:
        ValueError: for a missing or damaged file; the message names it.
    """
    content = _read_bytes(folder, name)
    try:
        return load(content)
    except _UNREADABLE as error:
        raise _damaged(folder / name, brief(error)) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Reads the weights of a model, of networks and alignment, and its statistics, verified against model.json.

    Raises:
        ValueError: for a missing or damaged file; the message names it.
    """
    path, values = _read_values(folder)
    # folders of older versions do not list their files, and have networks alone
    listed = values.get("files", {MODEL_FILE: None} if path.name == OLD_HEADER_FILE else {})
    tensors: dict[str, Tensor] = {}
    for name in (MODEL_FILE, ALIGNMENT_FILE):
        if name in listed:
            tensors |= read_tensors(folder, name)
    config = read_header(folder).config
    if config.method == "proposals" and config.encoder.frames != "raw":
        statistics = read_tensors(folder, STATISTICS_FILE)
        tensors |= {name: statistics[theirs] for name, theirs in _STATISTICS.items() if theirs in statistics}
    return tensors


def read_words(folder: Path) -> tuple[list[str], np.ndarray] | None:
    """Reads the words of a model and their [V, W] float32 vectors; None where the folder has none.

    Raises:
        ValueError: for a damaged file.
    """
    content = read_listed(folder, WORDS_FILE)
    if content is None:
        return None
    try:
        words = json.loads(metadata_of(content)["words"])
        vectors = load(content)["vectors"].numpy()
        if len(words) != len(vectors) or vectors.ndim != 2 or not all(isinstance(word, str) for word in words):
            raise ValueError("words and vectors do not fit together")
    except _UNREADABLE as error:
        raise _damaged(folder / WORDS_FILE, brief(error)) from error
    return words, vectors


def metadata_of(content: bytes) -> dict[str, str]:
    """Returns the texts in the header of a file of tensors: its length, then itself, as safetensors defines it."""
    metadata: dict[str, str] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return metadata


def read_listed(folder: Path, name: str) -> bytes | None:
    """Returns the content of a file, verified against model.json; None where that does not list it."""
    _, values = _read_values(folder)
    return _read_bytes(folder, name) if name in values.get("files", {}) else None


def _read_bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    _, values = _read_values(folder)
    if not path.exists():
        raise ValueError(f"{path}: missing; copy the whole checkpoint directory again")
    require_file(path)
    with reading(path):
        content = path.read_bytes()
    expected = values.get("files", {}).get(name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise _damaged(path, "its sha256 is not that in model.json")
    return content


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: truncated or damaged ({why}); copy it again or take another checkpoint")


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # copied, because safetensors refuses tensors that share memory
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
