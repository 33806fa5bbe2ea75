"""LayerNorm(x + dropout(branch)): equation and kernel against the loops, with all gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pps_fast import equations
from pps_fast.kernels import residual_norm as kernel
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.randomness import NUM_LEVELS, add_dropout, mix, num_dropped_levels
from tests.support import oracles
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree, assert_close
from tests.support.keep_mask import keep_mask
from tests.support.op_check import (
    DTYPES,
    HALF,
    check_backends,
    check_case,
    check_non_contiguous,
    over_cases,
    values_and_gradients,
)

WRT = ("x", "branch", "weight", "bias")
# of the largest value, kernel against equation; measured in fp32: 1.9e-6
NEAR = 3e-6


def _inputs(shape: tuple[int, int, int], rate: float | None = 0.3, first_row: bool = False, seed: int = 0) -> dict:
    """Leaves in fp32 on the CPU, by the op's names."""
    generator = torch.Generator().manual_seed(seed)
    num, _, width = shape
    leaves = {
        "x": torch.randn(shape, generator=generator) + 0.5,
        "branch": torch.randn(shape, generator=generator) * 2,
        "weight": torch.rand(width, generator=generator) + 0.5,
        "bias": torch.randn(width, generator=generator),
    }
    inputs = {name: value.requires_grad_() for name, value in leaves.items()}
    if rate is not None:
        dropout_key = torch.randint(-(2**31), 2**31, (num,), generator=generator).to(torch.int32)
        inputs |= {"dropout_key": dropout_key, "site": 5, "rate": rate}
    if first_row:
        inputs["first_row"] = torch.randint(0, 50, (num,), generator=generator)
    return inputs


def _with_dtypes(inputs: dict, **dtypes: torch.dtype) -> dict:
    """The same leaves in other dtypes."""
    changed = {name: inputs[name].detach().to(dtype).requires_grad_() for name, dtype in dtypes.items()}
    return inputs | changed


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("first_row", [False, True])
def test_bf16_rows_without_gradients_are_normalized_by_torch(
    rate: float | None, first_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _with_dtypes(_inputs((5, 7, 64), rate, first_row), x=torch.bfloat16, branch=torch.bfloat16)
    doubles = _with_dtypes(inputs, **dict.fromkeys(WRT, torch.float64))
    reference, oracle = residual_norm(**inputs, backend="torch"), residual_norm(**doubles, backend="torch")
    with torch.no_grad():
        monkeypatch.setattr(residual_norm, "_torch", None)
        got = residual_norm(**inputs)
    assert_close("residual_norm", got, reference, oracle)
    assert got.dtype == torch.bfloat16


def _steepness(inputs: dict) -> float:
    """The largest 1 / std of a row, which multiplies every rounding in the gradients of x and branch."""
    dropout_key = inputs.get("dropout_key")
    site_key = None if dropout_key is None else mix(dropout_key, inputs["site"])
    summed = add_dropout(inputs["x"], inputs["branch"], site_key, inputs.get("rate", 0.0), inputs.get("first_row", 0))
    variance = summed.detach().float().var(-1, correction=0)
    return (variance + equations.NORM_EPS).rsqrt().max().item()


def _assert_same(inputs: dict, near: float = NEAR) -> None:
    """Kernel and equation agree in the result and all gradients."""
    steepness = _steepness(inputs)
    got, expected = (
        values_and_gradients(partial(residual_norm, backend=backend), inputs, WRT) for backend in ("triton", "torch")
    )
    for name, value in got.items():
        assert value.dtype == expected[name].dtype, name
        atol = 3 * near * steepness if name in ("gradient of x", "gradient of branch") else 0.0
        assert_agree(name, value, expected[name], rtol=near, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@over_cases("residual_norm")
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(residual_norm, "residual_norm", case, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@over_cases("residual_norm")
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(residual_norm, "residual_norm", case, dtype, backend="triton")


def test_strides_do_not_matter() -> None:
    check_non_contiguous(residual_norm, CASES["residual_norm"][2])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(residual_norm, CASES["residual_norm"][0])


def test_without_dropout_it_is_the_layer_norm_of_a_sum() -> None:
    inputs = _inputs((2, 3, 6), rate=None)
    expected = torch.nn.functional.layer_norm(
        inputs["x"] + inputs["branch"], (6,), inputs["weight"], inputs["bias"], equations.NORM_EPS
    )
    assert_agree("sum", residual_norm(**inputs), expected)
    for dropout_key, rate in ((None, 0.5), (torch.zeros(2, dtype=torch.int32), 0.0)):
        assert_agree("no dropout", residual_norm(**inputs, dropout_key=dropout_key, rate=rate), expected)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(("shape", "first_row"), [((5, 3, 8), False), ((5, 2, 64), True), ((3, 4, 7), False)])
def test_what_is_dropped_is_what_the_counters_say(shape: tuple, first_row: bool, backend: str) -> None:
    inputs = _inputs(shape, 0.3, first_row)
    kept = keep_mask(mix(inputs["dropout_key"], 5), shape[1:], 0.3, inputs.get("first_row", 0))
    if backend == "triton":
        dropout_key, dropout = inputs["dropout_key"], [5, num_dropped_levels(0.3)]
        tensors = [inputs[name].detach() for name in WRT]
        summed = torch.ops.pps_fast.residual_norm_fwd(
            *tensors, dropout_key, dropout, inputs.get("first_row"), 1e-5, shape[0]
        )[1]
        assert torch.equal(summed != inputs["x"], kept)
    result = residual_norm(**inputs, backend=backend)
    (grad,) = torch.autograd.grad((result * torch.randn(shape)).sum(), inputs["branch"])
    assert torch.equal(grad != 0, kept)


def test_kernel_and_loops_share_every_bit_of_the_hash() -> None:
    """Extreme keys, the lowest and highest rates, and sites of any size."""
    dropout_key = torch.tensor([0, -1, 2**31 - 1, -(2**31), 1], dtype=torch.int32)
    for site, rate in ((0, 1 / NUM_LEVELS), (2**31 - 1, 0.5), (-7, 65535 / NUM_LEVELS)):
        x, branch, weight = torch.zeros(5, 2, 16), torch.ones(5, 2, 16), torch.ones(16)
        dropout = [site, num_dropped_levels(rate)]
        summed = torch.ops.pps_fast.residual_norm_fwd(x, branch, weight, weight, dropout_key, dropout, None, 1e-5, 5)[1]
        expected = [oracles.is_kept(oracles.hashed(int(k), site), p, rate) for k in dropout_key for p in range(32)]
        assert (summed != 0).flatten().tolist() == expected


@pytest.mark.parametrize("width", [2, 7, 8, 64, 256, 300])
@pytest.mark.parametrize("first_row", [False, True])
@pytest.mark.parametrize("rate", [None, 0.3])
def test_the_kernel_takes_every_width(width: int, first_row: bool, rate: float | None, poisoned_empty: None) -> None:
    _assert_same(_inputs((3, 5, width), rate, first_row and width % 2 == 0))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_row_of_one_value_is_the_bias(backend: str) -> None:
    inputs = _inputs((2, 3, 1))
    got = values_and_gradients(partial(residual_norm, backend=backend), inputs, WRT)
    assert_agree("value", got["value"], inputs["bias"].expand(2, 3, 1))
    for name in ("x", "branch"):
        # rounding times a 1 / std of 316
        assert_agree(name, got[f"gradient of {name}"], torch.zeros(2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 37, 8), (1, 300, 64), (40, 3, 256), (1, 1, 64)])
@pytest.mark.parametrize("limit", [1, 3, 512])
def test_programs_of_the_backward_pass_take_any_number_of_blocks(
    shape: tuple, limit: int, poisoned_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_MAX_PROGRAMS", limit)
    # few rows in a block, so that there are many blocks
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS_BWD", 512)
    _assert_same(_inputs(shape, 0.2, first_row=True), near=1e-5)


@pytest.mark.parametrize(
    "dtypes",
    [
        {"branch": torch.bfloat16},
        {"x": torch.bfloat16, "branch": torch.bfloat16},
        {"x": torch.float16},
        {"x": torch.bfloat16, "branch": torch.float16, "bias": torch.bfloat16},
    ],
    ids=lambda dtypes: "-".join(f"{name}_{str(dtype)[6:]}" for name, dtype in dtypes.items()),
)
@pytest.mark.parametrize("rate", [None, 0.3])
def test_dtypes_may_differ_and_the_result_has_that_of_x(dtypes: dict, rate: float | None, poisoned_empty: None) -> None:
    inputs = _with_dtypes(_inputs((3, 4, 64), rate), **dtypes)
    assert residual_norm(**inputs, backend="torch").dtype == inputs["x"].dtype
    # gradients are rounded to bf16 at the end, where they may go either way
    _assert_same(inputs, near=8e-3)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_gradients_of_the_parameters_do_not_drift_over_many_rows_of_half_precision(backend: str) -> None:
    """torch's layer norm of bf16 rows adds them up in bf16 on a CPU: 18 % off for these, and refused by CUDA."""
    inputs = _with_dtypes(_inputs((600, 40, 16), rate=None), x=torch.bfloat16, branch=torch.bfloat16)
    exact = _with_dtypes(inputs, **dict.fromkeys(WRT, torch.float64))
    got = values_and_gradients(partial(residual_norm, backend=backend), inputs, WRT)
    expected = values_and_gradients(equations.residual_norm, exact, WRT)
    for name in ("gradient of weight", "gradient of bias"):
        # measured 2.5e-3
        assert got[name].dtype == torch.float32
        assert_agree(name, got[name].double(), expected[name], rtol=4e-3)


def test_autocast_leaves_statistics_in_full_precision() -> None:
    inputs = _inputs((2, 3, 64))
    expected = residual_norm(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_agree("autocast", residual_norm(**inputs), expected)


def test_the_kernel_reads_any_strides_and_repeats_itself() -> None:
    inputs = _inputs((3, 5, 8), 0.3, first_row=True)
    run = partial(values_and_gradients, partial(residual_norm, backend="triton"), wrt=WRT)
    expected = run(inputs=inputs)
    strided = dict(inputs)
    for name in ("x", "branch"):
        wide = torch.stack((inputs[name].detach(),) * 2, -1).transpose(0, 1).contiguous().transpose(0, 1)
        strided[name] = wide[..., 0].requires_grad_()
    for name in ("weight", "bias", "dropout_key", "first_row"):
        value = torch.stack((inputs[name].detach(), inputs[name].detach() + 1), -1)[..., 0]
        strided[name] = value.requires_grad_(name in WRT)
    assert not any(strided[name].is_contiguous() for name in (*WRT, "dropout_key", "first_row"))
    for again in (strided, strided, inputs):
        for name, value in run(inputs=again).items():
            assert_agree(name, value, expected[name])


@settings(max_examples=20, derandomize=True, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 20).map(lambda half: 2 * half)),
    rate=st.sampled_from([None, 0.001, 0.3, 0.9]),
    first_row=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shape(shape: tuple, rate: float | None, first_row: bool, seed: int) -> None:
    _assert_same(_inputs(shape, rate, first_row, seed), near=1e-5)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_row_of_equal_values_stays_finite(backend: str, poisoned_empty: None) -> None:
    x = torch.full((1, 2, 8), 3.0, requires_grad=True)
    branch, weight, bias = (torch.zeros(*shape, requires_grad=True) for shape in ((1, 2, 8), (8,), (8,)))
    got = values_and_gradients(
        partial(residual_norm, backend=backend), {"x": x, "branch": branch, "weight": weight, "bias": bias}, WRT
    )
    assert_agree("value", got["value"], torch.zeros(1, 2, 8))
    assert all(torch.isfinite(value).all() for value in got.values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": torch.rand(2, 3, 4).double()}, "x is torch.float64; the kernel computes in float32"),
        (dict.fromkeys(("x", "branch"), torch.rand(2, 0, 4)), "the kernel takes no empty tensor"),
        (
            dict.fromkeys(("x", "branch"), torch.rand(2, 1, 2049))
            | dict.fromkeys(("weight", "bias"), torch.rand(2049)),
            "rows of 2049 values; the kernel takes 1 to 2048",
        ),
    ],
)
def test_the_kernel_refuses_what_it_cannot_normalize(changes: dict, reason: str) -> None:
    inputs = {"x": torch.rand(2, 3, 4), "branch": torch.rand(2, 3, 4), "weight": torch.rand(4), "bias": torch.rand(4)}
    inputs |= {"dropout_key": torch.zeros(2, dtype=torch.int32), "rate": 0.1}
    assert not residual_norm.reasons(**inputs)
    with pytest.raises(BackendError, match=reason):
        residual_norm(**(inputs | changes), backend="triton")


@pytest.mark.parametrize(("rate", "first_row"), [(None, False), (0.3, False), (0.3, True)])
def test_the_registered_operators_pass_opcheck(rate: float | None, first_row: bool) -> None:
    inputs = _inputs((2, 3, 4), rate, first_row)
    tensors = [inputs[name].detach() for name in WRT]
    dropping = (
        inputs.get("dropout_key"),
        [5, 0 if rate is None else num_dropped_levels(rate)],
        inputs.get("first_row"),
    )
    forward, backward = torch.ops.pps_fast.residual_norm_fwd, torch.ops.pps_fast.residual_norm_bwd
    # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
    utils = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (*tensors, *dropping, 1e-5, 2)
    assert set(torch.library.opcheck(forward, arguments, test_utils=utils).values()) == {"SUCCESS"}
    results = list(forward(*arguments)[1:])
    arguments = (torch.rand(2, 3, 4), tensors[2], *dropping, results, torch.bfloat16)
    assert set(torch.library.opcheck(backward, arguments, test_utils=utils).values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("rate", [None, 0.3])
# what torch does on its way; nobody here instantiates one
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_compiler_traces_it_in_one_graph(backend: str, rate: float | None) -> None:
    torch.compiler.reset()
    inputs = _inputs((2, 3, 4), rate)
    compiled = torch.compile(partial(residual_norm, backend=backend), fullgraph=True, backend="eager")
    got = values_and_gradients(compiled, inputs, WRT)
    for name, value in values_and_gradients(partial(residual_norm, backend=backend), inputs, WRT).items():
        assert_agree(name, got[name], value)
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("shape", "first_row"), [((64, 50, 256), False), ((480, 1, 256), True), ((33, 17, 64), False)])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(
    shape: tuple, first_row: bool, dtype: torch.dtype, backend: str
) -> None:
    inputs = _with_dtypes(_inputs(shape, 0.1, first_row), x=dtype, branch=dtype)
    there = {
        name: value.detach().cuda().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
    exact = _with_dtypes(inputs, **dict.fromkeys(WRT, torch.float64))
    got = values_and_gradients(partial(residual_norm, backend=backend), there, WRT)
    expected = values_and_gradients(equations.residual_norm, exact, WRT)
    for name, value in got.items():
        rtol = 1e-5 if dtype == torch.float32 else 20 * torch.finfo(dtype).eps
        assert_agree(name, value.double(), expected[name], rtol=rtol)
