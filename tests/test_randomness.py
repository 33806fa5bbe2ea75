"""Dropout by counters: its distribution, what a decision depends on, its gradients, and the table of streams."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast import randomness
from pps_fast.randomness import (
    MASK_NUMBERS,
    NUM_LEVELS,
    SAMPLE_KEY,
    SECOND_NOISE,
    SECOND_UPDATE,
    SITES,
    WORD_COLUMNS,
    add_dropout,
    dropout,
    dropout_keys,
    mask_keys,
    mix,
    num_dropped_levels,
)
from tests.support import oracles
from tests.support.compare import assert_agree
from tests.support.keep_mask import keep_mask

RATES = (0.1, 0.5, 0.001)
# 256 sequences of 64 rows of 256 values: 4.2 million decisions
NUM_KEYS, SHAPE = 256, (64, 256)


def _keys(number: int, seed: int = 8) -> Tensor:
    """Keys of samples with consecutive numbers, [G]."""
    return torch.from_numpy(dropout_keys(seed, 0, np.arange(number)))


@lru_cache
def _kept(rate: float) -> Tensor:
    """[G, n, D] decisions, shared by the tests of their distribution."""
    return keep_mask(_keys(NUM_KEYS), SHAPE, rate)


def _standard_errors(first: Tensor, second: Tensor, rate: float) -> float:
    """Correlation of two sets of decisions, in standard errors of independent ones."""
    dropped = num_dropped_levels(rate) / NUM_LEVELS
    either = first.double().mean() + second.double().mean()
    covariance = (first & second).double().mean() - (1 - dropped) * (either - (1 - dropped))
    return (covariance / (dropped * (1 - dropped)) * first.numel() ** 0.5).item()


# --- distribution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_the_share_kept_is_that_asked_for_in_either_half_of_a_word(rate: float) -> None:
    dropped = num_dropped_levels(rate) / NUM_LEVELS
    for kept in (_kept(rate), _kept(rate)[..., 0::2], _kept(rate)[..., 1::2]):
        error = (kept.double().mean().item() - (1 - dropped)) / (dropped * (1 - dropped) / kept.numel()) ** 0.5
        assert abs(error) < 4


@pytest.mark.parametrize("rate", RATES)
def test_neighbors_and_lags_are_uncorrelated(rate: float) -> None:
    flat = _kept(rate).flatten(1)
    errors = {lag: _standard_errors(flat[:, :-lag], flat[:, lag:], rate) for lag in range(1, 131)}
    assert max(map(abs, errors.values())) < 5, max(errors, key=lambda lag: abs(errors[lag]))


@pytest.mark.parametrize("rate", RATES)
def test_rows_and_sequences_are_uncorrelated(rate: float) -> None:
    kept = _kept(rate)
    for distance in (1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 63):
        # consecutive samples have consecutive sequences here
        assert abs(_standard_errors(kept[:, :-distance], kept[:, distance:], rate)) < 5, f"rows {distance} apart"
        assert abs(_standard_errors(kept[:-distance], kept[distance:], rate)) < 5, f"samples {distance} apart"


@pytest.mark.parametrize("rate", RATES)
def test_sites_are_uncorrelated(rate: float) -> None:
    dropout_key = _keys(128)
    kept = [keep_mask(mix(dropout_key, site), (8, 256), rate) for site in range(41)]
    kept.append(keep_mask(dropout_key, (8, 256), rate))
    errors = [_standard_errors(kept[i], kept[j], rate) for i in range(len(kept)) for j in range(i)]
    assert max(map(abs, errors)) < 5
    # and neither too even: the errors of independent decisions have the standard deviation 1
    assert 0.9 < np.std(errors) < 1.1


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_seeds_and_epochs_are_uncorrelated(rate: float) -> None:
    first = _kept(rate)
    for seed, epoch in ((9, 0), (8, 1), (0, 8)):
        dropout_key = torch.from_numpy(dropout_keys(seed, epoch, np.arange(NUM_KEYS)))
        assert abs(_standard_errors(first, keep_mask(dropout_key, SHAPE, rate), rate)) < 5


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_pairs_and_fours_of_neighbors_have_the_counts_of_independent_ones(rate: float) -> None:
    dropped = num_dropped_levels(rate) / NUM_LEVELS
    for size in (2, 4):
        for first in (0, 1):
            bits = _kept(rate).flatten(1)[:, first:][:, : 16380 // size * size].unflatten(1, (-1, size))
            value = 2 ** torch.arange(size)
            counts = torch.bincount((bits * value).sum(-1).flatten(), minlength=2**size).double()
            num_kept = torch.tensor([bin(word).count("1") for word in range(2**size)])
            expected = counts.sum() * (1 - dropped) ** num_kept * dropped ** (size - num_kept)
            # 3 and 15 degrees of freedom: a thousandth of all seeds exceed 16.3 and 37.7
            assert ((counts - expected) ** 2 / expected).sum() < {2: 16.3, 4: 37.7}[size]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_sequences_differ_in_what_they_keep_as_independent_ones_do(rate: float) -> None:
    dropped = num_dropped_levels(rate) / NUM_LEVELS
    for columns in (slice(0, None, 2), slice(1, None, 2)):
        kept = keep_mask(mix(_keys(4096), 5), (4, 256), rate)[..., columns].flatten(1)
        variance = kept.double().sum(1).var().item() / (kept.shape[1] * dropped * (1 - dropped))
        # 5 standard errors of the variance of 4,096 normal numbers
        assert abs(variance - 1) < 5 * (2 / 4096) ** 0.5


# --- what a decision depends on -------------------------------------------------------------------


def test_decisions_are_those_of_the_loops() -> None:
    dropout_key, rate = _keys(3), 0.3
    got = keep_mask(mix(dropout_key, 17), (5, 7), rate)
    for g in range(3):
        site_key = oracles.hashed(int(dropout_key[g]), 17)
        assert int(mix(dropout_key, 17)[g]) == site_key
        assert got[g].flatten().tolist() == [oracles.is_kept(site_key, position, rate) for position in range(35)]


@pytest.mark.parametrize("counter", [0, 1, -1, 40, 2**31 - 1, -(2**31)])
def test_mix_takes_numbers_and_tensors(counter: int) -> None:
    dropout_key = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31)], dtype=torch.int32)
    expected = [oracles.hashed(int(one), counter) for one in dropout_key]
    for value in (counter, torch.tensor(counter, dtype=torch.int32), torch.full((5,), counter, dtype=torch.int32)):
        got = mix(dropout_key, value)
        assert got.dtype == torch.int32 and got.tolist() == expected


def test_extreme_levels_are_kept_and_dropped_as_the_rate_says() -> None:
    dropout_key, pairs = _keys(64), torch.arange(1 << 15)
    levels = torch.empty(64, 1 << 16, dtype=torch.bool)
    # a rate of one level drops the lowest of 65,536 alone
    kept = randomness._decide(dropout_key, (pairs * randomness.STEP).to(torch.int32), 1 / NUM_LEVELS, out=levels)
    assert 20 < (~kept).sum() < 120
    assert keep_mask(dropout_key, SHAPE, 0.0).all()


def test_a_sequence_decides_alone() -> None:
    dropout_key = _keys(7)
    together = keep_mask(dropout_key, (5, 6), 0.4)
    order = torch.tensor([4, 0, 6, 2])
    assert torch.equal(keep_mask(dropout_key[order], (5, 6), 0.4), together[order])
    assert torch.equal(keep_mask(dropout_key[3:4], (5, 6), 0.4), together[3:4])


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (5, 1), (4, 6), (3, 3)])
def test_fewer_rows_are_the_first_of_more(shape: tuple[int, int]) -> None:
    long = keep_mask(_keys(4), (shape[0] + 2, shape[1]), 0.4)
    assert torch.equal(keep_mask(_keys(4), shape, 0.4), long[:, : shape[0]])


@pytest.mark.parametrize("num_rows", [1, 2])
def test_rows_from_the_middle_of_a_sequence_are_those_of_the_whole(num_rows: int) -> None:
    dropout_key, x = _keys(5), torch.rand(5, 9, 6)
    first = torch.tensor([0, 3, 7, 1, 5])
    rows = first.unsqueeze(1) + torch.arange(num_rows)
    pick = torch.arange(5).unsqueeze(1)
    assert torch.equal(
        keep_mask(dropout_key, (num_rows, 6), 0.4, first), keep_mask(dropout_key, (9, 6), 0.4)[pick, rows]
    )
    whole, part = dropout(x, dropout_key, 0.4), dropout(x[pick, rows], dropout_key, 0.4, first)
    assert_agree("rows", part, whole[pick, rows])


@pytest.mark.parametrize("width", [1, 6, 7])
@pytest.mark.parametrize("first_row", [1, 2, 5])
def test_rows_of_any_width_may_begin_at_one_row_for_all_sequences(width: int, first_row: int) -> None:
    dropout_key, x = _keys(5), torch.rand(5, 9, width) + 1
    whole, rows = dropout(x, dropout_key, 0.4), slice(first_row, first_row + 3)
    assert_agree("rows", dropout(x[:, rows], dropout_key, 0.4, first_row), whole[:, rows])
    assert torch.equal(keep_mask(dropout_key, (3, width), 0.4, first_row), whole[:, rows] != 0)


def test_odd_rows_have_no_first_row_of_each_sequence() -> None:
    with pytest.raises(ValueError, match="rows of 7 values with first_row: expected an even number"):
        keep_mask(_keys(2), (1, 7), 0.4, torch.tensor([0, 1]))


@pytest.mark.parametrize("chunk", [1, 64, 1 << 18])
@pytest.mark.parametrize("first_row", [0, 3, torch.tensor([0, 3, 7, 1, 5])])
def test_chunks_decide_like_the_whole(chunk: int, first_row: Tensor | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU decides for all sequences at once, a CPU for as many as fit its cache."""
    dropout_key, x, branch = _keys(5), torch.rand(5, 3, 6), torch.rand(5, 3, 6)
    monkeypatch.setattr(randomness, "_CHUNK", chunk)
    kept = keep_mask(dropout_key, (3, 6), 0.4, first_row)
    scale = 1 / (1 - num_dropped_levels(0.4) / NUM_LEVELS)
    assert_agree("dropout", dropout(branch, dropout_key, 0.4, first_row), branch * kept * scale, rtol=1e-7)
    assert_agree("sum", add_dropout(x, branch, dropout_key, 0.4, first_row), x + branch * kept * scale, rtol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dropout_keeps_dtype_and_decisions(dtype: torch.dtype, poisoned_empty: None) -> None:
    branch = torch.rand(4, 3, 5).transpose(0, 1).to(dtype) + 1
    got = dropout(branch, _keys(3), 0.25)
    kept = keep_mask(_keys(3), (4, 5), 0.25)
    assert got.dtype == dtype and torch.equal(got != 0, kept)
    # 4 / 3, rounded to the dtype twice
    assert_agree("kept", got[kept].double(), branch[kept].double() * 4 / 3, rtol=2 * torch.finfo(dtype).eps)


def test_another_dtype_is_that_of_the_result_rounded_once() -> None:
    branch = torch.rand(3, 4, 5, requires_grad=True)
    got, expected = dropout(branch, _keys(3), 0.25, 0, torch.bfloat16), dropout(branch, _keys(3), 0.25)
    assert torch.equal(got, expected.bfloat16())
    got.sum().backward()
    assert branch.grad.dtype == torch.float32 and torch.equal(branch.grad != 0, expected != 0)
    assert dropout(branch, None, 0.25, 0, torch.bfloat16).dtype == torch.bfloat16


def test_a_sum_has_the_dtype_of_its_first_term() -> None:
    x, branch = torch.rand(3, 4, 6), torch.rand(3, 4, 6).bfloat16()
    for first, second in ((x, branch), (branch, x)):
        for dropout_key in (None, _keys(3)):
            assert add_dropout(first, second, dropout_key, 0.1).dtype == first.dtype


def test_without_a_key_or_a_rate_nothing_is_dropped() -> None:
    x, branch = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    for dropout_key, rate in ((None, 0.5), (_keys(2), 0.0), (_keys(2), 0.4 / NUM_LEVELS)):
        assert dropout(branch, dropout_key, rate) is branch
        assert_agree("sum", add_dropout(x, branch, dropout_key, rate), x + branch)


def test_rates_are_rounded_to_the_grid_of_levels() -> None:
    assert [num_dropped_levels(rate) for rate in (0.0, 0.5, 0.1, 0.7 / NUM_LEVELS)] == [0, 32768, 6554, 1]
    branch = torch.ones(64, 8, 8)
    got = dropout(branch, _keys(64), 0.1)
    assert_agree("same level", got, dropout(branch, _keys(64), 6554 / NUM_LEVELS))
    assert got.max().item() == pytest.approx(1 / (1 - 6554 / NUM_LEVELS), rel=1e-7)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_row", [0, 1, torch.tensor([4, 0])])
def test_gradients_of_both_orders(first_row: Tensor | int) -> None:
    x, branch = (torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    dropout_key = _keys(2)
    assert torch.autograd.gradcheck(lambda b: dropout(b, dropout_key, 0.4, first_row), branch)
    assert torch.autograd.gradcheck(lambda a, b: add_dropout(a, b, dropout_key, 0.4, first_row), (x, branch))
    assert torch.autograd.gradgradcheck(lambda a, b: add_dropout(a, b, dropout_key, 0.4, first_row) ** 2, (x, branch))


def test_the_backward_pass_makes_the_decisions_of_the_forward_pass() -> None:
    branch = torch.rand(5, 3, 7, requires_grad=True)
    dropout(branch, _keys(5), 0.4).sum().backward()
    kept = keep_mask(_keys(5), (3, 7), 0.4)
    assert_agree("gradient", branch.grad, kept / (1 - num_dropped_levels(0.4) / NUM_LEVELS), rtol=1e-7)


# what torch does on its way; nobody here instantiates one
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_compiler_traces_dropout_in_one_graph() -> None:
    torch.compiler.reset()
    x, branch, dropout_key = torch.rand(3, 4, 6), torch.rand(3, 4, 6), _keys(3)
    compiled = torch.compile(lambda a, b, k: add_dropout(a, b, mix(k, 3), 0.4), fullgraph=True, backend="eager")
    assert_agree("compiled", compiled(x, branch, dropout_key), add_dropout(x, branch, mix(dropout_key, 3), 0.4))
    torch.compiler.reset()


@pytest.mark.gpu
def test_a_gpu_decides_like_a_cpu() -> None:
    dropout_key, first = _keys(64), torch.arange(64)
    for first_row, there in ((3, 3), (first, first.cuda())):
        for number in (0, 40):
            got = keep_mask(mix(dropout_key.cuda(), number), (5, 256), 0.1, there)
            assert torch.equal(got.cpu(), keep_mask(mix(dropout_key, number), (5, 256), 0.1, first_row))


# --- the table of streams -------------------------------------------------------------------------


def test_first_counters_of_the_streams_of_a_key_are_disjoint_and_fit_a_word() -> None:
    masks = range(-MASK_NUMBERS[-1], -MASK_NUMBERS[0] + 1)
    streams = [SITES, masks, range(SECOND_UPDATE, SECOND_UPDATE + 1), range(SECOND_NOISE, SECOND_NOISE + 1)]
    ordered = sorted(streams, key=lambda counters: counters.start)
    assert all(len(counters) for counters in ordered)
    assert all(first.stop <= second.start for first, second in itertools.pairwise(ordered))
    assert -(2**31) <= ordered[0].start and ordered[-1].stop <= 2**31


def test_the_key_of_a_sample_is_hashed_with_a_counter_that_no_word_column_has() -> None:
    assert SAMPLE_KEY not in WORD_COLUMNS
    seed, epoch, samples = 8, 3, np.arange(50)
    words = randomness.counter_hash(seed, epoch, samples, SAMPLE_KEY) >> np.uint64(32)
    np.testing.assert_array_equal(dropout_keys(seed, epoch, samples).view(np.uint32), words.astype(np.uint32))


def _streams(dropout_key: Tensor) -> dict[str, Tensor]:
    """What each stream makes of the keys of samples, by its name in the table; [B, n] int32."""
    sites = torch.stack([mix(dropout_key, site) for site in range(100)], 1)
    second = mix(mix(dropout_key, SECOND_UPDATE), SECOND_UPDATE)
    columns = torch.arange(32, dtype=torch.int32)
    return {
        "sample": dropout_key.unsqueeze(1),
        "sites": sites,
        "masks": mask_keys(dropout_key, 59),
        "second update": second.unsqueeze(1),
        "second noise": mix(mix(second, SECOND_NOISE).unsqueeze(1), columns),
        "sites of the second update": torch.stack([mix(second, site) for site in range(100)], 1),
        "masks of the second update": mask_keys(second, 59),
    }


def test_keys_of_all_streams_of_a_sample_differ() -> None:
    together = torch.cat(list(_streams(_keys(256)).values()), 1)
    collisions = sum(len(row) - len(row.unique()) for row in together)
    # 352 words of a sample among 2^31: one pair in all 256 samples has the probability 0.7 %
    assert collisions == 0


def test_streams_are_uncorrelated() -> None:
    normal = []
    for words in _streams(_keys(4096)).values():
        bit = ((words[:, :1] >> 20) & 1).double().flatten() - 0.5
        normal.append(bit / bit.std())
    errors = torch.stack(normal) @ torch.stack(normal).T / len(normal[0]) ** 0.5
    assert errors.triu(1).abs().max() < 4.5


def test_masks_keep_their_keys_whatever_their_number() -> None:
    dropout_key = _keys(64)
    keys = mask_keys(dropout_key, 59)
    assert keys.dtype == torch.int32 and keys.shape == (64, 59)
    assert torch.equal(mask_keys(dropout_key, 7), keys[:, :7])
    assert torch.equal(mask_keys(dropout_key[3:4], 59), keys[3:4])


def test_numbers_are_those_of_earlier_runs() -> None:
    """A run that was begun before a change of this file must go on with the same numbers."""
    dropout_key = torch.from_numpy(dropout_keys(8, 1, np.array([0, 5])))
    assert dropout_key.tolist() == [-321429270, 1901758090]
    assert mask_keys(dropout_key, 2).tolist() == [[-1323175001, -752955624], [-2002621023, -497008283]]
    assert mix(mix(dropout_key, SECOND_UPDATE), SECOND_UPDATE).tolist() == [1444197319, 775773446]
    assert randomness.gumbel_noise(8, 1, np.array([5]), 3).tolist() == [
        [1.700275182723999, -0.7636098265647888, 1.7618775367736816]
    ]
