"""Attentions of one row compute what those of all rows compute; tests/ops/test_sublayers.py has them in stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.rows import take_row
from pps_fast.ops.attention_sublayers import cross_attention
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.row_sublayer import cross_attention_of_row, self_attention_of_row
from pps_fast.ops.sublayers import Dropout, Parameters

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
HEADS, WIDTH, NUM, LENGTH = 3, 12, 4, 5
ROW = torch.tensor([4, 0, 2, 3])
VALID = torch.arange(LENGTH) <= ROW.unsqueeze(1)
Leaves = dict[str, Tensor]


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _leaves(dtype: torch.dtype = torch.float32) -> Leaves:
    """Parameters in fp32, and what attends and is attended to."""
    shapes = {"in_weight": (3 * WIDTH, WIDTH), "in_bias": (3 * WIDTH,), "out_weight": (WIDTH, WIDTH)}
    shapes |= dict.fromkeys(("out_bias", "norm_weight", "norm_bias"), (WIDTH,))
    leaves = {name: _draw(*shape, seed=seed) / 2 for seed, (name, shape) in enumerate(shapes.items())}
    leaves |= {"x": _draw(NUM, 1, WIDTH, seed=8).to(dtype), "memory": _draw(NUM, LENGTH, WIDTH, seed=9).to(dtype)}
    leaves["mask"] = _draw(NUM, LENGTH, seed=10)
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def _run(sublayer: Callable[..., Tensor], leaves: Leaves) -> Leaves:
    """The result and every gradient, by name."""
    mask = leaves["mask"].unsqueeze(1).expand(-1, HEADS, -1)
    parameters = Parameters(*(leaves[name] for name in Parameters._fields))
    dropout = Dropout(torch.arange(NUM, dtype=torch.int32), 3, 0.1, ROW)
    out = sublayer(leaves, (parameters, dropout, (mask, VALID), HEADS))
    (out.double() * _draw(*out.shape, seed=11)).sum().backward()
    return {"out": out.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def _cross(leaves: Leaves, others: Any) -> Tensor:
    return cross_attention_of_row(leaves["x"], leaves["memory"], *others)


def _cross_by_all_rows(leaves: Leaves, others: Any) -> Tensor:
    return cross_attention(leaves["x"], leaves["memory"], *others)[0]


def _self(leaves: Leaves, others: Any) -> Tensor:
    return self_attention_of_row(leaves["memory"], ROW, *others)


def _self_by_all_rows(leaves: Leaves, others: Any) -> Tensor:
    return cross_attention(take_row(leaves["memory"], ROW), leaves["memory"], *others)[0]


@pytest.mark.parametrize(
    ("sublayer", "by_all_rows"), [(_cross, _cross_by_all_rows), (_self, _self_by_all_rows)], ids=["cross", "self"]
)
# of what comes in, and of products
@pytest.mark.parametrize(
    ("dtype", "is_bf16", "limit"),
    [(torch.float32, False, 3e-6), (torch.float32, True, 2e-2), (torch.bfloat16, True, 2e-2)],
    ids=["fp32", "bf16 products", "bf16"],
)
def test_one_row_is_that_of_all_rows(
    sublayer: Any, by_all_rows: Any, dtype: torch.dtype, is_bf16: bool, limit: float, poisoned_empty: None
) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        got, expected = (_run(each, _leaves(dtype)) for each in (sublayer, by_all_rows))
    assert got.keys() == expected.keys() and len(got) == (10 if sublayer is _cross else 9)
    for name, value in got.items():
        assert value.dtype == expected[name].dtype and value.shape == expected[name].shape, name
        scale = torch.linalg.vector_norm(expected[name].double())
        assert torch.linalg.vector_norm(value.double() - expected[name].double()) <= limit * scale, name


@pytest.mark.parametrize("sublayer", [_cross, _self], ids=["cross", "self"])
def test_the_bias_of_the_keys_has_no_gradient_at_all(sublayer: Any) -> None:
    grads = _run(sublayer, _leaves())["in_bias"].view(3, WIDTH)
    assert not grads[1].any() and grads[0].any() and grads[2].any()


def test_weights_that_are_frozen_get_no_gradient() -> None:
    leaves = _leaves()
    for name in ("in_weight", "in_bias", "out_weight"):
        leaves[name].requires_grad_(False)
    got, expected = _run(_cross, leaves), _run(_cross, _leaves())
    assert expected.keys() - got.keys() == {"in_weight", "in_bias", "out_weight"}
    assert torch.equal(got["memory"], expected["memory"]) and torch.equal(got["x"], expected["x"])
