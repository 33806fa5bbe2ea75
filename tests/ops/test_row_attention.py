"""Attention from one row to unprojected memory: the kernels against the equation in float64, with all gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.kernels import row_attention as kernel
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.row_attention import kernel as kernel_of_op
from tests.support.compare import assert_agree

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
HALF = (torch.bfloat16, torch.float16)
# by dtype of what is compared, relative to its norm; measured: 4e-6 (of 2,048 values), 3e-4, 5e-3
LIMIT = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
SCALE = 0.3
NAMES = ("out", "query", "memory", "key_bias")
_ops: Any = torch.ops.pps_fast


def _inputs(heads: int, num_keys: int, width: int, dtype: torch.dtype = torch.float32, num: int = 4) -> dict[str, Any]:
    """Inputs of sequences of which two in a row have the same keys valid, and the result's gradient."""
    rng = torch.Generator().manual_seed(heads + num_keys + width)
    query, grad = (torch.randn(heads, num, width, generator=rng).to(dtype) for _ in range(2))
    valid = torch.arange(num_keys) < torch.randint(1, num_keys + 1, (num // 2, 1), generator=rng)
    return {
        "query": query,
        "memory": torch.randn(num, num_keys, width, generator=rng).to(dtype),
        "key_bias": torch.randn(num, num_keys, generator=rng),
        "key_valid": valid,
        "grad": grad,
    }


def _run(inputs: dict[str, Any], memory_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Result and gradients of the operators."""
    tensors = [inputs[name] for name in ("query", "memory", "key_bias", "key_valid")]
    out, lse = _ops.row_attention_fwd(*tensors, SCALE)
    arguments = (*tensors, SCALE, memory_dtype or inputs["memory"].dtype)
    grads = _ops.row_attention_bwd([inputs["grad"], lse], *arguments)
    return dict(zip(NAMES, (out, *grads), strict=True))


def _expected(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The same in float64 by the equation, for which each head is a sequence of its own."""
    heads, num, width = inputs["query"].shape
    query, memory = (inputs[name].double().requires_grad_() for name in ("query", "memory"))
    bias, valid = inputs["key_bias"], inputs["key_valid"]
    bias = None if bias is None else bias.double().repeat_interleave(heads, 0).requires_grad_()
    if valid is not None:
        valid = valid.repeat_interleave(num // len(valid) * heads, 0)
    # the equation divides by the root of the width
    rows = (query * (SCALE * width**0.5)).transpose(0, 1).reshape(num * heads, 1, 1, width)
    keys = memory.repeat_interleave(heads, 0).unsqueeze(1)
    out = equations.masked_attention(rows, keys, keys, bias, valid).view(num, heads, width).transpose(0, 1)
    grads = torch.autograd.grad(out, [query, memory, *([] if bias is None else [bias])], inputs["grad"].double())
    named = dict(zip(NAMES, (out.detach(), *grads), strict=False))
    if bias is not None:
        named["key_bias"] = named["key_bias"].view(num, heads, -1)
    return named


def _assert_near(inputs: dict[str, Any], limit: float | None = None) -> None:
    got, expected = _run(inputs), _expected(inputs)
    for name, wanted in expected.items():
        assert got[name].shape == wanted.shape and torch.isfinite(got[name]).all(), name
        # a lone key has no gradient but the memory's, as a value
        scale = max(torch.linalg.vector_norm(wanted).item(), 1e-2 * torch.linalg.vector_norm(expected["out"]).item())
        error = torch.linalg.vector_norm(got[name].double() - wanted).item() / scale
        assert error <= (limit or LIMIT[got[name].dtype]), f"{name}: error {error:.1e}"


# several blocks of keys in each kernel, a width that is no power of 2, and one row of memory in a block
@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    ("heads", "num_keys", "width"), [(2, 1, 8), (3, 7, 20), (4, 50, 64), (1, 130, 40), (2, 5, 2048), (5, 3, 1)]
)
def test_the_kernels_agree_with_the_equation(
    heads: int, num_keys: int, width: int, dtype: torch.dtype, poisoned_empty: None
) -> None:
    inputs = _inputs(heads, num_keys, width, dtype)
    _assert_near(inputs)
    got = _run(inputs)
    assert [got[name].dtype for name in NAMES] == [dtype, dtype, dtype, torch.float32]


@needs_interpreter
@pytest.mark.parametrize("missing", [("key_bias",), ("key_valid",), ("key_bias", "key_valid")])
def test_masks_and_padding_may_be_absent(missing: tuple[str, ...], poisoned_empty: None) -> None:
    _assert_near(_inputs(2, 6, 8) | dict.fromkeys(missing))


@needs_interpreter
def test_the_gradient_of_the_memory_is_rounded_as_asked(poisoned_empty: None) -> None:
    inputs = _inputs(3, 9, 16, torch.bfloat16)
    exact, rounded = (_run(inputs, dtype)["memory"] for dtype in (torch.float32, torch.bfloat16))
    assert exact.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    # the interpreter cuts off what it does not round
    assert_agree("memory", rounded.float(), exact, rtol=2**-7)
    assert torch.linalg.vector_norm(exact - exact.bfloat16()) > 0


@needs_interpreter
@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("is_level", [True, False])
@pytest.mark.parametrize("num_keys", [5, 70])
def test_large_biases_give_the_numbers_of_float64(
    num_keys: int, is_level: bool, scale: float, poisoned_empty: None
) -> None:
    inputs = _inputs(2, num_keys, 64)
    bias = torch.rand(4, num_keys, generator=torch.Generator().manual_seed(3))
    # half precision is exact in fp32
    inputs["key_bias"] = (scale + bias if is_level else scale * (2 * bias - 1)).bfloat16().float()
    for sign in (1, -1):
        inputs["key_bias"] *= sign
        _assert_near(inputs, 5e-6 + 4 * torch.finfo(torch.float32).eps * scale)


@needs_interpreter
@pytest.mark.parametrize("num_keys", [3, 100])
def test_a_row_without_a_visible_key_averages_all(num_keys: int, poisoned_empty: None) -> None:
    inputs = _inputs(2, num_keys, 64)
    inputs["key_valid"][1] = False
    _assert_near(inputs)
    got = _run(inputs)
    mean = inputs["memory"][2:].mean(1).expand(2, -1, -1)
    assert_agree("average", got["out"][:, 2:], mean, atol=1e-6)
    assert not got["query"][:, 2:].any() and not got["key_bias"][2:].any()
    shares = (inputs["grad"][:, 2:].sum(0) / num_keys).unsqueeze(1).expand(-1, num_keys, -1)
    assert_agree("memory", got["memory"][2:], shares, atol=1e-6)


@needs_interpreter
def test_hidden_keys_never_enter() -> None:
    inputs = _inputs(2, 40, 100)
    hidden = ~inputs["key_valid"].repeat_interleave(2, 0)
    assert hidden.any()
    changed = inputs | {"memory": inputs["memory"].masked_fill(hidden.unsqueeze(2), 1e6)}
    changed["key_bias"] = inputs["key_bias"].masked_fill(hidden, 1e6)
    for one, other in zip(_run(inputs).values(), _run(changed).values(), strict=True):
        assert torch.equal(one, other)
    grad = _run(inputs)
    assert not grad["memory"][hidden].any() and not grad["key_bias"].transpose(1, 2)[hidden].any()


@needs_interpreter
def test_sequences_in_a_row_may_have_the_same_keys_valid() -> None:
    inputs = _inputs(2, 9, 8)
    of_each = inputs | {"key_valid": inputs["key_valid"].repeat_interleave(2, 0)}
    for one, other in zip(_run(inputs).values(), _run(of_each).values(), strict=True):
        assert torch.equal(one, other)


@needs_interpreter
def test_two_runs_agree_bitwise_and_strides_do_not_matter() -> None:
    inputs = _inputs(3, 33, 64, torch.bfloat16)
    strided = {name: torch.stack((x, torch.zeros_like(x)), -1)[..., 0] for name, x in inputs.items()}
    assert not strided["query"].is_contiguous()
    for one, *others in zip(_run(inputs).values(), _run(inputs).values(), _run(strided).values(), strict=True):
        assert all(torch.equal(one, other) for other in others)


@needs_interpreter
def test_the_registered_operators_pass_opcheck() -> None:
    inputs = _inputs(2, 5, 8)
    tensors = [inputs[name] for name in ("query", "memory", "key_bias", "key_valid")]
    _, lse = _ops.row_attention_fwd(*tensors, SCALE)
    torch.library.opcheck(_ops.row_attention_fwd.default, (*tensors, SCALE))
    arguments = ([inputs["grad"], lse], *tensors, SCALE, torch.bfloat16)
    torch.library.opcheck(_ops.row_attention_bwd.default, arguments)


@pytest.mark.parametrize("width", [1, 64, 100, 256, 2048])
def test_blocks_hold_all_of_a_row_and_few_rows(width: int) -> None:
    assert kernel_of_op is kernel
    tile = kernel.blocks(width)
    assert tile["BLOCK_D"] >= width and tile["BLOCK_T"] * tile["BLOCK_D"] <= 2048


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("heads", "num_keys", "width"), [(4, 50, 256), (4, 201, 256), (8, 15, 512), (16, 7, 2048)])
def test_the_compiled_kernels_agree_with_the_equation_on_a_gpu(
    heads: int, num_keys: int, width: int, dtype: torch.dtype
) -> None:
    inputs = {name: x.cuda() for name, x in _inputs(heads, num_keys, width, dtype, num=64).items()}
    _assert_near(inputs)
