"""A transformer block over fused sub-layers, which stands in for `Block.forward` where kernels serve all of it.

The block's modules hold the parameters and say what is computed; `ops/sublayers.py` computes the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pps_fast.encoder.dropout import ResidualNorm
from pps_fast.ops.dispatch import wants_kernels
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.ops.shared_attention import shared_attention
from pps_fast.ops.sublayers import (
    Dropout,
    Parameters,
    cross_attention,
    feed_forward,
    self_attention,
    self_attention_of_row,
)

if TYPE_CHECKING:
    from pps_fast.encoder.transformer import Block, Context, Keys, MultiHeadAttention


def serves(block: Block, x: Tensor, keys: Keys, context: Context, num_masks: int | None) -> bool:
    """Whether all sub-layers of a block can run fused on these inputs of `Block.forward`.

    It looks at what the ops of the modules look at, so that fused and other blocks differ in no input they refuse.
    """
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
        reasons += masked_attention.reasons(memory, memory, memory, of_memory.log_mask, of_memory.valid)
    norm = block.ffn_norm
    return not (reasons or residual_norm.reasons(x, x, norm.weight, norm.bias))


def _parameters(first: tuple[Tensor, Tensor], second: nn.Linear, norm: ResidualNorm) -> Parameters:
    return Parameters(*first, second.weight, second.bias, norm.weight, norm.bias)


def _of_attention(attention: MultiHeadAttention, norm: ResidualNorm) -> Parameters:
    return _parameters((attention.in_proj_weight, attention.in_proj_bias), attention.out_proj, norm)


def forward(block: Block, x: Tensor, keys: Keys, context: Context, row: Tensor | None, num_masks: int | None) -> Tensor:
    """Arguments and result as `Block.forward`."""

    def dropout(norm: ResidualNorm) -> Dropout:
        return Dropout(context.dropout_key, norm.site, norm.rate, row)

    parameters, ending = _of_attention(block.self_attention, block.self_norm), dropout(block.self_norm)
    num_heads = block.self_attention.num_heads
    if row is None:
        x = self_attention(x, parameters, ending, (keys.log_mask, keys.valid), num_heads, num_masks)
    else:
        # one row of a causal attention sees what is not behind it
        seen = keys.until(row, x.shape[1])
        x = self_attention_of_row(x, row, parameters, ending, (seen.log_mask, seen.valid), num_heads)
    of_memory, norm = context.memory_keys, block.cross_norm
    if block.cross_attention is not None and norm is not None and context.memory is not None and of_memory is not None:
        parameters, chosen = _of_attention(block.cross_attention, norm), (of_memory.log_mask, of_memory.valid)
        x = cross_attention(x, context.memory, parameters, dropout(norm), chosen, num_heads)
    first = block.expand.weight, block.expand.bias
    return feed_forward(x, _parameters(first, block.contract, block.ffn_norm), dropout(block.ffn_norm))
