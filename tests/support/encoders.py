"""An encoder of sentences without a network: counts of letters."""

from __future__ import annotations

import numpy as np

from pps_fast.prepare.readers.encoders import SentenceEncoder

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def counting_encoder(named: str) -> SentenceEncoder:
    """Returns an encoder of the name, whose vectors are counts of letters."""
    return SentenceEncoder(name=f"{named.partition('@')[0]}@1", width=len(_LETTERS), pooling="mean", run=_count)


def _count(sentences: list[str]) -> np.ndarray:
    return np.array([[text.lower().count(letter) for letter in _LETTERS] for text in sentences], dtype=np.float32)
