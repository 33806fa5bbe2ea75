"""Whether a model and a data set belong together, told by their contents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pps_fast.data.identity import describe_data, differing_parts
from pps_fast.data.record import PreparedData
from pps_fast.runs.model_folder import read_header, read_words
from pps_fast.types import FeatureSizes


def match_data(folder: Path, data: PreparedData, is_chosen: bool) -> tuple[PreparedData, str | None]:
    """Returns the data set as a model can be asked about it, and a sentence where it is not the one it was trained on.

    The data of the training are taken whatever their file is called now. The same sentences with other features, words
    or splits are refused: the model's answers would look like results and be none. Another data set, with other
    sentences, is taken if the user chose it; its words become the model's by name.

    Args:
        folder: model folder.
        data: to ask about.
        is_chosen: whether the user named the data set, rather than the model's config.
    Raises:
        ValueError: naming what differs, or words that the model does not know.
    """
    recorded = read_header(folder).data
    differing = differing_parts(recorded, describe_data(data))
    if not differing:
        return data, None
    if is_chosen and differing == ["windows"]:
        return data, f"the windows are others than in the data the model was trained on ({recorded['name']!r})"
    # what a model of unknown data has to go by is its words
    is_unknown = differing == ["data"]
    if not is_unknown and (not is_chosen or "sentences" not in differing):
        whose = "this file has" if is_chosen else "the file it was trained on has since got"
        raise ValueError(
            f"{folder}: {whose} other {', '.join(differing)}; evaluate with the file as it was at the training, "
            "or train again"
        )
    words = read_words(folder)
    if words is None:
        return data, _about_another(recorded["name"]) + ", and its word classes must mean the same words"
    return _with_words(data, *words), _about_another(recorded["name"]) + "; its words are matched by name"


def _about_another(name: str) -> str:
    return f"the model was trained on another data set ({name!r}): whether it has seen these videos is unknown"


def _with_words(data: PreparedData, words: list[str], vectors: np.ndarray) -> PreparedData:
    """Returns the data set with a model's classes and vectors in place of its own.

    Raises:
        ValueError: for a word that the model does not have.
    """
    classes = {word: index for index, word in enumerate(words)}
    unknown = [data.words[index] for index in np.unique(data.word_ids) if data.words[index] not in classes]
    if unknown:
        noun = "word" if len(unknown) == 1 else "words"
        raise ValueError(
            f"the model does not know {len(unknown)} {noun} of this data set, among them {', '.join(unknown[:5])}; "
            "prepare the data set with the vocabulary of the model"
        )
    translated = np.array([classes.get(word, 0) for word in data.words])
    return replace(data, words=words, word_vectors=vectors, word_ids=translated[data.word_ids])


def differing_sizes(data: FeatureSizes, model: FeatureSizes) -> str:
    """Says in words which sizes of a data set are not those of a model."""
    what = {
        "frame_dim": "features of width",
        "word_dim": "word vectors of width",
        "vocab_size": "a vocabulary of",
        "num_segments": "segments of a video:",
    }
    pairs = {name: (getattr(data, name), getattr(model, name)) for name in what}
    different = [
        f"{what[name]} {has}, the model was trained with {wants}"
        for name, (has, wants) in pairs.items()
        if has != wants
    ]
    return f"the data set has {'; it has '.join(different)}"
