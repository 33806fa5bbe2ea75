"""The least bytes and operations of every op against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.cases import cases_of
from benchmarks.counts import count
from pps_fast.ops import ALL_OPS

GROUP = torch.tensor([0, 1, 1])


def _f(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


MASK = {"center": _f(2, 3), "width": _f(2, 3), "sigma": 4.0, "num_positions": 4}
PULL = {"center": _f(2, 3), "group": GROUP, "num_groups": 2}
QKV = {name: _f(2, 3, 4, 5) for name in ("query", "key", "value")}
KEYS = {"key_bias": _f(2, 4), "key_valid": _f(2, 4, dtype=torch.bool), "causal": True}
ONE_HEAD = {name: _f(2, 1, 4, 5) for name in QKV}
HALF = {name: x.bfloat16() for name, x in QKV.items()}
IS_TARGET = torch.tensor([[True, False], [True, True]])
# 24 values of 96 bytes; 24 bytes of group; 4 floats of 16 bytes in a parameter
ROWS = {
    "x": _f(2, 3, 4),
    "branch": _f(2, 3, 4),
    "weight": _f(4),
    "bias": _f(4),
    "dropout_key": _f(2, dtype=torch.int32),
}
BY_HAND: list[tuple[str, dict[str, Any], tuple[int, int], tuple[int, int]]] = [
    # 24 positions: masks and logs are 2 x 96 bytes, center and width 2 x 24
    ("gaussian_mask", MASK, (240, 24 * 6), (288, 24 * 15)),
    ("gaussian_peak_mask", MASK, (240, 24 * 9), (288, 24 * 18)),
    ("laplace_mask", MASK, (240, 24 * 8), (288, 24 * 17)),
    # no logs: one array of 24 positions
    ("gaussian_exponent", MASK, (48 + 96, 24 * 3), (48 + 48 + 96, 24 * 8)),
    # score, group, weights; weights, their gradient, group, the score's
    ("importance", {"score": _f(2, 3), "group": GROUP, "num_groups": 2}, (24 + 24 + 24, 30), (24 + 24 + 24 + 24, 24)),
    # masks 96, importance 24, group 24, results 2 x 64; back without the masks' logs, and gradients of 96 + 96 + 24
    (
        "mixture",
        {"masks": _f(2, 3, 4), "log_masks": _f(2, 3, 4), "importance": _f(2, 3), "group": GROUP, "num_groups": 2},
        (96 + 24 + 24 + 128, 2 * 24 + 2 * 16),
        (96 + 24 + 24 + 128 + 216, 8 * 24),
    ),
    # exponents 96, importance 24, group 24, result 64; back its gradient of 64 too, and gradients of 96 + 24
    (
        "mixture_exponent",
        {"exponents": _f(2, 3, 4), "importance": _f(2, 3), "group": GROUP, "num_groups": 2},
        (96 + 24 + 24 + 64, 6 + 5 * 24 + 2 * 16),
        (96 + 24 + 24 + 2 * 64 + 120, 6 + 5 * 24),
    ),
    # back: the mixture and two gradients of 64, four peaks
    (
        "peak_mixture",
        {"masks": _f(2, 3, 4), "group": GROUP, "num_groups": 2},
        (96 + 24 + 128, 24 + 4 * 16),
        (3 * 64 + 16 + 24 + 96, 6 * 16),
    ),
    (
        "boundaries",
        {"center": _f(2, 3), "width": _f(2, 3), "importance": _f(2, 3), "group": GROUP, "num_groups": 2},
        (72 + 24 + 32, 6 * 7 + 4 * 7),
        (72 + 24 + 32 + 72, 6 * 11 + 4 * 4),
    ),
    # one pair shares a group
    ("pull_distant", PULL, (24 + 24 + 4, 12 + 12), (24 + 24 + 4 + 24, 8)),
    ("pull_middle", PULL, (52, 2 * (1 + 12)), (76, 16)),
    ("pull_all", PULL, (52, 6), (76, 6)),
    # 4 unordered pairs with equal ones, 5 ordered
    (
        "push",
        {"masks": _f(2, 3, 4), "group": GROUP, "target": 0.1},
        (96 + 24 + 4, 48 + 2 * 4 * 11),
        (96 + 24 + 4 + 96, 2 * 4 * 11 + 2 * 5 * 8 + 48 + 96),
    ),
    # q, k, v, out 480 each, bias 32, valid 8; 10 visible pairs of 4 x 4, 6 heads of sequences, 5 wide: 600 a product
    ("masked_attention", {**QKV, **KEYS}, (3 * 480 + 40 + 480, 2 * 600), (3 * 480 + 40 + 480 + 3 * 480 + 32, 5 * 600)),
    (
        "masked_attention",
        {**HALF, "key_bias": None, "key_valid": None, "causal": False},
        (4 * 240, 2 * 960),
        (7 * 240, 5 * 960),
    ),
    # three masks: out is 3 x 160; a product is 200
    (
        "shared_attention",
        {**ONE_HEAD, **KEYS, "key_bias": _f(2, 3, 4)},
        (3 * 160 + 96 + 8 + 480, 4 * 200),
        (3 * 160 + 96 + 8 + 480 + 3 * 160 + 96, 9 * 200),
    ),
    # 3 words of 3 masks and 5 classes are read: 45 logits; 12 words get gradients
    (
        "reconstruction_nll",
        {"logits": _f(2, 3, 2, 5), "targets": _f(2, 2, dtype=torch.int64), "is_target": IS_TARGET, "smoothing": 0.1},
        (180 + 32 + 4 + 24, 5 * 45),
        (180 + 32 + 4 + 24 + 240, 4 * 45),
    ),
    # inputs 24 + 8 + 48, and 6 + 12 hinges
    (
        "contrastive_loss",
        {"best_nll": _f(2, 3), "whole_video_nll": _f(2), "negative_nll": _f(2, 3, 2)},
        (80 + 4, 4 * 18),
        (160 + 4, 5 * 18),
    ),
    # back: normalized rows and a gradient in, 6 values of 1 / std, two gradients out
    (
        "residual_norm",
        {**ROWS, "site": 3, "rate": 0.1},
        (2 * 96 + 32 + 8 + 96, 9 * 24),
        (2 * 96 + 16 + 8 + 24 + 2 * 96 + 32, 12 * 24),
    ),
    # masks 96, curve 32, valid 8, rewards 24; back: both inputs, rewards and their gradients, gradients of 96 + 32
    (
        "mask_reward",
        {"masks": _f(2, 3, 4), "curve": _f(2, 4), "frame_valid": _f(2, 4, dtype=torch.bool)},
        (96 + 32 + 8 + 24, 5 * 8 + 4 * 24),
        (96 + 32 + 8 + 2 * 24 + 96 + 32, 12 * 8 + 7 * 24),
    ),
]


@pytest.mark.parametrize(("op", "inputs", "forward", "backward"), BY_HAND, ids=[row[0] for row in BY_HAND])
def test_counts_are_those_worked_out_by_hand(
    op: str, inputs: dict[str, Any], forward: tuple[int, int], backward: tuple[int, int]
) -> None:
    counted = count(op, inputs)
    assert (counted["forward"].bytes, counted["forward"].flops) == forward
    assert (counted["backward"].bytes, counted["backward"].flops) == backward
    assert counted["both"] == counted["forward"] + counted["backward"]


def test_every_op_is_counted_by_hand_and_has_cases() -> None:
    names = {op.name for op in ALL_OPS} | {"residual_norm", "shared_attention"}
    assert names == {row[0] for row in BY_HAND} == set(cases_of(("tiny",), ("fp32",)))


def test_an_op_nobody_counted_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="op = 'softmax': expected one of gaussian_mask, .+ write its formula here"):
        count("softmax", {})
