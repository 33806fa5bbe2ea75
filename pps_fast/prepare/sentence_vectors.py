"""Joins vectors of whole sentences, made by an encoder, with the annotated sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.sentences import SentenceReader, open_sentences
from pps_fast.prepare.samples import Samples
from pps_fast.prepare.sources import describe_source
from pps_fast.reading import Refused


def read_sentence_vectors(
    options: PrepareOptions, samples: Samples, problems: Problems, show_progress: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """Reads the vector of every sample's sentence; sentences without a usable one go to `problems`.

    Returns:
        [M, n] float32 vectors (M samples, n their width; zeros where there is none), [M] bool whether there is one, and
        the record of their origin; None where --sentence-vectors is not given.
    Raises:
        ValueError: for a file that cannot be used at all, or of which nobody says what encoder made it.
    """
    path = options.sentence_vectors
    if path is None:
        return None
    with open_sentences(path, options.sentence_key, samples.query_id) as reader:
        encoder = options.sentence_encoder or reader.encoder
        if encoder is None:
            raise ValueError(
                f"{path}: does not say which encoder made the vectors; name it with --sentence-encoder NAME@REVISION"
            )
        names = samples.sentences if reader.by == "sentences" else [_text(name) for name in samples.query_id or ()]
        vectors = _vectors(reader, samples, names, problems, show_progress)
    width = next((len(vector) for vector in vectors if vector is not None), 0)
    has_vector = np.array([vector is not None for vector in vectors], dtype=bool)
    rows = [np.zeros(width, np.float32) if vector is None else vector for vector in vectors]
    source = {
        **describe_source(path),
        "format": reader.form,
        "by": reader.by,
        "key": options.sentence_key,
        "width": width,
        "encoder": encoder,
    }
    return np.array(rows, dtype=np.float32).reshape(len(rows), width), has_vector, source


def _text(name: str | int | None) -> str | None:
    return None if name is None else str(name)


def _vectors(
    reader: SentenceReader, samples: Samples, names: list[Any], problems: Problems, show_progress: bool
) -> list[np.ndarray | None]:
    """Returns the vector of each name, None where there is no usable one; widths are compared with the first."""
    vectors: list[np.ndarray | None] = []
    width = 0
    is_hidden = None if show_progress else True
    rows = zip(names, samples.rows, strict=True)
    for name, row in tqdm(rows, desc="sentences", unit="vector", total=len(names), disable=is_hidden):
        vector = None
        if name not in reader.locate:
            what = f"sentence {row.sentence!r}" if reader.by == "sentences" else f"query {name}"
            problems.add("no sentence vector", row.where, f"{what} has no vector in {reader.name}")
        else:
            try:
                vector = reader.read(name)
                if width and len(vector) != width:
                    raise Refused(f"has width {len(vector)}, expected {width}, that of the first")
            except Refused as error:
                vector = None
                problems.add("bad sentence vector", row.where, f"its vector in {reader.name} {error}")
        if vector is not None:
            width = len(vector)
        vectors.append(vector)
    return vectors
