"""Fused sub-layers compute what the modules of a block compute: results and all gradients, with dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pps_fast.encoder import fused_block
from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.transformer import Block, Context, Keys
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
    """An encoder's block: rows under a mask, some of them padding."""
    valid = torch.arange(ROWS) < torch.tensor([[5], [3], [4]])
    return {"x": _draw(NUM, ROWS, WIDTH, seed=0), "log_mask": _draw(NUM, ROWS, seed=1) - 1, "valid": valid}


def _memory(num: int = NUM) -> Inputs:
    """What a decoder's block attends to."""
    valid = (torch.arange(MEMORY) < torch.tensor([[4], [2], [3]])).repeat_interleave(num // NUM, 0)
    return {
        "memory": _draw(num, MEMORY, WIDTH, seed=2),
        "memory_mask": _draw(num, MEMORY, seed=3),
        "memory_valid": valid,
    }


CASES: dict[str, Callable[[], Inputs]] = {
    "encoder": _plain,
    "decoder": lambda: {**_plain(), "log_mask": None, **_memory()},
    "decoder without masks or padding": lambda: {"x": _plain()["x"], "memory": _memory()["memory"]},
    "one row": lambda: {**_plain(), **_memory(), "row": torch.tensor([4, 1, 3])},
    "one row without memory": lambda: {**_plain(), "row": torch.tensor([4, 1, 3])},
    "masks": lambda: {**_plain(), "log_mask": _draw(NUM, MASKS, ROWS, seed=4), "num_masks": MASKS},
    "masks of the memory": lambda: {**_plain(), "log_mask": None, **_memory(NUM * MASKS), "num_masks": MASKS},
}


def _block(backend: str, dtype: torch.dtype, has_memory: bool = True) -> Block:
    block = randomize(Block(replace(CONFIG, backend=backend), has_memory).to(dtype))
    number_sites(block)
    # far from the ReLU's kink, on either side of it, where rounding does not decide what is zero
    with torch.no_grad():
        block.expand.bias.copy_(torch.tensor([6.0, -6.0]).repeat(len(block.expand.bias) // 2))
    return block


def _run(block: nn.Module, inputs: Inputs, dtype: torch.dtype, is_bf16: bool = False) -> dict[str, Tensor]:
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
        out = block(drawn["x"], keys, context, drawn.get("row"), drawn.get("num_masks"))
    (out.double() * _draw(*out.shape, seed=9)).sum().backward()
    grads = {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None}
    return {"result": out.detach(), **grads, **{name: leaf.grad for name, leaf in leaves.items()}}


def _error(got: Tensor, exact: Tensor) -> float:
    """Of the whole tensor, relative to it."""
    assert torch.isfinite(got).all()
    return (torch.linalg.vector_norm(got.double() - exact) / torch.linalg.vector_norm(exact).clamp(min=1e-3)).item()


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the names of the sub-layers that ran fused; filled while the test runs."""
    names: list[str] = []
    for name in ("self_attention", "self_attention_of_row", "cross_attention", "feed_forward"):
        function = getattr(fused_block, name)

        def spy(*args: Any, _name: str = name, _function: Any = function, **kwargs: Any) -> Tensor:
            names.append(_name)
            return _function(*args, **kwargs)

        monkeypatch.setattr(fused_block, name, spy)
    return names


@pytest.mark.parametrize("name", CASES)
def test_a_block_of_fused_sublayers_is_the_block(name: str, fused_calls: list[str], poisoned_empty: None) -> None:
    inputs = CASES[name]()
    got = _run(_block("triton", torch.float32), inputs, torch.float32)
    attentions = ["self_attention_of_row" if "row" in inputs else "self_attention"]
    attentions += ["cross_attention"] if "memory" in inputs else []
    assert fused_calls == [*attentions, "feed_forward"]
    reference = _run(_block("torch", torch.float32), inputs, torch.float32)
    exact = _run(_block("torch", torch.float64), inputs, torch.float64)
    assert got.keys() == exact.keys() and len(got) > 12
    for part, value in got.items():
        assert value.dtype == reference[part].dtype and value.shape == exact[part].shape, part
        # measured: 9e-7 and 9e-7
        assert _error(value, exact[part]) <= max(2 * _error(reference[part], exact[part]), 2e-6), part


@pytest.mark.parametrize("name", CASES)
def test_in_bf16_the_error_is_no_larger_than_that_of_the_modules(name: str, poisoned_empty: None) -> None:
    inputs = CASES[name]()
    got = _run(_block("triton", torch.float32), inputs, torch.float32, is_bf16=True)
    reference = _run(_block("torch", torch.float32), inputs, torch.float32, is_bf16=True)
    exact = _run(_block("torch", torch.float64), inputs, torch.float64)
    for part, value in got.items():
        assert value.dtype == reference[part].dtype, part
        assert _error(value, exact[part]) <= 2 * _error(reference[part], exact[part]) + 1e-2, part


def test_gradients_accumulate_in_the_optimizer_s_buffers() -> None:
    inputs, block = CASES["decoder"](), _block("triton", torch.float32)
    optimizer = Adam(block.parameters(), lr=0.0)
    first = _run(block, inputs, torch.float32)
    # moves the parameters into the buffers, changes none of them, and leaves gradients of 0
    optimizer.step()
    buffers = {name: p.grad for name, p in block.named_parameters()}
    for times in (1, 2):
        got = _run(block, inputs, torch.float32)
        for name, p in block.named_parameters():
            assert p.grad is buffers[name]
            assert_agree(name, got[name], times * first[name], rtol=1e-5, atol=1e-6)


def test_gradients_that_nobody_asked_for_are_left_alone() -> None:
    block = _block("triton", torch.float32)
    optimizer = Adam(block.parameters(), lr=0.0)
    _run(block, _plain(), torch.float32)
    optimizer.step()
    x = _plain()["x"].float().requires_grad_()
    out = block(x, Keys(), Context()).sum()
    out.backward(inputs=[x, block.expand.weight])
    changed = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.any()}
    assert changed == {"expand.weight"} and x.grad.any()


def test_frozen_parameters_and_inputs_get_no_gradient() -> None:
    block, x = _block("triton", torch.float32), _plain()["x"].float()
    block.requires_grad_(False)
    block.contract.bias.requires_grad_()
    block(x, Keys(), Context()).pow(2).sum().backward()
    assert block.contract.bias.grad.any()
    assert [name for name, p in block.named_parameters() if p.grad is not None] == ["contract.bias"]


def test_copies_of_weights_follow_every_change_of_a_parameter() -> None:
    inputs, block = CASES["encoder"](), _block("triton", torch.float32)
    optimizer = Adam(block.parameters(), lr=0.5, backend="triton")
    other = {name: value * 1.5 for name, value in block.state_dict().items()}
    for change in (lambda: None, optimizer.step, lambda: block.load_state_dict(other), optimizer.step):
        change()
        fresh = _block("triton", torch.float32)
        fresh.load_state_dict(block.state_dict())
        got, expected = (_run(each, inputs, torch.float32, is_bf16=True) for each in (block, fresh))
        assert torch.equal(got["result"], expected["result"])


def test_a_second_derivative_is_refused() -> None:
    block, x = _block("triton", torch.float32), _plain()["x"].float().requires_grad_()
    (grad,) = torch.autograd.grad(block(x, Keys(), Context()).sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="has no gradient of its own"):
        grad.sum().backward()


def test_two_runs_agree_bitwise() -> None:
    inputs = CASES["decoder"]()
    one, other = (_run(_block("triton", torch.float32), inputs, torch.float32, is_bf16=True) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
