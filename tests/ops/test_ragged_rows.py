"""Rows of sentences lie one behind another, every sentence has those of its words, and none is left over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.ops import ragged_rows as module
from pps_fast.ops.ragged_rows import ragged_rows
from pps_fast.ops.registration import is_interpreted

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
LENGTHS = np.random.default_rng(4).integers(1, 8, 37)


def _lengths(num_columns: int, num_words: np.ndarray, total: int) -> list[int]:
    """Words of each sentence with what is left over dealt out, one sentence after another."""
    left, lengths = total - int(num_words.sum()), []
    for words in num_words.tolist():
        more = min(left, num_columns - words)
        lengths.append(words + more)
        left -= more
    return lengths


@needs_interpreter
@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("left_over", [0, 1, 30, 37 * 8])
@pytest.mark.parametrize("num_samples", [1, 4, 37])
def test_places_are_those_of_a_loop(num_samples: int, left_over: int, extra: int) -> None:
    num_words = LENGTHS[:num_samples]
    total = min(int(num_words.sum()) + left_over, 8 * num_samples)
    got = ragged_rows(torch.from_numpy(num_words), 8, extra, total)
    assert got is not None and got.longest == 8 + extra
    lengths = [length + extra for length in _lengths(8, num_words, total)]
    assert got.start.tolist() == np.cumsum([0, *lengths]).tolist()
    places = [(sample, row) for sample, length in enumerate(lengths) for row in range(length)]
    assert got.place.T.tolist() == [list(place) for place in places]
    assert got.index.tolist() == [sample * (8 + extra) + row for sample, row in places]
    assert (got.start.dtype, got.place.dtype, got.index.dtype) == (torch.int32, torch.int32, torch.int64)


@needs_interpreter
def test_of_too_few_rows_none_lies_outside() -> None:
    got = ragged_rows(torch.tensor([3, 5, 2]), 6, 1, 7)
    assert got is not None and got.start.tolist() == [0, 4, 10, 10]
    assert got.place[0].tolist() == [0] * 4 + [1] * 6


@needs_interpreter
def test_more_words_than_columns_are_refused_and_many_sentences_are_not_ragged(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="total_words = 13: 2 sentences of 6 columns have at most 12"):
        ragged_rows(torch.tensor([3, 5]), 6, 0, 13)
    monkeypatch.setattr(module, "_MAX_SAMPLES", 1)
    assert ragged_rows(torch.tensor([3, 5]), 6, 0, 12) is None


@needs_interpreter
def test_the_registered_operator_passes_opcheck() -> None:
    torch.library.opcheck(torch.ops.pps_fast.ragged_rows.default, (torch.tensor([3, 1]), 4, 2, 9))
