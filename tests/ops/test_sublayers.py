"""Fused sub-layers compute what the modules of a stack compute: results and all gradients, with dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pps_fast.encoder import fused_stack
from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.transformer import Context, Keys, Stack
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import is_interpreted
from pps_fast.train.optimizer import Adam
from tests.support.cases import randomize, small_config
from tests.support.compare import assert_agree

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
CONFIG = small_config(encoder__hidden_dim=16, encoder__num_heads=2)
WIDTH, NUM, ROWS, MEMORY, MASKS = 16, 3, 5, 4, 2
Inputs = dict[str, Any]


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _plain() -> Inputs:
    """An encoder: rows under a mask, some of them padding."""
    valid = torch.arange(ROWS) < torch.tensor([[5], [3], [4]])
    return {"x": _draw(NUM, ROWS, WIDTH, seed=0), "log_mask": _draw(NUM, ROWS, seed=1) - 1, "valid": valid}


def _memory(num: int = NUM) -> Inputs:
    """What a decoder attends to."""
    return {
        "memory": _draw(num, MEMORY, WIDTH, seed=2),
        "memory_mask": _draw(num, MEMORY, seed=3),
        "memory_valid": torch.arange(MEMORY) < torch.tensor([[4], [2], [3]]),
    }


CASES: dict[str, Callable[[], Inputs]] = {
    "encoder": _plain,
    "decoder": lambda: {**_plain(), "log_mask": None, **_memory()},
    "decoder without masks or padding": lambda: {"x": _plain()["x"], "memory": _memory()["memory"]},
    "one row": lambda: {**_plain(), **_memory(), "row": torch.tensor([4, 2, 3])},
    "one row without memory": lambda: {**_plain(), "row": torch.tensor([4, 2, 3])},
    "masks": lambda: {**_plain(), "log_mask": _draw(NUM, MASKS, ROWS, seed=4), "num_masks": MASKS},
    "one row of each mask": lambda: {**CASES["masks of the memory"](), "row": torch.tensor([4, 2, 3])},
    "masks of the memory": lambda: {**_plain(), "log_mask": None, **_memory(NUM * MASKS), "num_masks": MASKS},
}


def _stack(backend: str, dtype: torch.dtype, has_memory: bool = True, num_layers: int = 2) -> Stack:
    stack = randomize(Stack(replace(CONFIG, backend=backend), num_layers, has_memory).to(dtype))
    number_sites(stack)
    # far from the ReLU's kink, on either side of it, where rounding does not decide what is zero
    with torch.no_grad():
        for block in stack.blocks:
            block.expand.bias.copy_(torch.tensor([6.0, -6.0]).repeat(len(block.expand.bias) // 2))
    return stack


def _run(stack: nn.Module, inputs: Inputs, dtype: torch.dtype, is_bf16: bool = False) -> dict[str, Tensor]:
    """The result and every gradient, by name."""
    leaves = {
        name: value.to(dtype).requires_grad_()
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    drawn = {**inputs, **leaves}
    num = NUM * (drawn.get("num_masks") or 1)
    context = Context(
        memory=drawn.get("memory"),
        memory_keys=Keys(valid=drawn.get("memory_valid"), log_mask=drawn.get("memory_mask")),
        dropout_key=torch.arange(num, dtype=torch.int32) * 77 - 5,
    )
    keys = Keys(valid=drawn.get("valid"), log_mask=drawn.get("log_mask"))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        if "num_masks" in drawn:
            row = None if "row" not in drawn else drawn["row"].repeat_interleave(MASKS)
            out = stack.forward_shared(drawn["x"], keys, MASKS, context, row)
        else:
            out = stack(drawn["x"], keys, context, drawn.get("row"))
    (out.double() * _draw(*out.shape, seed=9)).sum().backward()
    grads = {name: p.grad.clone() for name, p in stack.named_parameters() if p.grad is not None}
    return {"result": out.detach(), **grads, **{name: leaf.grad for name, leaf in leaves.items()}}


def _error(got: Tensor, exact: Tensor) -> float:
    """Of the whole tensor, relative to it."""
    assert torch.isfinite(got).all()
    return (torch.linalg.vector_norm(got.double() - exact) / torch.linalg.vector_norm(exact).clamp(min=1e-3)).item()


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the names of the sub-layers that ran fused; filled while the test runs."""
    names: list[str] = []
    for name in (
        "self_attention",
        "self_attention_of_row",
        "cross_attention",
        "cross_attention_of_row",
        "feed_forward",
    ):
        function = getattr(fused_stack, name)

        def spy(*args: Any, _name: str = name, _function: Any = function, **kwargs: Any) -> Tensor:
            names.append(_name)
            return _function(*args, **kwargs)

        monkeypatch.setattr(fused_stack, name, spy)
    return names


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_stack_of_fused_sublayers_is_the_stack(
    name: str, num_layers: int, fused_calls: list[str], poisoned_empty: None
) -> None:
    inputs = CASES[name]()
    got = _run(_stack("triton", torch.float32, num_layers=num_layers), inputs, torch.float32)
    attentions = ["self_attention", "cross_attention"][: 1 + ("memory" in inputs)]
    # of one block, which repeats its rows for each mask, all rows are computed
    is_one_row = "row" in inputs and not ("num_masks" in inputs and num_layers == 1)
    last = [f"{each}_of_row" if is_one_row else each for each in attentions] + ["feed_forward"]
    assert fused_calls == [*attentions, "feed_forward"] * (num_layers - 1) + last
    reference = _run(_stack("torch", torch.float32, num_layers=num_layers), inputs, torch.float32)
    exact = _run(_stack("torch", torch.float64, num_layers=num_layers), inputs, torch.float64)
    assert got.keys() == exact.keys() and len(got) > 12 * num_layers
    for part, value in got.items():
        assert value.dtype == reference[part].dtype and value.shape == exact[part].shape, part
        # measured: 9e-7 and 9e-7
        assert _error(value, exact[part]) <= max(2 * _error(reference[part], exact[part]), 2e-6), part


@pytest.mark.parametrize("name", CASES)
def test_in_bf16_the_error_is_no_larger_than_that_of_the_modules(name: str, poisoned_empty: None) -> None:
    inputs = CASES[name]()
    # of one block, as roundings of several add up
    got = _run(_stack("triton", torch.float32, num_layers=1), inputs, torch.float32, is_bf16=True)
    reference = _run(_stack("torch", torch.float32, num_layers=1), inputs, torch.float32, is_bf16=True)
    exact = _run(_stack("torch", torch.float64, num_layers=1), inputs, torch.float64)
    for part, value in got.items():
        assert value.dtype == reference[part].dtype, part
        assert _error(value, exact[part]) <= 2 * _error(reference[part], exact[part]) + 1e-2, part


@pytest.mark.parametrize("name", ["decoder", "one row of each mask"])
def test_in_bf16_gradients_of_what_all_blocks_read_add_up(name: str, poisoned_empty: None) -> None:
    inputs = CASES[name]()
    got = _run(_stack("triton", torch.float32), inputs, torch.float32, is_bf16=True)
    reference = _run(_stack("torch", torch.float32), inputs, torch.float32, is_bf16=True)
    exact = _run(_stack("torch", torch.float64), inputs, torch.float64)
    for part in ("memory", "memory_mask"):
        assert _error(got[part], exact[part]) <= 2 * _error(reference[part], exact[part]) + 1e-2, part


@pytest.mark.parametrize("name", ["decoder", "one row"])
def test_gradients_accumulate_in_the_optimizer_s_buffers(name: str) -> None:
    inputs, stack = CASES[name](), _stack("triton", torch.float32)
    optimizer = Adam(stack.parameters(), lr=0.0)
    first = _run(stack, inputs, torch.float32)
    # moves the parameters into the buffers, changes none of them, and leaves gradients of 0
    optimizer.step()
    buffers = {part: p.grad for part, p in stack.named_parameters()}
    for times in (1, 2):
        got = _run(stack, inputs, torch.float32)
        for part, p in stack.named_parameters():
            assert p.grad is buffers[part]
            assert_agree(part, got[part], times * first[part], rtol=1e-5, atol=1e-6)


def test_gradients_that_nobody_asked_for_are_left_alone() -> None:
    stack = _stack("triton", torch.float32)
    optimizer = Adam(stack.parameters(), lr=0.0)
    _run(stack, _plain(), torch.float32)
    optimizer.step()
    x = _plain()["x"].float().requires_grad_()
    out = stack(x, Keys(), Context()).sum()
    out.backward(inputs=[x, stack.blocks[1].expand.weight])
    changed = {name for name, p in stack.named_parameters() if p.grad is not None and p.grad.any()}
    assert changed == {"blocks.1.expand.weight"} and x.grad.any()


def test_frozen_parameters_and_inputs_get_no_gradient() -> None:
    stack, x = _stack("triton", torch.float32), _plain()["x"].float()
    stack.requires_grad_(False)
    stack.blocks[1].contract.bias.requires_grad_()
    stack(x, Keys(), Context()).pow(2).sum().backward()
    assert stack.blocks[1].contract.bias.grad.any()
    assert [name for name, p in stack.named_parameters() if p.grad is not None] == ["blocks.1.contract.bias"]


def test_copies_of_weights_follow_every_change_of_a_parameter() -> None:
    inputs, stack = CASES["encoder"](), _stack("triton", torch.float32)
    # by torch, because the interpreter does not round an update's copies but cuts them off
    optimizer = Adam(stack.parameters(), lr=0.5, backend="torch")
    other = {name: value * 1.5 for name, value in stack.state_dict().items()}
    for change in (lambda: None, optimizer.step, lambda: stack.load_state_dict(other), optimizer.step):
        change()
        fresh = _stack("triton", torch.float32)
        fresh.load_state_dict(stack.state_dict())
        got, expected = (_run(each, inputs, torch.float32, is_bf16=True) for each in (stack, fresh))
        assert torch.equal(got["result"], expected["result"])


def test_a_second_derivative_is_refused() -> None:
    stack, x = _stack("triton", torch.float32), _plain()["x"].float().requires_grad_()
    (grad,) = torch.autograd.grad(stack(x, Keys(), Context()).sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="has no gradient of its own"):
        grad.sum().backward()


@pytest.mark.parametrize("name", ["decoder", "one row"])
def test_two_runs_agree_bitwise(name: str) -> None:
    inputs = CASES[name]()
    one, other = (_run(_stack("triton", torch.float32), inputs, torch.float32, is_bf16=True) for _ in range(2))
    assert all(torch.equal(one[part], other[part]) for part in one)
