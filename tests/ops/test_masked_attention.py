"""Mask-conditioned attention: every backend against the loops, with all gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pps_fast.equations import log_mask
from pps_fast.ops.dispatch import BackendError, Op
from pps_fast.ops.masked_attention import masked_attention
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree, assert_close
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous

OPS = (masked_attention,)
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels_f64.npz"
# relative norm of what the kernel may miss where the equation in the same dtype is no measure
LIMIT = {torch.float32: 5e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "masked_attention", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["masked_attention"]


def _attention_inputs(num_keys: int = 5) -> dict[str, Tensor]:
    rng = np.random.default_rng(5)
    shapes = {"query": (2, 1, num_keys, 4), "key": (2, 1, num_keys, 4), "value": (2, 1, num_keys, 4)}
    return {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_of_ones_is_no_mask(causal: bool) -> None:
    inputs = _attention_inputs()
    ones = masked_attention(**inputs, key_bias=log_mask(torch.ones(2, 5)), causal=causal)
    assert_agree("attention", ones, masked_attention(**inputs, causal=causal), atol=1e-14)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_a_mask_that_is_zero_everywhere_is_no_mask(value: float) -> None:
    inputs = _attention_inputs()
    mask = torch.full((2, 5), value, dtype=torch.float64)
    got = masked_attention(**inputs, key_bias=log_mask(mask))
    assert_agree("attention", got, masked_attention(**inputs), atol=1e-13)


def test_keys_outside_the_mask_keep_the_share_of_the_floor() -> None:
    inputs = {name: torch.zeros(1, 1, 2, 1) for name in ("query", "key")}
    value = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1).double()
    got = masked_attention(**inputs, value=value, key_bias=log_mask(torch.tensor([[0.0, 1.0]]).double()))
    assert_agree("share", got, torch.full((1, 1, 2, 1), 1e-10, dtype=torch.float64), rtol=1e-6)


def test_rows_before_the_support_of_the_mask_fall_back_to_plain_attention() -> None:
    inputs = _attention_inputs()
    mask = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]]).double().expand(2, -1)
    got = masked_attention(**inputs, key_bias=log_mask(mask), causal=True)
    plain = masked_attention(**inputs, causal=True)
    assert_agree("before", got[:, :, :3], plain[:, :, :3], atol=1e-13)
    assert (got[:, :, 3:] - plain[:, :, 3:]).abs().max() > 0.1


def test_gradient_of_a_vanishing_mask_agrees_with_finite_differences_on_the_scale_of_the_floor() -> None:
    inputs = _attention_inputs(4)
    scaled = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return masked_attention(**inputs, key_bias=log_mask(x * 1e-10), causal=True)

    assert gradcheck(run, (scaled,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_rows_of_padding_only_average_all_keys_and_stay_finite(dtype: torch.dtype, causal: bool) -> None:
    inputs = {name: value.to(dtype).requires_grad_() for name, value in _attention_inputs().items()}
    bias = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)).log().requires_grad_()
    valid = torch.tensor([[False] * 5, [True] * 5])
    got = masked_attention(**inputs, key_bias=bias, key_valid=valid, causal=causal)
    assert got.dtype == dtype
    mean = inputs["value"][0].mean(1, keepdim=True).expand(-1, 5, -1)
    assert_agree("padding", got[0], mean, atol=1e-6 if dtype == torch.float32 else 2e-2)
    got.float().square().sum().backward()
    for leaf in (*inputs.values(), bias):
        assert torch.isfinite(leaf.grad).all()


def test_hidden_keys_never_enter() -> None:
    inputs = _attention_inputs()
    valid = torch.tensor([[True, True, True, False, False]]).expand(2, -1)
    expected = masked_attention(**inputs, key_valid=valid)
    for name in ("key", "value"):
        inputs[name] = inputs[name].clone()
        inputs[name][:, :, 3:] = 1e6
    assert_agree("attention", masked_attention(**inputs, key_valid=valid), expected)


def _random_inputs(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, *, masked: bool = True, padded: bool = True
) -> dict[str, Tensor]:
    """Inputs (G, H, Q, T, h) as the model passes them: views of packed projections, leaves for their gradients."""
    num, heads, queries, keys, width = shape
    rng = torch.Generator().manual_seed(sum(shape))

    def rows(length: int, parts: int) -> tuple[Tensor, ...]:
        packed = torch.randn(num, length, parts * heads * width, generator=rng).to(dtype)
        views = [part.unflatten(-1, (heads, width)).transpose(1, 2) for part in packed.chunk(parts, -1)]
        return tuple(view.detach().requires_grad_() for view in views)

    (query,) = rows(queries, 1)
    key, value = rows(keys, 2)
    inputs = {"query": query, "key": key, "value": value}
    if masked:
        inputs["key_bias"] = (0.05 + 0.95 * torch.rand(num, keys, generator=rng)).log().to(dtype).requires_grad_()
    if padded:
        length = torch.randint(1, keys + 1, (num, 1), generator=rng)
        inputs["key_valid"] = torch.arange(keys) < length
    return inputs


def _leaves(inputs: dict[str, Tensor]) -> list[Tensor]:
    return [value for value in inputs.values() if value.is_floating_point()]


def _run(inputs: dict[str, Tensor], backend: str, causal: bool) -> list[Tensor]:
    """Result, and gradients for a grad_output other than 1 that arrives as the model's output projection sends it."""
    out = masked_attention(**inputs, causal=causal, backend=backend)
    grad = (
        torch.linspace(-1.3, 1.7, out.numel(), device=out.device)
        .reshape(out.transpose(1, 2).shape)
        .transpose(1, 2)
        .to(out.dtype)
    )
    return [out.detach(), *torch.autograd.grad(out, _leaves(inputs), grad)]


def _in_double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().double().requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}


def _assert_near(got: Tensor, oracle: Tensor, limit: float) -> None:
    error, scale = torch.linalg.vector_norm(got.double() - oracle), torch.linalg.vector_norm(oracle)
    # a lone key has no gradient but its value's
    error = (error / scale if scale > 0 else error).item()
    assert error <= limit, f"{error:.1e} > {limit:.1e}"


def _check_kernel(inputs: dict[str, Tensor], causal: bool) -> None:
    for got, oracle in zip(_run(inputs, "triton", causal), _run(_in_double(inputs), "torch", causal), strict=True):
        assert got.dtype == inputs["value"].dtype
        _assert_near(got, oracle, LIMIT[got.dtype])


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("case", CASES["masked_attention"], ids=lambda case: case.name)
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(masked_attention, "masked_attention", case, dtype, backend="triton")


@pytest.mark.parametrize(
    ("shape", "causal", "dtype"),
    [
        ((2, 2, 1, 1, 5), True, torch.float32),
        ((2, 1, 2, 2, 16), True, torch.bfloat16),
        ((1, 3, 7, 7, 64), True, torch.float32),
        ((1, 1, 49, 49, 16), True, torch.float32),
        ((1, 2, 50, 50, 64), True, torch.bfloat16),
        ((1, 1, 63, 63, 5), True, torch.float16),
        ((1, 1, 65, 65, 8), True, torch.float32),
        ((1, 1, 65, 65, 8), True, torch.bfloat16),
        ((1, 1, 3, 40, 128), False, torch.float32),
        ((1, 1, 3, 65, 128), False, torch.bfloat16),
        ((1, 2, 70, 5, 1), False, torch.float32),
        ((1, 1, 200, 200, 4), True, torch.bfloat16),
    ],
)
def test_the_kernel_takes_odd_shapes_and_views_of_packed_projections(
    shape: tuple[int, int, int, int, int], causal: bool, dtype: torch.dtype, poisoned_empty: None
) -> None:
    inputs = _random_inputs(shape, dtype, padded=shape[3] > 1)
    assert shape[3] == 1 or not inputs["value"].is_contiguous()
    _check_kernel(inputs, causal)


@pytest.mark.parametrize(
    ("dtype", "num_keys", "causal"),
    [
        (torch.float32, 6, False),
        (torch.bfloat16, 6, True),
        (torch.float32, 34, True),
        (torch.float32, 34, False),
        (torch.bfloat16, 66, True),
    ],
)
def test_the_kernel_averages_all_keys_where_none_is_visible(
    dtype: torch.dtype, num_keys: int, causal: bool, poisoned_empty: None
) -> None:
    inputs = _random_inputs((3, 1, num_keys, num_keys, 4), dtype)
    # all padding, padding first (causal rows before the first key see nothing), padding last
    inputs["key_valid"] = torch.ones(3, num_keys, dtype=torch.bool)
    inputs["key_valid"][0] = False
    inputs["key_valid"][1, : num_keys // 2 + 1] = False
    inputs["key_valid"][2, num_keys // 2 :] = False
    _check_kernel(inputs, causal)
    got = masked_attention(**inputs, causal=causal, backend="triton")[0, 0]
    mean = inputs["value"][0, 0].float().mean(0).expand_as(got)
    assert_agree("mean", got.float(), mean, atol=1e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize(("dtype", "num_keys"), [(torch.float32, 20), (torch.bfloat16, 70), (torch.float16, 20)])
def test_the_log_of_a_vanishing_mask_has_a_bounded_gradient(
    dtype: torch.dtype, num_keys: int, poisoned_empty: None
) -> None:
    inputs = _random_inputs((1, 1, num_keys, num_keys, 4), dtype, masked=False, padded=False)
    distance = torch.arange(num_keys) - num_keys // 2
    inputs["key_bias"] = log_mask(torch.exp(-3.0 * distance.square()).unsqueeze(0)).requires_grad_()
    got, oracle = _run(inputs, "triton", True), _run(_in_double(inputs), "torch", True)
    for value, exact in zip(got, oracle, strict=True):
        _assert_near(value, exact, LIMIT[dtype])
    # sum_i p_ij (dp_ij - delta_i): at most the rows' number times twice the largest |dout . v|
    bound = 2 * num_keys * 1.7 * inputs["value"].detach().float().abs().sum(-1).max()
    assert got[-1].abs().max() < bound


@pytest.mark.parametrize("num_keys", [20, 40])
def test_two_runs_of_the_kernel_agree_bitwise(num_keys: int) -> None:
    inputs = _random_inputs((1, 2, num_keys, num_keys, 8), torch.float32)
    for first, second in zip(_run(inputs, "triton", True), _run(inputs, "triton", True), strict=True):
        assert_agree("run", first, second)


def test_the_kernel_reads_any_strides() -> None:
    inputs = _random_inputs((2, 3, 5, 6, 4), torch.float32)
    strided = {
        name: x.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_(x.is_floating_point())
        for name, x in inputs.items()
    }
    assert all(x.stride(-1) == 2 for x in strided.values())
    for got, expected in zip(_run(strided, "triton", False), _run(inputs, "triton", False), strict=True):
        assert_agree("strides", got, expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"query": torch.rand(1, 2, 3, 4).double(), "key": torch.rand(1, 2, 5, 4).double()},
            "query is torch.float64; the kernel computes in float32",
        ),
        ({"key_bias": torch.rand(1, 5).double()}, "key_bias is torch.float64; the kernel computes in float32"),
        ({"value": torch.rand(1, 2, 5, 4).half()}, "value is torch.float16, query torch.float32; the kernel needs one"),
        ({"query": torch.rand(1, 2, 513, 4)}, "there are 513 queries; the kernel takes 1 to 512"),
        (
            {"query": torch.rand(1, 2, 3, 129), "key": torch.rand(1, 2, 5, 129), "value": torch.rand(1, 2, 5, 129)},
            "the head dimension is 129; the kernel takes 1 to 128",
        ),
    ],
)
def test_the_kernel_refuses_in_words(changes: dict[str, Tensor], reason: str) -> None:
    tensors = {"query": torch.rand(1, 2, 3, 4), "key": torch.rand(1, 2, 5, 4), "value": torch.rand(1, 2, 5, 4)}
    assert not masked_attention.reasons(**tensors)
    with pytest.raises(BackendError, match=reason):
        masked_attention(**tensors | changes, backend="triton")


@pytest.mark.parametrize(("masked", "num_keys"), [(False, 5), (True, 33)])
def test_the_registered_operators_pass_opcheck(masked: bool, num_keys: int) -> None:
    inputs = _random_inputs((1, 1, 3, num_keys, 4), torch.float32, masked=masked, padded=masked)
    inputs = {name: x.detach() for name, x in inputs.items()}
    tensors = [inputs.get(name) for name in ("query", "key", "value", "key_bias", "key_valid")]
    forward, backward = torch.ops.pps_fast.masked_attention_fwd, torch.ops.pps_fast.masked_attention_bwd
    results = [torch.rand(1, 1, 3, 4), *forward(*tensors, False, False)]
    for tf32 in (False, True):
        assert set(torch.library.opcheck(forward, (*tensors, False, tf32)).values()) == {"SUCCESS"}
        assert set(torch.library.opcheck(backward, (results, *tensors, False, tf32)).values()) == {"SUCCESS"}


@pytest.mark.parametrize(("precision", "tf32"), [("highest", False), ("high", True), ("medium", True)])
def test_the_operators_round_products_to_tf32_where_torch_is_allowed_to(
    precision: str, tf32: bool, matmul_precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Recorded:
        """The registered operators, which note their last argument."""

        def __getattr__(self, name: str) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                seen.append((name, args[-1]))
                return getattr(operators, name)(*args)

            return call

    operators = torch.ops.pps_fast
    monkeypatch.setattr(torch.ops, "pps_fast", Recorded())
    torch.set_float32_matmul_precision(precision)
    out = masked_attention(**_random_inputs((1, 1, 3, 5, 4), torch.float32), backend="triton")
    # the backward pass multiplies as the forward pass did
    torch.set_float32_matmul_precision("highest")
    out.sum().backward()
    assert seen == [("masked_attention_fwd", tf32), ("masked_attention_bwd", tf32)]


def _golden_cases() -> list[str]:
    with np.load(GOLDEN) as archive:
        return sorted({name.split("/")[1] for name in archive.files if name.startswith("attention/")})


@pytest.mark.parametrize("name", _golden_cases())
def test_the_kernel_is_equal_to_the_published_code(name: str, poisoned_empty: None) -> None:
    with np.load(GOLDEN) as archive:
        entries = [entry for entry in archive.files if entry.startswith(f"attention/{name}/")]
        arrays = {entry.split("/")[2]: archive[entry] for entry in entries}
    letters = [letter for letter in "qkvg" if letter in arrays]
    leaves = {letter: torch.from_numpy(arrays[letter]).float().requires_grad_() for letter in letters}
    options = {"key_valid": torch.from_numpy(arrays["key_ok"]).bool(), "causal": bool(arrays["causal"])}
    q, k, v = (leaves[letter] for letter in "qkv")
    if "g" in arrays:
        # the gradient of a mask near 0, of order 1e10, is that of its log without what fp32 cannot hold
        floored = arrays["g"] + 1e-10
        leaves["g"] = torch.from_numpy(np.log(floored)).float().requires_grad_()
        arrays["grad_g"] = arrays["grad_g"] * floored
    out = masked_attention(q, k, v, key_bias=leaves.get("g"), **options, backend="triton")
    grads = torch.autograd.grad(out, list(leaves.values()), torch.from_numpy(arrays["upstream"]).float())
    results = {"out": out.detach()} | {f"grad_{letter}": grad for letter, grad in zip(letters, grads, strict=True)}
    for name, got in results.items():
        _assert_near(got, torch.from_numpy(arrays[name]), LIMIT[torch.float32])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    ("shape", "causal"), [((64, 4, 50, 50, 64), True), ((64, 4, 20, 50, 64), False), ((8, 4, 201, 201, 64), True)]
)
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(
    shape: tuple[int, int, int, int, int], causal: bool, dtype: torch.dtype
) -> None:
    inputs = {name: x.detach().cuda() for name, x in _random_inputs(shape, dtype).items()}
    inputs = {name: x.requires_grad_(x.is_floating_point()) for name, x in inputs.items()}
    for got, oracle in zip(_run(inputs, "triton", causal), _run(_in_double(inputs), "torch", causal), strict=True):
        _assert_near(got, oracle, LIMIT[dtype])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize(("num_heads", "num_queries", "width"), [(4, 9, 8), (1, 13, 48)])
def test_flash_attention_of_torch_serves_bf16_without_gradients(
    num_heads: int, num_queries: int, width: int, has_mask: bool, causal: bool
) -> None:
    generator = torch.Generator().manual_seed(3)
    num_keys = num_queries if causal else 7
    lengths = {"query": num_queries, "key": num_keys, "value": num_keys}
    # the layout of a packed projection
    draws = {k: torch.randn(3, n, num_heads, width, generator=generator) for k, n in lengths.items()}
    inputs = {name: draw.bfloat16().transpose(1, 2) for name, draw in draws.items()}
    if has_mask:
        inputs["key_bias"] = log_mask(torch.rand(3, num_keys, generator=generator))
        inputs["key_valid"] = torch.arange(num_keys) < torch.tensor([[num_keys], [2], [0]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = masked_attention(**inputs, causal=causal)
    doubles = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    reference = masked_attention(**inputs, causal=causal, backend="torch")
    oracle = masked_attention(**doubles, causal=causal, backend="torch")
    assert_close("masked_attention", got, reference, oracle)
    assert got.dtype == torch.bfloat16


def test_flash_attention_of_torch_leaves_all_else_to_the_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    x, half = torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4).bfloat16()
    masked_attention(half, half, half)
    with torch.no_grad():
        for dtype in (torch.float64, torch.float32, torch.float16):
            masked_attention(x.to(dtype), x.to(dtype), x.to(dtype))
        masked_attention(half, half, half, backend="torch")
        with pytest.raises(TypeError, match="not callable"):
            masked_attention(half, half, half)
