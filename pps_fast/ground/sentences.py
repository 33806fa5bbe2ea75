"""New sentences as a model takes them: its own words, or vectors of whole sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.data.store import rounded_columns
from pps_fast.data.tokens import EncodedSentences, encode_sentences, tokenize
from pps_fast.prepare.readers.encoders import SentenceEncoder, open_encoder
from pps_fast.randomness import gumbel_noise
from pps_fast.runs.answering import read_max_num_words
from pps_fast.runs.model_folder import read_words
from pps_fast.types import Batch


@dataclass(frozen=True, kw_only=True)
class ModelWords:
    """The words that a model knows.

    Attributes:
        words: V words; the class of a word is its index.
        vectors: [V, W] float32.
        max_num_words: words of a sentence that count, the first ones.
        seed: of the words that are hidden.
    """

    words: list[str]
    vectors: Tensor
    max_num_words: int
    seed: int


def read_known(folder: Path, device: torch.device | str, seed: int) -> ModelWords:
    """Returns the words of a model folder.

    Args:
        device: of the words' vectors.
        seed: of the words that are hidden.
    Raises:
        ValueError: for a folder without words.
    """
    words = read_words(folder)
    if words is None:
        raise ValueError(
            f"{folder}: has no words, so that it cannot read a sentence: it was written by an older pps_fast, or "
            "converted without its data; train it again, or convert it with its vocabulary"
        )
    vectors, max_num_words = torch.from_numpy(words[1]).to(device), read_max_num_words(folder)
    return ModelWords(words=words[0], vectors=vectors, max_num_words=max_num_words, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Queries:
    """n sentences.

    Attributes:
        sentences: as asked.
        batch: of them, with L columns for the longest and no frames.
        unknown_words: of each sentence.
        num_cut: [n] known words of each beyond those that are kept.
    """

    sentences: tuple[str, ...]
    batch: Batch
    unknown_words: tuple[tuple[str, ...], ...]
    num_cut: tuple[int, ...]

    def take(self, index: Tensor, frames: Tensor) -> Batch:
        """Returns the batch of some sentences, [B] int64, with frames [B, S, F]."""
        values: dict[str, Any] = {
            name: value[index] for name, value in self.batch.tensors().items() if name != "frames"
        }
        values["num_frames"] = torch.full_like(index, frames.shape[1])
        return Batch(frames=frames, **values)


class ModelSentences:
    """The encoder of whole sentences that a model was fitted with, loaded when it is first needed.

    Args:
        source: the model's record of its sentence vectors, which names the encoder; empty where it has none.
        named: folder, NAME or NAME@REVISION in its place, or None.
        loaded: the encoder, where it is loaded already.
    """

    def __init__(self, source: dict[str, Any], named: str | None, loaded: SentenceEncoder | None = None) -> None:
        self._recorded, self._named = source.get("encoder"), named
        self._encoder = loaded

    def encode(self, sentences: Sequence[str], width: int) -> np.ndarray:
        """Returns vectors [n, width] of n sentences; errors as `open`."""
        return self.open(width).encode(sentences)

    def open(self, width: int) -> SentenceEncoder:
        """Returns the encoder, loaded.

        Raises:
            ValueError: for one that nobody names, that cannot be used, or that makes vectors of another width.
        """
        if self._encoder is None:
            encoder = self._load(width)
            if encoder.width != width:
                raise ValueError(
                    f"sentence encoder {encoder.name}: makes vectors of width {encoder.width}, the model was fitted to "
                    f"width {width}, of {self._recorded or 'an encoder that it does not name'}; name that one"
                )
            self._encoder = encoder
        return self._encoder

    def _load(self, width: int) -> SentenceEncoder:
        if self._named is not None:
            return open_encoder(self._named)
        if self._recorded is None:
            raise ValueError(
                "the model was fitted to vectors of whole sentences, not to words, and does not say of which encoder; "
                "name it as sentence_encoder (--sentence-encoder), or give the vectors as sentence_vectors "
                f"[sentences, {width}]"
            )
        try:
            return open_encoder(str(self._recorded))
        except ValueError as error:
            raise ValueError(
                f"the model was fitted to vectors of the encoder {self._recorded}, which new sentences need: "
                f"{error}; or name its folder as sentence_encoder (--sentence-encoder)"
            ) from error


def encode_queries(
    sentences: Sequence[str], known: ModelWords, vectors: Any, sentence_dim: int, reads_words: bool = True
) -> Queries:
    """Encodes sentences.

    A sentence's hidden words depend on the seed alone, so that it always gets the same ones.

    Args:
        sentences: one at least.
        known: the model's words.
        vectors: [n, sentence_dim] vectors of the sentences, or None.
        sentence_dim: width of the vectors that the model was fitted to; 0 for a model without.
        reads_words: whether the model reads the words, too; where it does not, none is unknown to it.
    Raises:
        ValueError: for a sentence without any word that the model knows, or vectors that do not fit.
    """
    if not sentences:
        raise ValueError("ground: no sentence; ask one at least")
    encoded = encode_sentences(list(sentences), known.words, known.max_num_words)
    unknown = tuple(_unknown(sentence, set(known.words[1:])) for sentence in sentences)
    whole = _checked_vectors(vectors, len(sentences), sentence_dim)
    if reads_words:
        _require_words(sentences, encoded.num_words.tolist(), unknown)
    batch, count = _batch_of(encoded, known, whole).to(known.vectors.device), len(sentences)
    cut = tuple(encoded.num_cut.tolist())
    if not reads_words:
        unknown, cut = ((),) * count, (0,) * count
    return Queries(sentences=tuple(sentences), batch=batch, unknown_words=unknown, num_cut=cut)


def _batch_of(encoded: EncodedSentences, known: ModelWords, whole: Tensor | None) -> Batch:
    """Returns sentences as a batch without frames."""
    num_columns = int(rounded_columns(encoded.num_words, known.max_num_words).max(initial=1))
    word_ids = torch.from_numpy(encoded.word_ids[:, :num_columns])
    noise = torch.from_numpy(gumbel_noise(known.seed, 0, np.zeros(1, dtype=np.int64), num_columns))
    count = len(encoded.num_words)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Batch(
        frames=torch.zeros(count, 0, 0),
        num_frames=zeros,
        words=known.vectors.cpu()[word_ids],
        word_ids=word_ids,
        num_words=torch.from_numpy(encoded.num_words),
        hide_prob=torch.from_numpy(encoded.hide_prob[:, :num_columns]),
        word_noise=noise.repeat(count, 1),
        dropout_key=zeros.int(),
        sample_index=zeros,
        progress=torch.zeros(count),
        sentence=whole,
    )


def _require_words(sentences: Sequence[str], num_words: list[int], unknown: Sequence[tuple[str, ...]]) -> None:
    for sentence, count, words in zip(sentences, num_words, unknown, strict=True):
        if count == 0:
            names = f"it does not know {', '.join(words[:5])}" if words else "it has no word"
            raise ValueError(f"{sentence!r}: no word that the model knows ({names}); ask in other words")


def _unknown(sentence: str, words: set[str]) -> tuple[str, ...]:
    """Returns the tokens that are no known word, without punctuation marks, once each."""
    tokens = [token for token in tokenize(sentence) if any(map(str.isalnum, token))]
    return tuple(dict.fromkeys(token for token in tokens if token not in words))


def _checked_vectors(vectors: Any, count: int, sentence_dim: int) -> Tensor | None:
    """Returns vectors of sentences as [n, sentence_dim] float32, None for a model that reads words."""
    if sentence_dim == 0:
        if vectors is not None:
            raise ValueError("sentence_vectors: the model was trained on words, and reads these alone; leave them out")
        return None
    if vectors is None:
        raise ValueError(
            "the model was fitted to vectors of whole sentences, not to words; give sentence_vectors "
            f"[sentences, {sentence_dim}] of the encoder that it was fitted with"
        )
    whole = np.asarray(vectors, dtype=np.float32)
    whole = whole[None] if whole.ndim == 1 else whole
    if whole.shape != (count, sentence_dim) or not np.isfinite(whole).all():
        raise ValueError(
            f"sentence_vectors: shape {list(whole.shape)}, expected finite numbers [{count}, {sentence_dim}], a row "
            "for each sentence"
        )
    return torch.from_numpy(whole)
