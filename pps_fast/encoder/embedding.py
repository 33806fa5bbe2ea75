"""Projections of segment features and words into the model's width, with the learned tokens.

Paper: Section 3, "Encoders", and the class tokens v_cls and q_cls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.dropout import Dropout
from pps_fast.encoder.frame_input import FRAME_INPUTS
from pps_fast.encoder.linear import Linear
from pps_fast.encoder.positions import Positions
from pps_fast.ops.registration import runs_kernels
from pps_fast.ops.token_rows import project_rows
from pps_fast.ops.word_positions import put_word_cls
from pps_fast.types import Batch, FeatureSizes


def _word_cls_vector(embedding: Embedding, dropout_key: Tensor | None, num_words: Tensor, embedded: Tensor) -> Tensor:
    """One learned vector stands at the CLS slot, after the projection."""
    return embedding.positions(embedded, embedding.word_cls, num_words)


def _word_cls_scalar(embedding: Embedding, dropout_key: Tensor | None, num_words: Tensor, embedded: Tensor) -> Tensor:
    """Entry b of the learned vector fills the CLS slot of the b-th sample of the batch, before the projection.

    The published code's form: a sample's importance weights depend on its position in the batch.
    """
    num_samples, limit = len(num_words), embedding.word_cls.numel()
    if num_samples > limit:
        raise ValueError(
            f"batch of {num_samples} samples: reconstructor.word_cls = 'scalar_per_batch_position' has only "
            f"encoder.hidden_dim = {limit} positions; use a smaller batch or word_cls = 'vector'"
        )
    row = embedding.word_cls[:num_samples, None, None].expand(-1, 1, embedding.hidden_word.numel())
    cls = embedding.word_projection(embedding.word_cls_dropout(row, dropout_key))  # [B, 1, D]
    return embedding.positions(put_word_cls(embedded, cls, num_words))


def _no_word_cls(embedding: Embedding, dropout_key: Tensor | None, num_words: Tensor, embedded: Tensor) -> Tensor:
    """Leaves the CLS slot empty; nothing reads it."""
    return embedding.positions(embedded)


WORD_CLS = {"vector": _word_cls_vector, "scalar_per_batch_position": _word_cls_scalar, "none": _no_word_cls}


def _projected_words(embedding: Embedding, batch: Batch, is_hidden: Tensor, dropout_key: Tensor | None) -> Tensor:
    """Embeds the sentence anew, with its own dropout and an empty slot behind it: [B, L + 2, D]."""
    return embedding.embedded_words(batch.words, embedding.hidden_query_dropout, dropout_key, is_hidden, num_empty=1)


def _reused_words(embedding: Embedding, batch: Batch, is_hidden: Tensor, dropout_key: Tensor | None) -> Tensor:
    """Returns the generator's embedded words without the last, which predicts nothing: [B, L, D].

    Computed a second time with the same dropout, which depends on counters only.
    """
    return embedding.embedded_words(batch.words, embedding.query_dropout, dropout_key, is_hidden)[:, :-1]


WORD_TOKENS = {"projected": _projected_words, "reused": _reused_words}


class Embedding(nn.Module):
    """Embeds frames with v_cls, the sentence with its start token, and the hidden sentence with q_cls.

    The config decides whether v_cls and q_cls exist.
    """

    # None without a q_cls, where nothing reads it
    word_cls: nn.Parameter

    def __init__(self, config: PPSConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.frame_input = FRAME_INPUTS[config.encoder.frames](sizes.frame_dim)
        self.frame_projection = Linear(sizes.frame_dim, width, config.backend)
        self.word_projection = Linear(sizes.word_dim, width, config.backend)
        self.frame_dropout, self.query_dropout, self.hidden_query_dropout = (Dropout(config) for _ in range(3))
        self.word_cls_dropout = Dropout(config)
        has_frame_cls, has_word_cls = config.encoder.frame_summary == "cls", config.reconstructor.word_cls != "none"
        self.positions = Positions(width, config.backend)
        self.frame_cls = nn.Parameter(torch.zeros(sizes.frame_dim)) if has_frame_cls else None
        self.start_word = nn.Parameter(torch.zeros(sizes.word_dim))
        self.hidden_word = nn.Parameter(torch.zeros(sizes.word_dim))
        self.register_parameter("word_cls", nn.Parameter(torch.zeros(width)) if has_word_cls else None)
        self._with_word_cls = WORD_CLS[config.reconstructor.word_cls]
        self._word_tokens = WORD_TOKENS[config.reconstructor.word_tokens]

    def frames(self, batch: Batch, dropout_key: Tensor | None) -> Tensor:
        """V-hat: projected segments, followed by v_cls if the config has one.

        Args:
            batch: B samples.
            dropout_key: [B] int32 of the samples; None for no dropout. The same in the other methods.
        Returns:
            [B, S + 1, D], or [B, S, D] without v_cls.
        """
        num_samples, num_segments, _ = batch.frames.shape
        frames = self.frame_input(batch.frames)
        if self.frame_cls is None:
            return self.frame_projection(self.frame_dropout(frames, dropout_key))
        if self._runs_kernels(frames):
            rows = num_segments, num_segments + 1
            settings = self.frame_dropout.settings
            return project_rows(frames, self.frame_cls, self.frame_projection, dropout_key, settings, rows)
        # projected apart: frames need no gradient and are four times as wide as their projection
        projected = self.frame_projection(self.frame_dropout(frames, dropout_key))
        cls = self.frame_dropout(self.frame_cls.expand(num_samples, 1, -1), dropout_key, num_segments)
        return torch.cat((projected, self.frame_projection(cls)), 1)

    def embedded_words(
        self,
        words: Tensor,
        dropout: Dropout,
        dropout_key: Tensor | None,
        is_hidden: Tensor | None = None,
        num_empty: int = 0,
    ) -> Tensor:
        """Start token, words with the hidden ones replaced, and empty slots, without positions.

        Args:
            words: [B, L, W].
            dropout: site of their dropout.
            is_hidden: [B, L] bool; None where no word is hidden.
            num_empty: slots behind the words.
        Returns:
            [B, L + 1 + num_empty, D].
        """
        num_slots = words.shape[1] + 1 + num_empty
        if self._runs_kernels(words):
            hidden = None if is_hidden is None else (self.hidden_word, is_hidden)
            rows = 0, num_slots
            return project_rows(
                words, self.start_word, self.word_projection, dropout_key, dropout.settings, rows, hidden
            )
        start = self.start_word.to(words.dtype).expand(words.shape[0], 1, -1)
        empty = words.new_zeros(1, 1, words.shape[2]).expand(words.shape[0], num_empty, -1)
        embedded = self.word_projection(dropout(torch.cat((start, words, empty), 1), dropout_key))
        if is_hidden is None:
            return embedded
        # the start token, in slot 0, and the slots behind the words are never hidden
        hidden_slots = nn.functional.pad(is_hidden, (1, num_empty))
        return torch.where(hidden_slots.unsqueeze(-1), self.word_projection(self.hidden_word), embedded)

    def query(self, batch: Batch, dropout_key: Tensor | None) -> Tensor:
        """Q: start token and words.

        Returns:
            [B, L + 1, D].
        """
        return self.positions(self.embedded_words(batch.words, self.query_dropout, dropout_key))

    def hidden_query(self, batch: Batch, is_hidden: Tensor, dropout_key: Tensor | None) -> Tensor:
        """Q-hat: start token, words with the hidden ones replaced, and q_cls behind the last word.

        Args:
            is_hidden: [B, L] bool.
        Returns:
            [B, L + 2, D], q_cls of sample b at num_words[b] + 1; or [B, L, D], the start token and all words but the
            last, where `reconstructor.word_tokens` is 'reused'.
        """
        embedded = self._word_tokens(self, batch, is_hidden, dropout_key)
        return self._with_word_cls(self, dropout_key, batch.num_words, embedded)

    def _runs_kernels(self, x: Tensor) -> bool:
        """Whether rows are projected on the path of the kernels, which has no gradient for them."""
        return not x.requires_grad and runs_kernels(x, self.word_projection.backend)
