"""The transformer that all stages share: post-LN blocks with causal, mask-conditioned self-attention.

Paper: Section 3, f_te, f_td (generator) and f_me, f_md (Eq. 8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder import fused_stack
from pps_fast.encoder.dropout import ResidualNorm
from pps_fast.encoder.rows import repeat as repeat
from pps_fast.encoder.rows import take_row as take_row
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.shared_attention import shared_attention
from pps_fast.ragged import Ragged

# the hidden layer of the feed-forward network is this many times wider
FFN_EXPANSION = 2


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of an attention: which are valid, and the mask that weights them.

    Attributes:
        valid: [G, T] bool, False for padding; None when all keys are valid.
        log_mask: [G, T] log of the proposal's mask, on which the attention is conditioned (Eq. 8); None for no mask.
    """

    valid: Tensor | None = None
    log_mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """Inputs that all blocks of a stack share: memory and dropout.

    Attributes:
        memory: [G, T, D] of the cross-attention; None skips it.
        memory_keys: which rows of the memory may be attended to.
        dropout_key: [G] int32 from which the sequences' dropout follows; None for no dropout.
        ragged: which rows of x are computed, and where they then lie; None for all. Only fused stacks can do so.
    """

    memory: Tensor | None = None
    memory_keys: Keys | None = None
    dropout_key: Tensor | None = None
    ragged: Ragged | None = None


def uses_weight_absorption(config: PPSConfig, num_queries: int, num_keys: int, device_type: str) -> bool:
    """Whether cross-attention folds the projections of key and value into the query (weight absorption).

    Only the shared schedule on a CPU does so, where it needs fewer FLOPs. On a GPU, products this small are not bound
    by their FLOPs.
    """
    width, heads = config.encoder.hidden_dim, config.encoder.num_heads
    projected = 2 * num_keys * width**2 + 2 * num_queries * num_keys * width
    absorbed = 2 * num_queries * width**2 + 2 * num_queries * num_keys * width * heads
    is_allowed = config.reconstructor.schedule == "shared" and config.backend != "triton"
    return is_allowed and device_type == "cpu" and absorbed < projected


def _absorbed_query(x: Tensor, of_query: Tensor, of_key: Tensor, query_bias: Tensor) -> Tensor:
    """Folds the key projection into the queries, which attend to unprojected memory: [G, n, D] -> [G, 1, H * n, D].

    (x W_q)(memory W_k)^T = (x W_q W_k^T) memory^T. The bias of the keys adds the same to all scores of a query, which
    the softmax does not see.

    Args:
        x: [G, n, D].
        of_query, of_key: [H, h, D] weights of the projections.
        query_bias: [D].
    """
    num, queries, width = x.shape
    heads = len(of_query)
    query = F.linear(x, of_query.flatten(0, 1), query_bias).view(num * queries, heads, -1)
    # the attention divides by the root of D instead of D / H
    query = (query * heads**0.5).transpose(0, 1) @ of_key  # [H, G * n, D]
    return query.view(heads, num, queries, width).transpose(0, 1).flatten(1, 2).unsqueeze(1)


def _absorbed_values(attended: Tensor, of_value: Tensor, value_bias: Tensor) -> Tensor:
    """Projects weighted sums of memory rows to the values of all heads: [G, 1, H * n, D] -> [G, n, D].

    shares (memory W_v) = (shares memory) W_v; the bias of the values is added once, as shares sum to 1.

    Args:
        attended: [G, 1, H * n, D].
        of_value: [H, h, D] weights of the projection.
        value_bias: [D].
    """
    heads, (num, _, rows, width) = len(of_value), attended.shape
    queries = rows // heads
    summed = attended.view(num, heads, queries, width).transpose(0, 1).flatten(1, 2)  # [H, G * n, D]
    values = (summed @ of_value.transpose(1, 2)).transpose(0, 1).flatten(1) + value_bias
    return values.view(num, queries, width)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with one packed projection for query, key and value."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.num_heads = config.encoder.num_heads
        self.backend = config.backend
        self.config = config
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def _heads(self, x: Tensor) -> Tensor:
        """[G, n, D] -> [G, H, n, D / H]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _projected(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, ...]:
        """Projects x to queries, and memory (x if there is none) to keys and values, each [G, H, n, h]."""
        if memory is None:
            parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            width = x.shape[-1]
            weights, biases = self.in_proj_weight.split((width, 2 * width)), self.in_proj_bias.split((width, 2 * width))
            parts = (F.linear(x, weights[0], biases[0]), *F.linear(memory, weights[1], biases[1]).chunk(2, -1))
        return tuple(self._heads(part) for part in parts)

    def forward(self, x: Tensor, memory: Tensor | None, keys: Keys) -> Tensor:
        """Attends from x to memory, or causally to x itself when memory is None.

        Args:
            x: [G, n, D].
            memory: [G, T, D] or None.
            keys: of memory, or of x.
        Returns:
            [G, n, D].
        """
        bias, valid = keys.log_mask, keys.valid
        if memory is not None and uses_weight_absorption(self.config, x.shape[1], memory.shape[1], x.device.type):
            weight = self.in_proj_weight.view(3, self.num_heads, -1, x.shape[-1])
            of_query, of_key, of_value = weight.unbind(0)  # [H, h, D]
            query_bias, _, value_bias = self.in_proj_bias.chunk(3)
            query = _absorbed_query(x, of_query, of_key, query_bias)
            # a view for each, because the order in which gradients of the memory are summed depends on it
            key, value = memory.unsqueeze(1), memory.unsqueeze(1)
            attended = masked_attention(query, key, value, key_bias=bias, key_valid=valid, backend=self.backend)
            return self.out_proj(_absorbed_values(attended, of_value, value_bias))
        query, key, value = self._projected(x, memory)
        is_causal = memory is None
        attended = masked_attention(
            query, key, value, key_bias=bias, key_valid=valid, causal=is_causal, backend=self.backend
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def forward_shared(self, x: Tensor, valid: Tensor | None, log_masks: Tensor) -> Tensor:
        """Attends causally from x to itself under N masks at once, with one projection for all.

        Args:
            x: [B, n, D].
            valid: [B, n] bool; None when all rows are valid.
            log_masks: [B, N, n].
        Returns:
            [B * N, n, D], the results of `forward` for x repeated and each mask.
        """
        query, key, value = self._projected(x, None)
        attended = shared_attention(
            query, key, value, key_bias=log_masks, key_valid=valid, causal=True, backend=self.backend
        )
        return self.out_proj(attended.transpose(2, 3).flatten(3)).flatten(0, 1)


class Block(nn.Module):
    """x <- LN(x + SelfAtt(x)); with memory, x <- LN(x + CrossAtt(x, memory)); x <- LN(x + FFN(x)).

    Dropout acts on each branch, before the sum. A block with cross-attention also runs without a memory: a transformer
    that generator and reconstructor share attends from frames to words in the generator, and from words to frames in
    the reconstructor.
    """

    def __init__(self, config: PPSConfig, has_memory: bool) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.self_attention = MultiHeadAttention(config)
        self.self_norm = ResidualNorm(config)
        self.cross_attention = MultiHeadAttention(config) if has_memory else None
        self.cross_norm = ResidualNorm(config) if has_memory else None
        self.expand = nn.Linear(width, FFN_EXPANSION * width)
        self.contract = nn.Linear(FFN_EXPANSION * width, width)
        self.ffn_norm = ResidualNorm(config)

    def forward(
        self, x: Tensor, keys: Keys, context: Context, row: Tensor | None = None, num_masks: int | None = None
    ) -> Tensor:
        """Runs the three sub-layers.

        Args:
            x: [G, n, D]; [B, n, D] with `num_masks`.
            keys: which rows of x may be attended to; with `num_masks`, valid [B, n] and log_mask [B, N, n] or None.
            context: of the G, or B * N, sequences.
            row: [G] the only row that is wanted of each sequence, behind which no row is valid; None for all n.
            num_masks: N, for x repeated once per mask; the self-attention's projections are computed once per sample.
        Returns:
            [G, n, D]; [G, 1, D] with `row`; [B * N, n, D] with `num_masks`.
        """
        dropout_key = context.dropout_key
        if row is not None:
            rows = take_row(x, row)
            # causal, as it sees all valid keys and none of these is behind it
            attended, x = self.self_attention(rows, x, keys), rows
        elif num_masks is None:
            attended = self.self_attention(x, None, keys)
        elif keys.log_mask is None:
            attended, x = repeat(self.self_attention(x, None, keys), num_masks), repeat(x, num_masks)
        else:
            attended = self.self_attention.forward_shared(x, keys.valid, keys.log_mask)
            x = repeat(x, num_masks)
        x = self.self_norm(x, attended, dropout_key, row)
        if self.cross_attention is not None and self.cross_norm is not None and context.memory is not None:
            attended = self.cross_attention(x, context.memory, context.memory_keys)
            x = self.cross_norm(x, attended, dropout_key, row)
        # not in place: the product is a view, of whose change autograd keeps books by copying it in the backward pass
        return self.ffn_norm(x, self.contract(F.relu(self.expand(x))), dropout_key, row)


class Stack(nn.Module):
    """A stack of blocks, with weights for attending to a memory or without."""

    def __init__(self, config: PPSConfig, num_layers: int, has_memory: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, has_memory) for _ in range(num_layers))

    def forward(self, x: Tensor, keys: Keys, context: Context, row: Tensor | None = None) -> Tensor:
        """Runs the blocks in turn.

        Args:
            x: [G, n, D].
            keys: which rows of x may be attended to.
            context: memory, for a stack that can attend to one, and dropout.
            row: [G] the only row that is wanted of each sequence, behind which no row is valid, so that the last block
                computes no other; or None.
        Returns:
            [G, n, D], or [G, 1, D] with `row`.
        """
        if fused_stack.serves(self, x, keys, context, None):
            return fused_stack.forward(self, x, keys, context, row)
        *others, last = self.blocks
        for block in others:
            x = block(x, keys, context)
        return last(x, keys, context, row)

    def forward_shared(
        self, x: Tensor, keys: Keys, num_masks: int, context: Context, row: Tensor | None = None
    ) -> Tensor:
        """`forward` for x repeated once per mask, with the first self-attention's projections once per sample.

        Args:
            x: [B, n, D].
            keys: valid [B, n] or None; log_mask [B, N, n], or None where the masks condition the memory only.
            num_masks: N.
            context: of the B * N sequences, but which rows of the memory are valid, [B, T] or None, of the samples.
            row: [B * N] the only row that is wanted of each sequence, behind which no row is valid; or None for all.
        Returns:
            [B * N, n, D], or [N, R, D] with `context.ragged`; [B * N, 1, D] with `row`.
        """
        if fused_stack.serves(self, x, keys, context, num_masks):
            return fused_stack.forward(self, x, keys, context, row, num_masks)
        if context.ragged is not None:
            raise RuntimeError("ragged rows: asked of a stack that is not fused")
        if context.memory_keys is not None and context.memory_keys.valid is not None:
            memory_keys = replace(context.memory_keys, valid=repeat(context.memory_keys.valid, num_masks))
            context = replace(context, memory_keys=memory_keys)
        first, *others = self.blocks
        x = first(x, keys, context, num_masks=num_masks)
        valid = None if keys.valid is None else repeat(keys.valid, num_masks)
        keys = Keys(valid=valid, log_mask=None if keys.log_mask is None else keys.log_mask.flatten(0, 1))
        for number, block in enumerate(others, 1):
            x = block(x, keys, context, row if number == len(others) else None)
        return take_row(x, row) if row is not None and not others else x
