"""Sinusoidal positions of words."""

from __future__ import annotations

import pytest
import torch

from pps_fast.encoder.positions import _NUM_KEPT, Positions, position_table
from tests.support.compare import assert_agree
from tests.support.oracles_model import positional_table


@pytest.mark.parametrize(("num_positions", "dim"), [(1, 4), (22, 16), (12, 256)])
def test_positions_agree_with_the_loops(num_positions: int, dim: int) -> None:
    x = torch.zeros(2, num_positions, dim, dtype=torch.float64)
    expected = torch.from_numpy(positional_table(num_positions, dim)).expand(2, -1, -1)
    assert_agree("positions", Positions(dim)(x), expected, atol=1e-12)


def test_the_first_position_is_left_alone() -> None:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    got = Positions(8)(x)
    assert_agree("first", got[:, 0], x[:, 0])
    assert (got[:, 1:] != x[:, 1:]).any()


def test_a_longer_sentence_has_the_same_first_positions() -> None:
    assert_agree("prefix", Positions(8)(torch.zeros(1, 9, 8))[:, :4], Positions(8)(torch.zeros(1, 4, 8)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_dtype_is_kept_and_the_table_is_fp32_at_least(dtype: torch.dtype) -> None:
    got = Positions(6)(torch.zeros(1, 20, 6, dtype=dtype))
    assert got.dtype == dtype
    exact = torch.from_numpy(positional_table(20, 6)).unsqueeze(0)
    # one rounding of values up to 1; sin and cos of bf16 angles would be off by 0.1
    assert_agree("table", got, exact, atol=2 * torch.finfo(dtype).eps + 1e-12)


def test_width_two_has_one_frequency() -> None:
    got = Positions(2)(torch.zeros(1, 3, 2, dtype=torch.float64))
    position = torch.arange(1, 3, dtype=torch.float64)
    assert_agree("table", got[0, 1:], torch.stack((position.sin(), position.cos()), -1), atol=1e-15)


@pytest.mark.parametrize("num_positions", [1, _NUM_KEPT, _NUM_KEPT + 1])
def test_positions_that_are_kept_and_those_that_are_computed_anew_are_the_same(num_positions: int) -> None:
    got = Positions(10)(torch.zeros(1, num_positions, 10))
    assert_agree("table", got[0], position_table(num_positions, 10), atol=1e-7)


def test_the_table_is_no_part_of_a_checkpoint() -> None:
    assert not Positions(10).state_dict()
