"""Joins vectors of whole sentences, made by an encoder, with the annotated sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.encoders import open_encoder
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.sentences import SentenceReader, open_sentences
from pps_fast.prepare.samples import Samples
from pps_fast.prepare.sources import describe_source
from pps_fast.reading import Refused

# where Moment-DETR and Lighthouse have the vectors of queries, beside the folders of video features
_TEXT_FOLDERS = ("clip_text_features", "clip_text")


def read_sentence_vectors(
    options: PrepareOptions, samples: Samples, problems: Problems, show_progress: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """Reads the vector of every sample's sentence; sentences without a usable one go to `problems`.

    Returns:
        [M, n] float32 vectors (M samples, n their width; zeros where there is none), [M] bool whether there is one, and
        the record of their origin; None where neither --sentence-vectors nor --sentence-encoder is given.
    Raises:
        ValueError: for a file that cannot be used at all, or of which nobody says what encoder made it.
    """
    path = options.sentence_vectors
    if path is None:
        return None if options.sentence_encoder is None else _encoded(options.sentence_encoder, samples, show_progress)
    path = text_folder(path)
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


def _encoded(named: str, samples: Samples, show_progress: bool) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Encodes every sentence, each once."""
    encoder = open_encoder(named)
    rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(samples.sentences))}
    vectors = encoder.encode(list(rows), show_progress=show_progress)
    source = {
        "format": "encoder",
        "by": "encoding",
        "width": encoder.width,
        "encoder": encoder.name,
        "pooling": encoder.pooling,
    }
    has_vector = np.ones(len(samples.rows), dtype=bool)
    return vectors[[rows[sentence] for sentence in samples.sentences]], has_vector, source


def text_folder(path: Path) -> Path:
    """Returns the folder of text features in one of Moment-DETR's or Lighthouse's form; another path as it is."""
    inner = [path / name for name in _TEXT_FOLDERS if (path / name).is_dir()]
    return inner[0] if inner and not any(entry.is_file() for entry in path.iterdir()) else path


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
