"""Label-smoothed cross-entropy of the reconstructed sentence: every backend against the loops, with all gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pps_fast.ops.dispatch import BackendError, Op
from pps_fast.ops.reconstruction_nll import kernel, reconstruction_nll
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree, assert_close
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous

OPS = (reconstruction_nll,)
# in the interpreter a program costs milliseconds, however large its blocks are
FEW_PROGRAMS = 1 << 14
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "reconstruction_nll", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["reconstruction_nll"]


def test_nll_of_a_uniform_prediction_is_log_v_whatever_the_smoothing() -> None:
    targets, is_target = torch.tensor([[3, 0]]), torch.tensor([[True, False]])
    for smoothing in (0.0, 0.1, 0.9):
        got = reconstruction_nll(torch.zeros(1, 2, 2, 7), targets, is_target, smoothing)
        assert_agree("nll", got, torch.full((1, 2), math.log(7)), rtol=1e-6)


def test_nll_does_not_see_columns_without_target() -> None:
    logits = torch.randn(1, 1, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets, is_target = torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])
    reconstruction_nll(logits, targets, is_target, 0.1).sum().backward()
    assert_agree("gradient", logits.grad[0, 0, 1], torch.zeros(5))
    assert (logits.grad[0, 0, [0, 2]] != 0).all()


def _inputs(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, smoothing: float = 0.1
) -> dict[str, Any]:
    """Random sentences of 1 to L targets; logits are no leaf yet."""
    num_samples, _, num_columns, num_classes = shape
    length = torch.randint(1, num_columns + 1, (num_samples, 1))
    return {
        "logits": (3 * torch.randn(shape)).to(dtype),
        "targets": torch.randint(num_classes, (num_samples, num_columns)),
        "is_target": torch.arange(num_columns) < length,
        "smoothing": smoothing,
    }


def _run(inputs: dict[str, Any], backend: str, dtype: torch.dtype | None = None) -> list[Tensor]:
    """C(.) and the gradient of its weighted sum; the logits keep their strides."""
    logits = inputs["logits"].detach()
    logits = (logits if dtype is None else logits.to(dtype)).requires_grad_()
    nll = reconstruction_nll(**{**inputs, "logits": logits}, backend=backend)
    weight = torch.linspace(-1.3, 1.7, nll.numel(), dtype=nll.dtype, device=nll.device).reshape(nll.shape)
    (grad,) = torch.autograd.grad((nll * weight).sum(), logits)
    return [nll.detach(), grad]


def _assert_near(inputs: dict[str, Any]) -> None:
    """The kernel is about as near to the equation in float64 as the equation in its own dtype is."""
    results = (_run(inputs, "triton"), _run(inputs, "torch"), _run(inputs, "torch", torch.float64))
    for got, reference, exact in zip(*results, strict=True):
        assert_close("reconstruction_nll", got, reference, exact)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("op", "case"), EACH)
def test_the_kernel_agrees_with_the_loops(
    op: Op, case: Case, dtype: torch.dtype, poisoned_empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype != torch.float32:
        monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", FEW_PROGRAMS)
    check_case(op, "reconstruction_nll", case, dtype, backend="triton")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "shape",
    [(2, 5, 7, 2), (2, 1, 20, 63), (1, 5, 7, 65), (3, 1, 1, 257), (1, 1, 7, 1112), (2, 1, 1, 2049), (1, 5, 1, 3)],
    ids=str,
)
def test_the_kernel_takes_odd_shapes(shape: tuple[int, int, int, int], smoothing: float, poisoned_empty: None) -> None:
    _assert_near(_inputs(shape, smoothing=smoothing))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 70)),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    dtype=st.sampled_from([torch.float32, *HALF]),
    seed=st.integers(0, 9),
)
def test_the_kernel_takes_any_shape(
    shape: tuple[int, int, int, int], smoothing: float, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs = _inputs(shape, dtype, smoothing)
    got, expected = _run(inputs, "triton"), _run(inputs, "torch", torch.float64)
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype
    # with one class all is 0 but for rounding
    assert_agree("nll", got[0], expected[0], rtol=1e-6, atol=1e-6)
    assert_agree("gradient", got[1], expected[1], rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_reads_any_strides_and_repeats_itself(dtype: torch.dtype, poisoned_empty: None) -> None:
    packed = _inputs((2, 3, 4, 24), dtype)
    logits = packed["logits"]
    wider = torch.full((2, 3, 7, 24), float("nan"), dtype=dtype)
    wider[:, :, 1:5] = logits
    expected = _run(packed, "triton")
    for strided in (
        logits,
        wider[:, :, 1:5],
        logits.transpose(1, 2).contiguous().transpose(1, 2),
        logits.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        torch.nn.functional.pad(logits, (1, 2))[..., 1:-2],
    ):
        assert strided is logits or not strided.is_contiguous()
        for got, value in zip(_run({**packed, "logits": strided}, "triton"), expected, strict=True):
            assert_agree("strides", got, value)


def test_the_kernel_reads_one_row_of_logits_for_all_masks() -> None:
    inputs = _inputs((2, 1, 3, 17))
    got = reconstruction_nll(**{**inputs, "logits": inputs["logits"].expand(-1, 4, -1, -1)}, backend="triton")
    assert_agree("nll", got, reconstruction_nll(**inputs, backend="triton").expand(-1, 4))


def test_the_kernel_reads_strided_targets() -> None:
    inputs = _inputs((3, 2, 4, 9))
    strided = {name: inputs[name].t().contiguous().t() for name in ("targets", "is_target")}
    for got, expected in zip(_run({**inputs, **strided}, "triton"), _run(inputs, "triton"), strict=True):
        assert_agree("strides", got, expected)


def test_the_kernel_does_not_read_words_without_target(poisoned_empty: None) -> None:
    inputs = _inputs((2, 2, 6, 33))
    # targets need not come first, one may be all there is, and what is no target need have no class
    inputs["is_target"] = torch.tensor([[False, True, False, True, True, False], [False] * 5 + [True]])
    expected = _run(inputs, "torch", torch.float64)
    hidden = ~inputs["is_target"]
    inputs["targets"] = inputs["targets"].masked_fill(hidden, -1)
    inputs["logits"] = inputs["logits"].masked_fill(hidden[:, None, :, None], float("nan"))
    got = _run(inputs, "triton")
    assert_agree("nll", got[0], expected[0], rtol=1e-6)
    assert_agree("gradient", got[1], expected[1], rtol=1e-6)
    assert (got[1].transpose(1, 2)[hidden] == 0).all()


def test_a_sentence_without_targets_is_no_number_and_spoils_no_other() -> None:
    inputs = _inputs((3, 2, 4, 5))
    inputs["is_target"][1] = False
    (nll, grad), (expected, expected_grad) = _run(inputs, "triton"), _run(inputs, "torch")
    assert nll[1].isnan().all() and expected[1].isnan().all()
    assert_agree("nll", nll[[0, 2]], expected[[0, 2]], rtol=1e-6)
    assert_agree("gradient", grad, expected_grad, rtol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_a_class_that_does_not_exist_is_no_number(wrong: int) -> None:
    inputs = _inputs((2, 2, 4, 5))
    inputs["is_target"][:] = True
    inputs["targets"][1, 2] = wrong
    nll = reconstruction_nll(**inputs, backend="triton")
    assert nll[1].isnan().all() and torch.isfinite(nll[0]).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, -1e4])
def test_the_kernel_keeps_its_digits_where_logits_are_extreme(scale: float, smoothing: float) -> None:
    inputs = _inputs((2, 1, 4, 70), smoothing=smoothing)
    # all equal; one class far above the others; one far below
    inputs["logits"] = torch.full((2, 3, 4, 70), scale)
    inputs["logits"][:, 1, :, 3], inputs["logits"][:, 2, :, 3] = 1e4, -1e4
    inputs["targets"][0], inputs["targets"][1] = 3, 7
    got, expected = _run(inputs, "triton"), _run(inputs, "torch", torch.float64)
    for n in range(3):
        for b in range(2):
            assert_agree("nll", got[0][b, n], expected[0][b, n], rtol=1e-6, atol=1e-6)
            assert_agree("gradient", got[1][b, n], expected[1][b, n], rtol=1e-6, atol=1e-7)


def test_the_kernel_does_not_hide_a_logit_that_is_not_a_number() -> None:
    inputs = _inputs((2, 2, 3, 5))
    inputs["logits"][1, 0, 0, 4] = float("nan")
    nll = reconstruction_nll(**inputs, backend="triton")
    assert nll[1, 0].isnan() and torch.isfinite(nll[[0, 0, 1], [0, 1, 1]]).all()


def test_the_kernel_gives_a_gradient_that_is_asked_for_in_any_form() -> None:
    inputs = _inputs((2, 3, 4, 9))
    logits = inputs["logits"].requires_grad_()
    nll = reconstruction_nll(**inputs, backend="triton")
    # a gradient without strides, then one for part of the sentences, as of the best proposals
    nll.sum().backward(retain_graph=True)
    once = logits.grad.clone()
    nll[:, 1].sum().backward()
    assert_agree("others", logits.grad[:, ::2], once[:, ::2])
    assert_agree("chosen", logits.grad[:, 1], 2 * once[:, 1])
    assert_agree("sum over classes", once.sum(-1), torch.zeros(2, 3, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logits": torch.rand(2, 3, 4, 5).double()}, "logits is torch.float64; the kernel computes in float32"),
        ({"logits": torch.rand(2, 0, 4, 5)}, "the kernel takes no empty tensor"),
        (
            {"logits": torch.rand(1, 1, 1, 1).expand(2, 65536, 4, 5)},
            "logits has 65536 masks; the kernel takes 1 to 655",
        ),
        ({"logits": torch.rand(1).expand(2, 3, 4, 2**30 + 1)}, "1073741825 classes; the kernel takes 1 to 1073741824"),
        (
            {
                "logits": torch.rand(1).expand(2, 3, 1025, 5),
                "targets": torch.zeros(2, 1025).long(),
                "is_target": torch.ones(2, 1025).bool(),
            },
            "logits has 1025 words; the kernel takes 1 to 1024",
        ),
    ],
)
def test_the_kernel_refuses_in_words(changes: dict[str, Any], reason: str) -> None:
    inputs = {**_inputs((2, 3, 4, 5)), **changes}
    with pytest.raises(BackendError, match=reason):
        reconstruction_nll(**inputs, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = list(_inputs((2, 3, 4, 5), dtype).values())
        forward, backward = torch.ops.pps_fast.reconstruction_nll_fwd, torch.ops.pps_fast.reconstruction_nll_bwd
        _, peak, log_sum = forward(*inputs)
        # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        for operator, arguments in ((forward, inputs), (backward, [torch.rand(2, 3), *inputs, peak, log_sum])):
            assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    "shape", [(32, 15, 20, 1112), (32, 11, 20, 8001), (2, 3, 1, 1), (3, 1, 7, 63), (1, 2, 1024, 40)], ids=str
)
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    inputs = {name: x.cuda() if isinstance(x, Tensor) else x for name, x in _inputs(shape, dtype).items()}
    inputs["is_target"][:, 0] = True
    got, expected = _run(inputs, "triton"), _run(inputs, "torch", torch.float64)
    assert_agree("nll", got[0], expected[0], rtol=2e-6, atol=1e-6)
    assert_agree("gradient", got[1], expected[1], rtol=2 * torch.finfo(dtype).eps + 1e-6, atol=1e-9)
    for again, value in zip(_run(inputs, "triton"), got, strict=True):
        assert_agree("second run", again, value)
