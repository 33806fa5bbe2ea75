"""Backward passes of the attentions that write where a caller wants them: into packed gradients, sums and biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.ops.registration import is_interpreted
from tests.support.compare import assert_agree

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
HEADS, HEAD_DIM = 2, 4
WIDTH = HEADS * HEAD_DIM
_ops: Any = torch.ops.pps_fast


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _parts(packed: Tensor) -> list[Tensor]:
    """[G, n, 3 * D] -> query, key and value [G, H, n, h], as views."""
    return [part.transpose(1, 2) for part in packed.unflatten(-1, (3, HEADS, -1)).unbind(2)]


def _valid(num: int, length: int) -> Tensor:
    return torch.arange(length) < torch.arange(length, length - num, -1).clamp(min=1).unsqueeze(1)


# one tile, and several blocks of queries and of keys
@pytest.mark.parametrize("length", [5, 37])
@pytest.mark.parametrize("causal", [False, True])
def test_masked_attention_sums_rows_for_the_projection_and_adds_to_the_bias(
    length: int, causal: bool, poisoned_empty: None
) -> None:
    packed, key_bias = _draw(4, length, 3 * WIDTH, seed=0), _draw(4, length, seed=1)
    projected, key_valid = _parts(packed), _valid(2, length)
    # of two sequences in a row the same keys are valid
    of_each = key_valid.repeat_interleave(2, 0)
    out, lse = _ops.masked_attention_fwd(*projected, key_bias, key_valid, causal, False)
    for one, other in zip(
        (out, lse), _ops.masked_attention_fwd(*projected, key_bias, of_each, causal, False), strict=True
    ):
        assert torch.equal(one, other)
    results = [_draw(4, length, HEADS, HEAD_DIM, seed=2).transpose(1, 2), out, lse]
    expected = _ops.masked_attention_bwd(results, *projected, key_bias, of_each, causal, False)
    grad, before = torch.full_like(packed, torch.nan), _draw(4, HEADS, length, seed=3)
    grad_bias, projection_bias = before.clone(), torch.ones(3 * WIDTH)
    others = (key_bias, key_valid, [causal, False, True], projection_bias)
    _ops.masked_attention_bwd_into([*_parts(grad), grad_bias], results, projected, *others)
    for one, other in zip(_parts(grad), expected[:3], strict=True):
        assert torch.equal(one, other)
    assert_agree("bias", (grad_bias - before).sum(1), expected[3], atol=2e-6)
    assert_agree("projection's bias", projection_bias, 1 + grad.sum((0, 1)), atol=2e-5)
    assert (projection_bias[WIDTH : 2 * WIDTH] == 1).all()


def test_masked_attention_writes_a_bias_that_is_not_added_to() -> None:
    packed, key_bias = _draw(2, 5, 3 * WIDTH, seed=0), _draw(2, 5, seed=1)
    projected = _parts(packed)
    results = [torch.ones(2, 5, HEADS, HEAD_DIM).transpose(1, 2)]
    results += _ops.masked_attention_fwd(*projected, key_bias, None, True, False)
    grad_bias = torch.full((2, HEADS, 5), torch.nan)
    into = [*_parts(torch.empty_like(packed)), grad_bias]
    _ops.masked_attention_bwd_into(into, results, projected, key_bias, None, [True, False, False], None)
    expected = _ops.masked_attention_bwd(results, *projected, key_bias, None, True, False)[3]
    assert torch.equal(grad_bias.sum(1), expected)


# one part of each gradient; several blocks of queries; several chunks of masks
@pytest.mark.parametrize(("num_masks", "length"), [(3, 5), (2, 37), (17, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_attention_sums_parts_and_rows(
    num_masks: int, length: int, dtype: torch.dtype, poisoned_empty: None
) -> None:
    packed, key_bias = _draw(2, length, 3 * WIDTH, seed=0).to(dtype), _draw(2, num_masks, length, seed=1)
    projected, key_valid = _parts(packed), _valid(2, length)
    _, lse = _ops.shared_attention_fwd(*projected, key_bias, key_valid, True, False)
    grad_out = _draw(2, num_masks, length, HEADS, HEAD_DIM, seed=2).to(dtype).transpose(2, 3)
    arguments = (key_bias, key_valid, True, False)
    *expected, expected_bias = _ops.shared_attention_bwd([grad_out, lse], *projected, *arguments)
    grad, projection_bias = torch.full_like(packed, torch.nan), torch.ones(3 * WIDTH)
    bias = _ops.shared_attention_bwd_into(_parts(grad), [grad_out, lse], projected, *arguments, projection_bias)
    for one, other in zip((*_parts(grad), bias), (*expected, expected_bias), strict=True):
        assert torch.equal(one, other)
    # rows are summed before they are rounded
    limit = torch.finfo(dtype).eps * grad.float().abs().sum((0, 1)).max().item()
    assert_agree("projection's bias", projection_bias, 1 + grad.float().sum((0, 1)), atol=limit)


def test_the_registered_operators_pass_opcheck() -> None:
    packed = _draw(2, 5, 3 * WIDTH, seed=0)
    projected, utils = _parts(packed), ("test_schema", "test_autograd_registration", "test_faketensor")
    grad_out, sums = torch.ones(2, 5, HEADS, HEAD_DIM).transpose(1, 2), torch.zeros(3 * WIDTH)
    grads = [torch.empty_like(part.contiguous()) for part in projected]
    out, lse = _ops.masked_attention_fwd(*projected, None, None, True, False)
    into = [grad.transpose(1, 2).contiguous().transpose(1, 2) for grad in grads]
    arguments = ([*into, torch.empty(0)], [grad_out, out, lse], projected, None, None, [True, False, False], sums)
    operator = _ops.masked_attention_bwd_into
    assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}
    key_bias = _draw(2, 3, 5, seed=1)
    _, lse = _ops.shared_attention_fwd(*projected, key_bias, None, True, False)
    grad_out = torch.ones(2, 3, 5, HEADS, HEAD_DIM).transpose(2, 3)
    arguments = (into, [grad_out, lse], projected, key_bias, None, True, False, sums)
    operator = _ops.shared_attention_bwd_into
    assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}
