"""The dispatcher, with small fake ops: which implementation runs, and what is said when none can."""

from __future__ import annotations

import inspect
import pydoc
import sys

import pytest
import torch

from pps_fast.ops import dispatch as backend
from pps_fast.ops.contract import floats
from pps_fast.ops.dispatch import BackendError, Op, use_backend


def _equation(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Adds 1."""
    return x + scale


def _fused(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return x + 100 * scale


def _unsupported(x: torch.Tensor, scale: float = 1.0) -> list[str]:
    reasons = []
    if x.dtype != torch.float32:
        reasons.append(f"dtype {x.dtype} is not float32")
    if x.dim() != 1:
        reasons.append(f"{x.dim()} dimensions, expected 1")
    return reasons


@pytest.fixture
def op() -> Op:
    return Op("add", torch=_equation, triton=_fused, unsupported=_unsupported)


SUPPORTED = torch.zeros(2)
REFUSED = torch.zeros(2, 2, dtype=torch.float64)


def _ran(result: torch.Tensor) -> str:
    return {1.0: "torch", 100.0: "triton"}[result.flatten()[0].item()]


def test_auto_takes_the_kernel_where_it_supports_the_input(op: Op) -> None:
    assert _ran(op(SUPPORTED)) == "triton"
    assert _ran(op(REFUSED)) == "torch"


def test_torch_never_takes_the_kernel(op: Op) -> None:
    assert _ran(op(SUPPORTED, backend="torch")) == "torch"
    assert _ran(op(REFUSED, backend="torch")) == "torch"


def test_triton_insists_and_lists_every_reason(op: Op) -> None:
    assert _ran(op(SUPPORTED, backend="triton")) == "triton"
    with pytest.raises(BackendError) as error:
        op(REFUSED, backend="triton")
    message = str(error.value)
    assert message.startswith("add: backend 'triton' cannot serve this call")
    assert "dtype torch.float64 is not float32" in message and "2 dimensions, expected 1" in message
    assert "Use 'auto' or 'torch'" in message


def test_an_op_without_a_kernel_says_so() -> None:
    op = Op("add", torch=_equation)
    assert _ran(op(SUPPORTED)) == "torch"
    assert op.reasons(SUPPORTED) == ["add has no fused kernel"]
    with pytest.raises(BackendError, match="add has no fused kernel"):
        op(SUPPORTED, backend="triton")


def test_a_kernel_without_conditions_supports_everything() -> None:
    op = Op("add", torch=_equation, triton=_fused)
    assert op.reasons(REFUSED) == []
    assert _ran(op(REFUSED)) == "triton"


def test_reasons_take_the_arguments_of_the_op(op: Op) -> None:
    assert op.reasons(SUPPORTED, scale=2.0) == []
    assert len(op.reasons(x=REFUSED)) == 2


def test_ambient_choice_serves_calls_that_leave_it_open(op: Op) -> None:
    with use_backend("torch"):
        assert _ran(op(SUPPORTED)) == "torch"
        assert _ran(op(SUPPORTED, backend="auto")) == "torch"
    with use_backend("triton"), pytest.raises(BackendError):
        op(REFUSED)
    assert _ran(op(SUPPORTED)) == "triton"


def test_explicit_choice_wins_over_the_ambient_one(op: Op) -> None:
    with use_backend("torch"):
        assert _ran(op(SUPPORTED, backend="triton")) == "triton"
    with use_backend("triton"):
        assert _ran(op(REFUSED, backend="torch")) == "torch"


def test_ambient_choices_nest_and_end_with_their_block(op: Op) -> None:
    with use_backend("torch"):
        with use_backend("triton"):
            assert _ran(op(SUPPORTED)) == "triton"
        assert _ran(op(SUPPORTED)) == "torch"
    with pytest.raises(RuntimeError, match="inside"), use_backend("torch"):
        raise RuntimeError("inside")
    assert backend._ambient == "auto"


def test_unknown_backends_are_refused_with_the_choices(op: Op) -> None:
    expected = "backend = 'cuda': expected one of auto, triton, torch"
    with pytest.raises(ValueError, match=expected):
        op(SUPPORTED, backend="cuda")
    with pytest.raises(ValueError, match=expected), use_backend("cuda"):
        pass
    assert backend._ambient == "auto"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, ImportError, BackendError])
@pytest.mark.parametrize("choice", ["auto", "triton"])
def test_errors_inside_a_kernel_are_not_swallowed(error: type[Exception], choice: str) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise error("inside the kernel")

    op = Op("broken", torch=lambda x: x, triton=broken)
    with pytest.raises(error, match="^inside the kernel$"):
        op(SUPPORTED, backend=choice)


def test_errors_inside_the_equation_and_the_conditions_are_not_swallowed() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        Op("broken", torch=broken)(SUPPORTED)
    with pytest.raises(KeyError, match="inside"):
        Op("broken", torch=_equation, triton=_fused, unsupported=broken)(SUPPORTED)


def test_an_op_looks_like_its_equation_with_a_backend(op: Op) -> None:
    assert (
        str(inspect.signature(op)) == "(x: torch.Tensor, scale: float = 1.0, *, backend: str = 'auto') -> torch.Tensor"
    )
    assert op.__name__ == op.__qualname__ == "add" and op.__wrapped__ is _equation
    assert op.__annotations__ == {"x": torch.Tensor, "scale": float, "backend": str, "return": torch.Tensor}
    assert op.__doc__ == f"add{inspect.signature(op)}\n\nAdds 1."
    shown = pydoc.render_doc(op, renderer=pydoc.plaintext)
    assert f"add{inspect.signature(op)}" in shown and "Adds 1." in shown
    assert repr(op) == f"<op add{inspect.signature(op)}>"


@pytest.mark.parametrize("choice", ["auto", "triton", "torch"])
def test_a_missing_argument_is_named_by_every_backend(op: Op, choice: str) -> None:
    with pytest.raises(TypeError, match="add: the argument 'x' is missing"):
        op(scale=2.0, backend=choice)
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        Op("add", torch=_equation, triton=_fused)(SUPPORTED, size=2.0, backend=choice)


@pytest.mark.parametrize("choice", ["auto", "triton", "torch"])
def test_every_backend_refuses_what_breaks_the_contract_or_the_rule(choice: str) -> None:
    op = Op(
        "add",
        torch=_equation,
        triton=_fused,
        contract={"x": floats("n")},
        rule=lambda arguments: "scale is negative" if arguments.get("scale", 1.0) < 0 else None,
    )
    assert op(SUPPORTED, backend=choice).shape == (2,)
    with pytest.raises(ValueError, match=r"^add: x has shape \(2, 2\), expected \[n\]$"):
        op(REFUSED, backend=choice)
    with pytest.raises(ValueError, match="^add: scale is negative$"):
        op(SUPPORTED, scale=-1.0, backend=choice)
    with pytest.raises(ValueError, match="^add: scale is negative$"):
        op.reasons(SUPPORTED, -1.0)


def test_one_frame_lies_between_a_call_and_the_equation() -> None:
    op = Op("depth", torch=lambda: sys._getframe(2).f_code.co_name)
    assert op() == "test_one_frame_lies_between_a_call_and_the_equation"


@pytest.mark.parametrize(("choice", "expected"), [("auto", "triton"), ("triton", "triton"), ("torch", "torch")])
def test_the_compiler_traces_through_the_dispatcher_in_one_graph(op: Op, choice: str, expected: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: op(x, backend=choice) * 1, fullgraph=True, backend="eager")
    assert _ran(compiled(SUPPORTED)) == expected
    torch.compiler.reset()


def test_the_compiler_retraces_when_the_ambient_choice_changes(op: Op) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: op(x) * 1, fullgraph=True, backend="eager")
    assert _ran(compiled(SUPPORTED)) == "triton"
    with use_backend("torch"):
        assert _ran(compiled(SUPPORTED)) == "torch"
    assert _ran(compiled(SUPPORTED)) == "triton"
    torch.compiler.reset()
