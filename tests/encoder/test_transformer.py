"""Post-LN blocks: who sees whom, and the order of sub-layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.encoder.transformer import Block, Keys, MultiHeadAttention, Stack
from tests.cases import randomize, small_config
from tests.compare import assert_agree

CONFIG = small_config()
WIDTH = CONFIG.encoder.hidden_dim


def _stack(has_memory: bool, num_layers: int = 2) -> Stack:
    return randomize(Stack(CONFIG, num_layers, has_memory).double().eval())


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_later_token_does_not_change_earlier_outputs(has_memory: bool) -> None:
    stack, x = _stack(has_memory), _draw(2, 6, WIDTH)
    memory = (_draw(2, 4, WIDTH, seed=1), Keys()) if has_memory else ()
    changed = x.clone()
    changed[:, 4] += 1
    before, after = stack(x, Keys(), *memory), stack(changed, Keys(), *memory)
    assert_agree("earlier", after[:, :4], before[:, :4], atol=1e-13)
    assert ((after - before)[:, 4:].abs().amax((0, 2)) > 1e-3).all()


def test_memory_is_seen_by_every_token_but_its_padding_by_none() -> None:
    stack, x, memory = _stack(True), _draw(2, 3, WIDTH), _draw(2, 5, WIDTH, seed=1)
    valid = torch.tensor([[True] * 3 + [False] * 2]).expand(2, -1)
    before = stack(x, Keys(), memory, Keys(valid=valid))
    padding, word = memory.clone(), memory.clone()
    padding[:, 3:] += 7
    word[:, 2] += 7
    assert_agree("padding", stack(x, Keys(), padding, Keys(valid=valid)), before)
    assert ((stack(x, Keys(), word, Keys(valid=valid)) - before).abs().amax((0, 2)) > 1e-3).all()


def test_tokens_that_are_not_keys_change_only_their_own_row() -> None:
    stack, x = _stack(False), _draw(2, 6, WIDTH)
    valid = torch.tensor([True, True, False, True, True, True]).expand(2, -1)
    changed = x.clone()
    changed[:, 2] += 1
    before, after = stack(x, Keys(valid=valid)), stack(changed, Keys(valid=valid))
    others = [0, 1, 3, 4, 5]
    assert_agree("others", after[:, others], before[:, others])
    assert (after - before)[:, 2].abs().max() > 1e-3


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_mask_of_ones_is_no_mask(has_memory: bool) -> None:
    stack, x = _stack(has_memory), _draw(2, 5, WIDTH)
    memory = _draw(2, 5, WIDTH, seed=1) if has_memory else None
    ones = Keys(mask=torch.ones(2, 5, dtype=torch.float64))
    got = stack(x, Keys() if has_memory else ones, memory, ones)
    assert_agree("ones", got, stack(x, Keys(), memory, Keys()), atol=1e-12)


def test_a_mask_conditions_both_kinds_of_attention() -> None:
    mask = Keys(mask=torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]).double().expand(2, -1))
    x, memory = _draw(2, 5, WIDTH), _draw(2, 5, WIDTH, seed=1)
    own, crossed = _stack(False), _stack(True)
    assert (own(x, mask) - own(x, Keys())).abs().max() > 1e-3
    assert (crossed(x, Keys(), memory, mask) - crossed(x, Keys(), memory, Keys())).abs().max() > 1e-3


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_block_normalises_after_each_residual(has_memory: bool) -> None:
    block = randomize(Block(CONFIG, has_memory).double().eval(), seed=3)
    x, memory = _draw(2, 4, WIDTH), _draw(2, 3, WIDTH, seed=1)
    norms = [block.self_norm, block.ffn_norm] + ([block.cross_norm] if has_memory else [])
    expected = block.self_norm(x + block.self_attention(x, None, Keys()))
    if has_memory:
        expected = block.cross_norm(expected + block.cross_attention(expected, memory, Keys()))
    ffn = F.relu(expected @ block.expand.weight.T + block.expand.bias) @ block.contract.weight.T + block.contract.bias
    expected = block.ffn_norm(expected + ffn)
    assert_agree("block", block(x, Keys(), memory, Keys()), expected, atol=1e-13)
    assert {norm.eps for norm in norms} == {1e-5}
    plain = (block(x, Keys(), memory, Keys()) - block.ffn_norm.bias) / block.ffn_norm.weight
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


def test_initial_weights_are_those_of_the_published_code() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(small_config(encoder__hidden_dim=64))
    # xavier over the packed [3 D, D] matrix
    bound = (6 / (4 * 64)) ** 0.5
    largest = attention.in_proj_weight.abs().max().item()
    assert 0.99 * bound < largest <= bound
    for bias in (attention.in_proj_bias, attention.out_proj.bias):
        assert_agree("bias", bias, torch.zeros_like(bias))


def test_dropout_acts_in_training_only() -> None:
    stack, x = _stack(False), _draw(2, 5, WIDTH)
    assert_agree("eval", stack(x, Keys()), stack(x, Keys()))
    stack.train()
    torch.manual_seed(0)
    assert (stack(x, Keys()) - stack(x, Keys())).abs().max() > 1e-3
