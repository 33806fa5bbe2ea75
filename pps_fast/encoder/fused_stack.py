"""A stack of transformer blocks over fused sub-layers, which stands in for that of modules where kernels serve it.

The blocks' modules hold the parameters and say what is computed; `ops/sublayers.py`, `ops/attention_sublayers.py` and
`ops/row_sublayer.py` compute the same. What all blocks read, the memory and the masks, is handed from one sub-layer to
the next, so that their gradients are added up where they are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pps_fast.encoder.dropout import ResidualNorm
from pps_fast.encoder.rows import take_row
from pps_fast.ops.attention_sublayers import cross_attention, self_attention
from pps_fast.ops.dispatch import wants_kernels
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.ops.row_sublayer import cross_attention_of_row, self_attention_of_row
from pps_fast.ops.shared_attention import shared_attention
from pps_fast.ops.sublayers import Dropout, Parameters, feed_forward

if TYPE_CHECKING:
    from pps_fast.encoder.transformer import Block, Context, Keys, MultiHeadAttention, Stack


def serves(stack: Stack, x: Tensor, keys: Keys, context: Context, num_masks: int | None) -> bool:
    """Whether all sub-layers of a stack can run fused on these inputs of `Stack.forward` or `Stack.forward_shared`.

    It looks at what the ops of the modules look at, so that fused and other stacks differ in no input they refuse.
    """
    block = _blocks(stack)[0]
    attention = block.self_attention
    if not wants_kernels(attention.backend, is_interpreted()) or torch.compiler.is_compiling():
        return False
    heads = attention._heads(x)
    if num_masks is None or keys.log_mask is None:
        reasons = masked_attention.reasons(heads, heads, heads, keys.log_mask, keys.valid)
    else:
        reasons = shared_attention.reasons(heads, heads, heads, keys.log_mask, keys.valid)
    if block.cross_attention is not None and context.memory is not None and context.memory_keys is not None:
        memory, of_memory = block.cross_attention._heads(context.memory), context.memory_keys
        # that of samples stands for their masks, which the op of the modules does not know
        valid = None if num_masks is not None else of_memory.valid
        reasons += masked_attention.reasons(memory, memory, memory, of_memory.log_mask, valid)
    norm = block.ffn_norm
    return not (reasons or residual_norm.reasons(x, x, norm.weight, norm.bias))


def _blocks(stack: Stack) -> list[Block]:
    return cast("list[Block]", list(stack.blocks))


def _parameters(first: tuple[Tensor, Tensor], second: nn.Linear, norm: ResidualNorm) -> Parameters:
    return Parameters(*first, second.weight, second.bias, norm.weight, norm.bias)


def _of_attention(attention: MultiHeadAttention, norm: ResidualNorm) -> Parameters:
    return _parameters((attention.in_proj_weight, attention.in_proj_bias), attention.out_proj, norm)


def _per_head(log_mask: Tensor | None, num_heads: int) -> Tensor | None:
    """[..., T] -> [G, H, T], all heads alike; or None."""
    return None if log_mask is None else log_mask.flatten(0, -2).unsqueeze(1).expand(-1, num_heads, -1)


def forward(
    stack: Stack, x: Tensor, keys: Keys, context: Context, row: Tensor | None = None, num_masks: int | None = None
) -> Tensor:
    """Arguments and result as `Stack.forward`; with `num_masks` as `Stack.forward_shared`."""
    blocks, ragged = _blocks(stack), context.ragged
    x = x if ragged is None else ragged.take(x)
    num_heads, num_blocks = blocks[0].self_attention.num_heads, len(blocks)
    memory, of_memory = context.memory, context.memory_keys
    memory_mask = None if of_memory is None else _per_head(of_memory.log_mask, num_heads)
    log_mask = keys.log_mask if num_masks is not None else _per_head(keys.log_mask, num_heads)

    def dropout(norm: ResidualNorm, row: Tensor | None) -> Dropout:
        places = ragged.place if ragged is not None and row is None else row
        return Dropout(context.dropout_key, norm.site, norm.rate, places)

    for number, block in enumerate(blocks):
        is_shared = num_masks is not None and number == 0
        # the last block computes no other row, but where it is the first that tells masks apart
        wanted = row if number == num_blocks - 1 and not is_shared else None
        parameters, ending = _of_attention(block.self_attention, block.self_norm), dropout(block.self_norm, wanted)
        if wanted is not None:
            x = self_attention_of_row(x, wanted, parameters, ending, (log_mask, keys.valid), num_heads, ragged)
        else:
            repeats = num_masks if is_shared else None
            x, log_mask = self_attention(x, parameters, ending, (log_mask, keys.valid), num_heads, repeats, ragged)
        log_mask = _per_head(log_mask, num_heads) if is_shared else log_mask
        norm = block.cross_norm
        if block.cross_attention is not None and norm is not None and memory is not None and of_memory is not None:
            parameters, chosen = _of_attention(block.cross_attention, norm), (memory_mask, of_memory.valid)
            arguments = (x, memory, parameters, dropout(norm, wanted), chosen, num_heads)
            if wanted is not None:
                x = cross_attention_of_row(*arguments)
            else:
                x, memory, memory_mask = cross_attention(*arguments, ragged)
        first = block.expand.weight, block.expand.bias
        x = feed_forward(x, _parameters(first, block.contract, block.ffn_norm), dropout(block.ffn_norm, wanted))
    if row is None or num_masks is None or num_blocks > 1:
        return x
    return take_row(x, row) if ragged is None else ragged.take_row(x, row)
