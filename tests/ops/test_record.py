"""Recording calls of ops: what is recorded, from where, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pps_fast.ops import dispatch
from pps_fast.ops.boundaries import boundaries
from pps_fast.ops.dispatch import BackendError, Op, use_backend
from pps_fast.ops.gaussian_mask import gaussian_mask
from pps_fast.ops.record import record_calls


def _double(x: Tensor, factor: float = 2.0) -> Tensor:
    return x * factor


def _halve(x: Tensor) -> Tensor:
    return x / 2


double = Op("double", torch=_double)
halve = Op("halve", torch=_halve, triton=lambda x: x * 0.5, unsupported=lambda x: ["never"])


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return double(x)

    def _backwards(self, x: Tensor) -> Tensor:
        return halve(x)


class Outer(nn.Module):
    def __init__(self, guest: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Inner(), Inner()])
        # called, but not a part
        self._guest = (guest,)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self._guest[0](self.layers[0]._backwards(x))

    def helper(self, x: Tensor) -> Tensor:
        return double(x)


def test_calls_are_recorded_in_order_with_inputs_by_name_and_defaults() -> None:
    x = torch.ones(2)
    with record_calls() as records:
        double(x)
        double(x, 3.0)
        halve(backend="torch", x=x)
    assert [(r.op.name, r.backend) for r in records] == [("double", "auto"), ("double", "auto"), ("halve", "torch")]
    assert [list(r.inputs) for r in records] == [["x", "factor"], ["x", "factor"], ["x"]]
    assert [r.inputs.get("factor") for r in records] == [2.0, 3.0, None]
    assert all(r.inputs["x"] is x for r in records)
    assert {r.site for r in records} == {"test_calls_are_recorded_in_order_with_inputs_by_name_and_defaults"}


def test_the_backend_is_the_one_asked_for_after_the_ambient_choice() -> None:
    with use_backend("torch"), record_calls() as records:
        double(torch.ones(1))
        halve(torch.ones(1), backend="auto")
    assert [r.backend for r in records] == ["torch", "torch"]


def test_sites_are_paths_of_modules_below_their_roots() -> None:
    guest = Inner()
    model = Outer(guest)
    with record_calls([("model", model), ("guest", guest)]) as records:
        model(torch.ones(1))
        model.helper(torch.ones(1))
    assert [r.site for r in records] == ["model", "model", "model.backwards", "model: guest", "model.helper"]


def test_a_module_of_two_roots_belongs_to_the_inner_one() -> None:
    model = Outer(Inner())
    roots = [("last", model.layers[1]), ("model", model)]
    for order in (roots, roots[::-1]):
        with record_calls(order) as records:
            model(torch.ones(1))
        assert [r.site for r in records] == ["model", "last", "model.backwards", "model"]


def test_blocks_nest_and_each_records_all_calls_inside_it() -> None:
    x = torch.ones(1)
    with record_calls() as outer:
        double(x)
        with record_calls() as inner:
            halve(x)
        double(x)
    double(x)
    assert [r.op.name for r in outer] == ["double", "halve", "double"]
    assert [r.op.name for r in inner] == ["halve"]


def test_a_refused_call_is_recorded_and_an_exception_ends_the_recording() -> None:
    with record_calls() as around:
        with pytest.raises(BackendError), record_calls() as records:
            halve(torch.ones(1), backend="triton")
        halve(torch.ones(1))
    halve(torch.ones(1))
    assert [(r.op.name, r.backend) for r in records] == [("halve", "triton")]
    assert [r.backend for r in around] == ["triton", "auto"]
    assert dispatch.listener is None


def test_arguments_that_do_not_fit_raise_the_error_of_the_op() -> None:
    with record_calls(), pytest.raises(TypeError, match="colour"):
        double(torch.ones(1), colour="red")


def test_choose_decides_the_backend_of_a_recorded_call() -> None:
    with record_calls(choose=lambda record: "torch") as records:
        assert halve(torch.ones(1), backend="triton") == 0.5
    assert [r.backend for r in records] == ["triton"]


def test_results_and_gradients_are_those_without_recording() -> None:
    def run() -> tuple[Tensor, Tensor]:
        x = torch.linspace(0.1, 0.9, 6).view(2, 3).requires_grad_()
        masks, _ = gaussian_mask(x, x, 9.0, 20, 1e-2)
        masks.sum().backward()
        return masks.detach(), x.grad

    expected = run()
    with record_calls() as records:
        observed = run()
    assert [r.op for r in records] == [gaussian_mask]
    assert all(torch.equal(a, b) for a, b in zip(observed, expected, strict=True))


@pytest.mark.parametrize("is_first_recorded", [False, True])
def test_a_compiled_function_is_one_graph_and_is_not_recorded(is_first_recorded: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: double(x) + 1, backend="eager", fullgraph=True)
    x = torch.ones(3)
    for is_recorded in (is_first_recorded, not is_first_recorded):
        if is_recorded:
            with record_calls() as records:
                assert torch.equal(compiled(x), torch.full((3,), 3.0))
            assert records == []
        else:
            assert torch.equal(compiled(x), torch.full((3,), 3.0))


def test_without_a_block_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with record_calls():
        assert dispatch.listener is not None
    assert dispatch.listener is None
    # the call itself looks at no frame and binds nothing
    monkeypatch.setattr("pps_fast.ops.record._site", None)
    monkeypatch.setattr("pps_fast.ops.record._bound", None)
    group = torch.tensor([0, 0, 1])
    boundaries(torch.full((1, 3), 0.5), torch.full((1, 3), 0.2), torch.ones(1, 3), group, 2, 0.0)
