"""Words in the reconstructor: which are targets, and how they are predicted. Which are hidden: `ops/hidden_words.py`.

Paper: Section 3, the reconstruction loss.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.encoder.linear import Linear
from pps_fast.encoder.rows import Numbers
from pps_fast.ops.ragged_rows import ragged_rows
from pps_fast.ops.reconstruction_nll import ragged_nll, reconstruction_nll
from pps_fast.ragged import Ragged
from pps_fast.types import Batch, Reconstruction, ReconstructorInput

# columns whose numbers a model keeps; sentences of the data sets have at most 20 words
_NUM_KEPT = 64


def _exact(num_words: Tensor) -> Tensor:
    """The words of the sentence."""
    return num_words


def _plus_one(num_words: Tensor) -> Tensor:
    """The published off-by-one: every sentence but the longest of its batch must also predict class 0 at its end."""
    return torch.minimum(num_words + 1, num_words.max())


def _end_of_sentence(num_words: Tensor) -> Tensor:
    """Every sentence must predict class 0 at its end."""
    return num_words + 1


# by the names of `config.TargetLength`
TARGET_LENGTHS = {"exact": _exact, "plus_one": _plus_one, "end_of_sentence": _end_of_sentence}


def target_columns(num_words: Tensor, column: Tensor, target_length: str) -> Tensor:
    """Returns [B, n] bool, True where a word (or the end) must be predicted, for columns [n]."""
    return column < TARGET_LENGTHS[target_length](num_words).unsqueeze(1)


class Vocabulary(Linear):
    """The layer that predicts a class of the vocabulary from each row of R^M."""

    def __init__(self, config: PPSConfig, vocab_size: int) -> None:
        super().__init__(config.encoder.hidden_dim, vocab_size, config.backend)
        self.options = config.reconstructor
        self.columns = Numbers(_NUM_KEPT)

    def num_targets(self, batch: Batch) -> int:
        """How many words of a sentence may have to be predicted: its columns, and its end where that is a target."""
        return batch.word_ids.shape[1] + (self.options.target_length == "end_of_sentence")

    def predicting_tokens(self, inputs: ReconstructorInput, batch: Batch) -> ReconstructorInput:
        """Leaves out the tokens that predict no word, q_cls among them; no other token attends to them."""
        num = self.num_targets(batch)
        ragged, query = None, inputs.query[:, :num]
        # the rows that predict a word, and its end where that is one; how many the released targets need, no host knows
        if inputs.ragged is not None and batch.total_words is not None and self.options.target_length != "plus_one":
            num_columns = batch.word_ids.shape[1]
            ragged = ragged_rows(batch.num_words, num_columns, num - num_columns, batch.total_words)
        return replace(inputs, query=query, word_valid=inputs.word_valid[:, :num], ragged=ragged)

    def reconstruct(self, features: Tensor, batch: Batch, ragged: Ragged | None = None) -> Reconstruction:
        """Predicts the words of each sample's sentence under each mask and scores them by C(.).

        Args:
            features: [B, N, n, D] R^M of `predicting_tokens`; row t predicts word t. [N, R, D] of ragged rows.
            batch: B samples, whose `word_ids` are the targets.
            ragged: where ragged rows lie; logits are then [N, R, V].
        """
        num_columns, num_targets = batch.word_ids.shape[1], self.num_targets(batch)
        # rows next to each other: torch would copy the weight once for each sentence and mask otherwise
        logits = self(features.contiguous())
        targets = (
            batch.word_ids if num_targets == num_columns else F.pad(batch.word_ids, (0, num_targets - num_columns))
        )
        is_target = target_columns(batch.num_words, self.columns(num_targets), self.options.target_length)
        if ragged is not None:
            nll = ragged_nll(logits, targets, is_target, self.options.label_smoothing, ragged.start)
            return Reconstruction(logits=logits, nll=nll)
        nll = reconstruction_nll(logits, targets, is_target, self.options.label_smoothing, backend=self.backend)
        return Reconstruction(logits=logits[:, :, :num_columns], nll=nll)
