"""Post-LN blocks: who sees whom, and the order of sub-layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.transformer import (
    Block,
    Context,
    Keys,
    MultiHeadAttention,
    Stack,
    repeat,
    take_row,
    uses_weight_absorption,
)
from pps_fast.model import PPS
from tests.support.cases import SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree

CONFIG = small_config()
WIDTH = CONFIG.encoder.hidden_dim


def _stack(has_memory: bool, num_layers: int = 2) -> Stack:
    stack = randomize(Stack(CONFIG, num_layers, has_memory).double())
    number_sites(stack)
    return stack


def _context(memory: Tensor | None = None, keys: Keys | None = None, dropout_key: Tensor | None = None) -> Context:
    return Context(memory=memory, memory_keys=keys or Keys(), dropout_key=dropout_key)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_later_token_does_not_change_earlier_outputs(has_memory: bool) -> None:
    stack, x = _stack(has_memory), _draw(2, 6, WIDTH)
    context = _context(_draw(2, 4, WIDTH, seed=1) if has_memory else None)
    changed = x.clone()
    changed[:, 4] += 1
    before, after = stack(x, Keys(), context), stack(changed, Keys(), context)
    assert_agree("earlier", after[:, :4], before[:, :4], atol=1e-13)
    assert ((after - before)[:, 4:].abs().amax((0, 2)) > 1e-3).all()


def test_memory_is_seen_by_every_token_but_its_padding_by_none() -> None:
    stack, x, memory = _stack(True), _draw(2, 3, WIDTH), _draw(2, 5, WIDTH, seed=1)
    valid = torch.tensor([[True] * 3 + [False] * 2]).expand(2, -1)
    before = stack(x, Keys(), _context(memory, Keys(valid=valid)))
    padding, word = memory.clone(), memory.clone()
    padding[:, 3:] += 7
    word[:, 2] += 7
    assert_agree("padding", stack(x, Keys(), _context(padding, Keys(valid=valid))), before)
    assert ((stack(x, Keys(), _context(word, Keys(valid=valid))) - before).abs().amax((0, 2)) > 1e-3).all()


def test_a_stack_with_weights_for_a_memory_is_one_without_where_it_gets_none() -> None:
    stack, x, other = _stack(True), _draw(2, 4, WIDTH), Stack(CONFIG, 2, has_memory=False).double()
    other.load_state_dict({name: value for name, value in stack.state_dict().items() if ".cross_" not in name})
    assert_agree("rows", stack(x, Keys(), _context()), other(x, Keys(), _context()), atol=1e-14)
    row = torch.tensor([3, 1])
    assert_agree("row", stack(x, Keys(), _context(), row), other(x, Keys(), _context(), row), atol=1e-14)


def test_tokens_that_are_not_keys_change_only_their_own_row() -> None:
    stack, x = _stack(False), _draw(2, 6, WIDTH)
    valid = torch.tensor([True, True, False, True, True, True]).expand(2, -1)
    changed = x.clone()
    changed[:, 2] += 1
    before, after = stack(x, Keys(valid=valid), _context()), stack(changed, Keys(valid=valid), _context())
    others = [0, 1, 3, 4, 5]
    assert_agree("others", after[:, others], before[:, others])
    assert (after - before)[:, 2].abs().max() > 1e-3


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_mask_of_ones_is_no_mask(has_memory: bool) -> None:
    stack, x = _stack(has_memory), _draw(2, 5, WIDTH)
    memory = _draw(2, 5, WIDTH, seed=1) if has_memory else None
    ones = Keys(log_mask=torch.zeros(2, 5, dtype=torch.float64))
    got = stack(x, Keys() if has_memory else ones, _context(memory, ones))
    assert_agree("ones", got, stack(x, Keys(), _context(memory)), atol=1e-12)


def test_a_mask_conditions_both_kinds_of_attention() -> None:
    mask = Keys(log_mask=torch.tensor([[-23.0, 0.0, -23.0, 0.0, -23.0]]).double().expand(2, -1))
    x, memory = _draw(2, 5, WIDTH), _draw(2, 5, WIDTH, seed=1)
    plain, crossed = _stack(False), _stack(True)
    assert (plain(x, mask, _context()) - plain(x, Keys(), _context())).abs().max() > 1e-3
    assert (crossed(x, Keys(), _context(memory, mask)) - crossed(x, Keys(), _context(memory))).abs().max() > 1e-3


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_block_normalizes_after_each_residual(has_memory: bool) -> None:
    block = randomize(Block(CONFIG, has_memory).double(), seed=3)
    x, memory = _draw(2, 4, WIDTH), _draw(2, 3, WIDTH, seed=1)

    def normalized(norm: torch.nn.Module, summed: Tensor) -> Tensor:
        return F.layer_norm(summed, (WIDTH,), norm.weight, norm.bias, 1e-5)

    expected = normalized(block.self_norm, x + block.self_attention(x, None, Keys()))
    if has_memory:
        expected = normalized(block.cross_norm, expected + block.cross_attention(expected, memory, Keys()))
    ffn = F.relu(expected @ block.expand.weight.T + block.expand.bias) @ block.contract.weight.T + block.contract.bias
    expected = normalized(block.ffn_norm, expected + ffn)
    context = _context(memory if has_memory else None)
    assert_agree("block", block(x, Keys(), context), expected, atol=1e-13)
    plain = (block(x, Keys(), context) - block.ffn_norm.bias) / block.ffn_norm.weight
    assert_agree("mean", plain.mean(-1), torch.zeros(2, 4).double(), atol=1e-12)


def test_heads_are_independent_slices_of_the_packed_projection() -> None:
    attention = randomize(MultiHeadAttention(CONFIG).double())
    x = _draw(1, 3, WIDTH)
    query, key, value = (x @ attention.in_proj_weight.T + attention.in_proj_bias).split(WIDTH, -1)
    size = WIDTH // CONFIG.encoder.num_heads
    rows = []
    for first in range(0, WIDTH, size):
        part = slice(first, first + size)
        scores = query[0, :, part] @ key[0, :, part].T / size**0.5
        rows.append(scores.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1) @ value[0, :, part])
    expected = torch.cat(rows, -1) @ attention.out_proj.weight.T + attention.out_proj.bias
    assert_agree("attention", attention(x, None, Keys())[0], expected, atol=1e-13)


@pytest.mark.parametrize("num_queries", [1, 3])
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("has_valid", [False, True])
def test_weight_absorption_changes_no_result_and_no_gradient(num_queries: int, has_mask: bool, has_valid: bool) -> None:
    log_mask = -_draw(2, 40, seed=5).abs() * 5 if has_mask else None
    keys = Keys(valid=torch.arange(40) < torch.tensor([[40], [7]]) if has_valid else None, log_mask=log_mask)
    results = []
    for schedule in ("shared", "plain"):
        config = small_config(reconstructor__schedule=schedule)
        attention = randomize(MultiHeadAttention(config).double())
        leaves = [_draw(2, num_queries, WIDTH).requires_grad_(), _draw(2, 40, WIDTH, seed=1).requires_grad_()]
        assert uses_weight_absorption(config, num_queries, 40, "cpu") == (schedule == "shared")
        output = attention(*leaves, keys)
        grads = torch.autograd.grad((output * _draw(*output.shape, seed=2)).sum(), [*leaves, *attention.parameters()])
        results.append([output, *grads])
    for got, expected in zip(*results, strict=True):
        assert_agree("absorbed", got, expected, atol=1e-11)


def test_weights_are_absorbed_only_where_that_needs_fewer_flops() -> None:
    assert uses_weight_absorption(CONFIG, 1, 40, "cpu")
    assert not uses_weight_absorption(CONFIG, 40, 40, "cpu")
    assert not uses_weight_absorption(CONFIG, 1, 40, "cuda")
    assert not uses_weight_absorption(small_config(backend="triton"), 1, 40, "cpu")


def test_initial_weights_are_those_of_the_published_code() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(small_config(encoder__hidden_dim=64))
    # xavier over the packed [3 D, D] matrix
    bound = (6 / (4 * 64)) ** 0.5
    largest = attention.in_proj_weight.abs().max().item()
    assert 0.99 * bound < largest <= bound
    for bias in (attention.in_proj_bias, attention.out_proj.bias):
        assert_agree("bias", bias, torch.zeros_like(bias))


DROPOUT_KEY = torch.tensor([11, -12, 13, 14, -15, 16], dtype=torch.int32)


def test_dropout_needs_a_key_and_every_sub_layer_has_its_own() -> None:
    stack, x = _stack(False), _draw(2, 5, WIDTH)
    context = _context(dropout_key=DROPOUT_KEY[:2])
    assert_agree("again", stack(x, Keys(), context), stack(x, Keys(), context))
    assert (stack(x, Keys(), context) - stack(x, Keys(), _context())).abs().max() > 1e-3
    before = stack(x, Keys(), context)
    sites = [norm.site for block in stack.blocks for norm in (block.self_norm, block.ffn_norm)]
    assert sites == [0, 1, 2, 3]
    for block in stack.blocks:
        for norm in (block.self_norm, block.ffn_norm):
            norm.site += 10
            assert (stack(x, Keys(), context) - before).abs().max() > 1e-3
            norm.site -= 10


def test_rows_are_repeated_per_mask_and_taken_one_by_one() -> None:
    x = _draw(2, 3, 4)
    assert torch.equal(repeat(x, 3), x[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(take_row(x, torch.tensor([2, 0])), torch.stack((x[0, 2:3], x[1, 0:1])))


def _masked(has_mask: bool, has_valid: bool, num_masks: int = 3) -> tuple[Keys, Keys]:
    """Keys of 2 samples under N masks, and of the 2 N sequences that they stand for."""
    log_mask = -_draw(2, num_masks, 5, seed=4).abs() * 3 if has_mask else None
    valid = torch.arange(5) < torch.tensor([[5], [3]]) if has_valid else None
    flat = Keys(
        valid=None if valid is None else repeat(valid, num_masks),
        log_mask=None if log_mask is None else log_mask.flatten(0, 1),
    )
    return Keys(valid=torch.ones(2, 5).bool() if valid is None else valid, log_mask=log_mask), flat


@pytest.mark.parametrize("dropout_key", [None, DROPOUT_KEY], ids=["plain", "dropout"])
@pytest.mark.parametrize("has_valid", [True, False])
@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_one_row_is_that_of_all(num_layers: int, has_memory: bool, has_valid: bool, dropout_key: Tensor | None) -> None:
    stack, x = _stack(has_memory, num_layers), repeat(_draw(2, 5, WIDTH), 3)
    _, flat = _masked(has_mask=True, has_valid=has_valid)
    context = _context(_draw(6, 4, WIDTH, seed=1) if has_memory else None, dropout_key=dropout_key)
    # no valid row is behind it
    row = torch.tensor([4, 4, 4, 2, 3, 4]) if has_valid else torch.full((6,), 4)
    expected = stack(x, flat, context)[torch.arange(6), row]
    assert_agree("row", stack(x, flat, context, row).squeeze(1), expected, atol=1e-12)


@pytest.mark.parametrize("dropout_key", [None, DROPOUT_KEY], ids=["plain", "dropout"])
@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_what_masks_share_is_what_each_would_have(
    num_layers: int, has_memory: bool, has_mask: bool, dropout_key: Tensor | None
) -> None:
    stack, x = _stack(has_memory, num_layers), _draw(2, 5, WIDTH).requires_grad_()
    keys, flat = _masked(has_mask, has_valid=True)
    context = _context(_draw(6, 4, WIDTH, seed=1) if has_memory else None, dropout_key=dropout_key)
    got, expected = stack.forward_shared(x, keys, 3, context), stack(repeat(x, 3), flat, context)
    assert_agree("all rows", got, expected, atol=1e-12)
    row = torch.tensor([4, 4, 4, 2, 3, 4])
    one = stack.forward_shared(x, keys, 3, context, row)
    assert_agree("one row", one.squeeze(1), expected[torch.arange(6), row], atol=1e-12)
    upstream = _draw(6, 5, WIDTH, seed=7)
    wanted = [x, *stack.parameters()]
    grads = [torch.autograd.grad((value * upstream).sum(), wanted) for value in (got, expected)]
    for ours, theirs in zip(*grads, strict=True):
        assert_agree("gradient", ours, theirs, atol=1e-11, rtol=1e-12)


@pytest.mark.parametrize("preset", ["charades", "charades_released", "activitynet", "cnm", "cpl"])
def test_no_valid_row_lies_behind_the_only_one_that_is_wanted(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why the attention of that row hides nothing else."""
    wanted: list[Tensor] = []

    def spied(before: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def spy(stack: Stack, x: Tensor, keys: Keys, *others: Any) -> Tensor:
            if isinstance(others[-1], Tensor):
                row, valid = others[-1], keys.valid
                valid = valid.repeat_interleave(len(row) // len(valid), 0)
                assert not (valid & (torch.arange(valid.shape[1]) > row.unsqueeze(1))).any()
                wanted.append(row)
            return before(stack, x, keys, *others)

        return spy

    for name in ("forward", "forward_shared"):
        monkeypatch.setattr(Stack, name, spied(getattr(Stack, name)))
    PPS(small_config(preset), SIZES)(random_batch((3, 6), 6))
    assert wanted
