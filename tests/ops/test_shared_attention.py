"""Attention of one sequence under several masks: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.shared_attention import shared_attention
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, over_cases

# relative norm of what the kernel may miss where the equation in the same dtype is no measure
LIMIT = {torch.float32: 5e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
Inputs = dict[str, Tensor]


@over_cases("shared_attention")
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype) -> None:
    check_case(shared_attention, "shared_attention", case, dtype)


def test_strides_do_not_matter() -> None:
    check_non_contiguous(shared_attention, CASES["shared_attention"][1])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(shared_attention, CASES["shared_attention"][0])


@over_cases("shared_attention")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(shared_attention, "shared_attention", case, dtype, backend="triton")


def _inputs(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, *, padded: bool = True, device: str = "cpu"
) -> Inputs:
    """Inputs (B, N, H, T, h) as the model passes them: views of one packed projection, leaves for their gradients."""
    num, masks, heads, length, width = shape
    rng = torch.Generator().manual_seed(sum(shape))
    packed = torch.randn(num, length, 3 * heads * width, generator=rng).to(dtype).to(device)
    views = [part.unflatten(-1, (heads, width)).transpose(1, 2) for part in packed.chunk(3, -1)]
    inputs = {name: x.detach().requires_grad_() for name, x in zip(("query", "key", "value"), views, strict=True)}
    bias = (0.05 + 0.95 * torch.rand(num, masks, length, generator=rng)).log()
    inputs["key_bias"] = bias.to(dtype).to(device).requires_grad_()
    if padded:
        number = torch.randint(1, length + 1, (num, 1), generator=rng)
        inputs["key_valid"] = (torch.arange(length) < number).to(device)
    return inputs


def _run(inputs: Inputs, backend: str, causal: bool = True) -> list[Tensor]:
    """Result, and gradients for a grad_output other than 1 that arrives as the model's output projection sends it."""
    out = shared_attention(**inputs, causal=causal, backend=backend)
    grad = torch.linspace(-1.3, 1.7, out.numel(), device=out.device).reshape(out.transpose(2, 3).shape).transpose(2, 3)
    leaves = [x for x in inputs.values() if x.is_floating_point()]
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def _in_double(inputs: Inputs) -> Inputs:
    return {name: x.detach().double().requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}


def _check(inputs: Inputs, causal: bool = True) -> None:
    dtypes = [inputs["value"].dtype, *(x.dtype for x in inputs.values() if x.is_floating_point())]
    pairs = zip(_run(inputs, "triton", causal), _run(_in_double(inputs), "torch", causal), dtypes, strict=True)
    for got, oracle, dtype in pairs:
        assert got.dtype == dtype
        error, scale = torch.linalg.vector_norm(got.double() - oracle).item(), torch.linalg.vector_norm(oracle).item()
        # a lone key has no gradient but its value's
        assert error <= LIMIT[inputs["value"].dtype] * (scale or 1.0), f"{error / (scale or 1.0):.1e}"


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 1, 2, 1, 5), torch.float32),
        ((1, 2, 1, 2, 16), torch.bfloat16),
        ((2, 5, 2, 7, 64), torch.float32),
        ((1, 27, 1, 7, 4), torch.float32),
        ((2, 27, 2, 7, 8), torch.bfloat16),
        ((1, 2, 1, 49, 1), torch.float16),
        ((1, 2, 2, 50, 64), torch.float32),
        ((1, 2, 2, 50, 64), torch.bfloat16),
        ((1, 5, 1, 63, 5), torch.float32),
        ((1, 17, 1, 40, 5), torch.float16),
        ((1, 1, 1, 64, 128), torch.float32),
        ((1, 2, 1, 64, 65), torch.bfloat16),
    ],
)
@pytest.mark.parametrize("padded", [True, False])
def test_the_kernel_takes_odd_shapes_and_views_of_a_packed_projection(
    shape: tuple[int, int, int, int, int], padded: bool, dtype: torch.dtype, poisoned_empty: None
) -> None:
    inputs = _inputs(shape, dtype, padded=padded)
    assert shape[3] == 1 or not inputs["value"].is_contiguous()
    _check(inputs)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    num_masks=st.integers(1, 9),
    heads=st.integers(1, 3),
    lengths=st.tuples(st.integers(1, 40), st.integers(1, 20)),
    width=st.integers(1, 17),
    causal=st.booleans(),
)
def test_the_kernel_takes_any_shape(
    num_masks: int, heads: int, lengths: tuple[int, int], width: int, causal: bool
) -> None:
    queries, keys = (lengths[0], lengths[0]) if causal else lengths
    inputs = _inputs((1, num_masks, heads, keys, width), torch.float32)
    rng = torch.Generator().manual_seed(queries)
    inputs["query"] = torch.randn(1, heads, queries, width, generator=rng).requires_grad_()
    _check(inputs, causal)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("length", "causal"), [(6, False), (6, True), (40, True)])
def test_the_kernel_averages_all_keys_where_none_is_visible(
    length: int, causal: bool, dtype: torch.dtype, poisoned_empty: None
) -> None:
    inputs = _inputs((3, 2, 1, length, 4), dtype)
    # all padding, padding first (causal rows before the first key see nothing), padding last
    inputs["key_valid"] = torch.ones(3, length, dtype=torch.bool)
    inputs["key_valid"][0] = False
    inputs["key_valid"][1, : length // 2 + 1] = False
    inputs["key_valid"][2, length // 2 :] = False
    _check(inputs, causal)
    got = shared_attention(**inputs, causal=causal, backend="triton")[0, :, 0]
    mean = inputs["value"][0, 0].float().mean(0).expand_as(got)
    assert_agree("mean", got.float(), mean, atol=1e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_takes_masks_that_vanish(dtype: torch.dtype, poisoned_empty: None) -> None:
    inputs = _inputs((1, 3, 2, 20, 4), dtype)
    bias = torch.full((1, 3, 20), -23.0)
    bias[0, 1, 11] = 0.0
    bias[0, 2, 5:9] = -0.5
    inputs["key_bias"] = bias.to(dtype).requires_grad_()
    _check(inputs)


def test_the_bias_may_have_a_dtype_of_its_own(poisoned_empty: None) -> None:
    inputs = _inputs((2, 3, 2, 9, 4), torch.bfloat16)
    inputs["key_bias"] = inputs["key_bias"].detach().float().requires_grad_()
    _check(inputs)


@pytest.mark.parametrize("shape", [(2, 20, 2, 7, 8), (1, 3, 1, 40, 8)])
def test_two_runs_of_the_kernel_agree_bitwise(shape: tuple[int, int, int, int, int]) -> None:
    inputs = _inputs(shape, torch.float32)
    for first, second in zip(_run(inputs, "triton"), _run(inputs, "triton"), strict=True):
        assert_agree("run", first, second)


@pytest.mark.parametrize("length", [7, 50])
def test_the_kernel_is_equal_to_that_of_masked_attention_for_each_mask(length: int) -> None:
    inputs = _inputs((2, 3, 2, length, 8), torch.float32)
    operands = {name: x.repeat_interleave(3, 0) for name, x in inputs.items() if name != "key_bias"}
    out = masked_attention(**operands, key_bias=inputs["key_bias"].flatten(0, 1), causal=True, backend="triton")
    out = out.unflatten(0, (2, 3))
    grad = torch.linspace(-1.3, 1.7, out.numel()).reshape(out.transpose(2, 3).shape).transpose(2, 3)
    leaves = [x for x in inputs.values() if x.is_floating_point()]
    expected = [out, *torch.autograd.grad(out, leaves, grad)]
    for got, value in zip(_run(inputs, "triton"), expected, strict=True):
        assert_agree("shared", got, value, rtol=2e-6)


def test_the_kernel_lays_its_result_out_for_the_output_projection() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        out = shared_attention(**_inputs((2, 3, 2, 5, 4), dtype), causal=True, backend="triton")
        assert out.shape == (2, 3, 2, 5, 4) and out.transpose(2, 3).is_contiguous()


def test_the_kernel_reads_any_strides() -> None:
    inputs = _inputs((2, 2, 3, 5, 4), torch.float32)
    strided = {
        name: x.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_(x.is_floating_point())
        for name, x in inputs.items()
    }
    assert all(x.stride(-1) == 2 for x in strided.values())
    for got, expected in zip(_run(strided, "triton"), _run(inputs, "triton"), strict=True):
        assert_agree("strides", got, expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            dict.fromkeys(("query", "key", "value"), torch.rand(1, 2, 5, 4).double()),
            "query is torch.float64; the kernel computes in float32",
        ),
        ({"key_bias": torch.rand(1, 3, 5).double()}, "key_bias is torch.float64; the kernel computes in float32"),
        ({"value": torch.rand(1, 2, 5, 4).half()}, "value is torch.float16, query torch.float32; the kernel needs one"),
        ({"key_bias": torch.rand(1, 0, 5)}, "the kernel takes no empty tensor"),
        ({"query": torch.rand(1, 2, 65, 4)}, "there are 65 queries; the kernel takes 1 to 64"),
        (dict.fromkeys(("query", "key", "value"), torch.rand(1, 2, 5, 129)), "the head dimension is 129"),
    ],
)
def test_the_kernel_refuses_in_words(changes: Inputs, reason: str) -> None:
    inputs = dict.fromkeys(("query", "key", "value"), torch.rand(1, 2, 5, 4)) | {"key_bias": torch.rand(1, 3, 5)}
    assert not shared_attention.reasons(**inputs)
    with pytest.raises(BackendError, match=reason):
        shared_attention(**inputs | changes, backend="triton")


def test_more_keys_than_a_tile_holds_are_served_by_the_equation() -> None:
    inputs = _inputs((1, 2, 1, 65, 4), torch.float32)
    (reason, _) = shared_attention.reasons(**inputs)
    assert reason == "there are 65 queries; the kernel takes 1 to 64"
    for got, expected in zip(_run(inputs, "auto"), _run(inputs, "torch"), strict=True):
        assert_agree("auto", got, expected)


def _operators(shape: tuple[int, int, int, int, int]) -> list[tuple[object, tuple[object, ...]]]:
    inputs = {name: x.detach() for name, x in _inputs(shape, torch.float32).items()}
    arguments = (*(inputs[name] for name in ("query", "key", "value", "key_bias", "key_valid")), True, False)
    forward, backward = torch.ops.pps_fast.shared_attention_fwd, torch.ops.pps_fast.shared_attention_bwd
    out, lse = forward(*arguments)
    return [(forward, arguments), (backward, ([torch.rand_like(out), lse], *arguments))]


@pytest.mark.parametrize("shape", [(2, 2, 2, 3, 4), (1, 17, 1, 33, 4)])
def test_the_registered_operators_pass_opcheck(shape: tuple[int, int, int, int, int]) -> None:
    for operator, arguments in _operators(shape):
        # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_function_takes_the_kernel_without_a_break() -> None:
    inputs = _inputs((1, 2, 1, 5, 4), torch.float32)

    def attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, key_valid: Tensor) -> Tensor:
        out = shared_attention(query, key, value, key_bias, key_valid, causal=True, backend="triton")
        return out.transpose(2, 3).flatten(3)

    results = []
    for function in (attend, torch.compile(attend, fullgraph=True, backend="eager")):
        out = function(**inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(inputs.values())[:4])])
    for got, expected in zip(*results, strict=True):
        assert_agree("compiled", got, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("shape", [(32, 27, 4, 50, 64), (32, 7, 4, 50, 64), (2, 3, 2, 64, 128), (3, 5, 2, 7, 8)])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype
) -> None:
    _check(_inputs(shape, dtype, device="cuda"))


@pytest.mark.gpu
def test_two_runs_of_the_compiled_kernel_agree_bitwise() -> None:
    inputs = _inputs((8, 27, 4, 50, 64), torch.bfloat16, device="cuda")
    for first, second in zip(_run(inputs, "triton"), _run(inputs, "triton"), strict=True):
        assert_agree("run", first, second)
