"""The transformer all stages share: post-LN blocks with causal, mask-conditioned self-attention.

Paper: Section 3, f_te, f_td (generator) and f_me, f_md (Eq. 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.dropout import ResidualNorm
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.shared_attention import shared_attention

# the hidden layer of the feed-forward network is this many times wider
FFN_EXPANSION = 2


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What may be attended to.

    Attributes:
        valid: [G, T] bool, False for padding; None when all keys are valid.
        log_mask: [G, T] log of the proposal's mask, on which the attention is conditioned (Eq. 8); None for no mask.
    """

    valid: Tensor | None = None
    log_mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the blocks of a stack read besides their own rows.

    Attributes:
        memory: [G, T, D] to attend to; without one, blocks that could attend to a memory leave that out.
        memory_keys: keys among memory.
        dropout_key: [G] int32 keys of the sequences' dropout; None for no dropout.
    """

    memory: Tensor | None = None
    memory_keys: Keys | None = None
    dropout_key: Tensor | None = None


def repeat(x: Tensor, num_masks: int) -> Tensor:
    """Repeats each sample once per mask: [B, ...] -> [B * N, ...]."""
    return x.unsqueeze(1).expand(-1, num_masks, *x.shape[1:]).flatten(0, 1)


def take_row(x: Tensor, row: Tensor) -> Tensor:
    """One row of each sequence: [G, n, D] at row [G] -> [G, 1, D]."""
    return x.gather(1, row[:, None, None].expand(-1, 1, x.shape[-1]))


def absorbs(config: PPSConfig, num_queries: int, num_keys: int, device_type: str) -> bool:
    """Whether an attention to a memory projects its queries instead of the memory: where that multiplies less.

    Part of the shared plan, on a CPU: a GPU is not bound by the arithmetic of products as small as these.
    """
    width, heads = config.encoder.hidden_dim, config.encoder.num_heads
    projected = 2 * num_keys * width**2 + 2 * num_queries * num_keys * width
    absorbed = 2 * num_queries * width**2 + 2 * num_queries * num_keys * width * heads
    is_asked = config.reconstructor.plan == "shared" and config.backend != "triton"
    return is_asked and device_type == "cpu" and absorbed < projected


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
        """Query of x, key and value of memory, of x itself without one; each [G, H, n, D / H]."""
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
        if memory is not None and absorbs(self.config, x.shape[1], memory.shape[1], x.device.type):
            return self._absorbed(x, memory, keys)
        attended = masked_attention(
            *self._projected(x, memory),
            key_bias=keys.log_mask,
            key_valid=keys.valid,
            causal=memory is None,
            backend=self.backend,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _absorbed(self, x: Tensor, memory: Tensor, keys: Keys) -> Tensor:
        """`forward` to a memory, with its projections taken to the other side of the two products.

        (x W_q)(memory W_k)^T = (x W_q W_k^T) memory^T, and shares (memory W_v) = (shares memory) W_v; the bias of the
        keys adds the same to all scores of a query, and that of the values is added once, as shares sum to 1.
        """
        num, queries, width = x.shape
        of_query, of_key, of_value = self.in_proj_weight.view(3, self.num_heads, -1, width).unbind(0)  # [H, h, D]
        query_bias, _, value_bias = self.in_proj_bias.chunk(3)
        query = F.linear(x, of_query.flatten(0, 1), query_bias).view(num * queries, self.num_heads, -1)
        # the attention divides by the root of D instead of D / H
        query = (query * self.num_heads**0.5).transpose(0, 1) @ of_key  # [H, G * n, D]
        query = query.view(self.num_heads, num, queries, width).transpose(0, 1).flatten(1, 2)  # [G, H * n, D]
        rows = masked_attention(
            *(part.unsqueeze(1) for part in (query, memory, memory)),
            key_bias=keys.log_mask,
            key_valid=keys.valid,
            backend=self.backend,
        )
        rows = rows.view(num, self.num_heads, queries, width).transpose(0, 1).flatten(1, 2)  # [H, G * n, D]
        attended = (rows @ of_value.transpose(1, 2)).transpose(0, 1).flatten(1) + value_bias
        return self.out_proj(attended.view(num, queries, width))

    def under_masks(self, x: Tensor, valid: Tensor, log_masks: Tensor) -> Tensor:
        """Attends causally from x to itself under N masks at once, with one projection for all.

        Args:
            x: [B, n, D].
            valid: [B, n] bool.
            log_masks: [B, N, n].
        Returns:
            [B * N, n, D], what `forward` gives for x repeated and each mask.
        """
        attended = shared_attention(
            *self._projected(x, None), key_bias=log_masks, key_valid=valid, causal=True, backend=self.backend
        )
        return self.out_proj(attended.transpose(2, 3).flatten(3)).flatten(0, 1)


class Block(nn.Module):
    """x <- LN(x + SelfAtt(x)); with memory, x <- LN(x + CrossAtt(x, memory)); x <- LN(x + FFN(x)).

    Dropout lies on each branch, before the sum. A block that has the weights for a memory runs without one, too: a
    transformer that generator and reconstructor share attends from frames to words in one, from words to frames in the
    other.
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

    def forward(self, x: Tensor, own_keys: Keys, context: Context) -> Tensor:
        """[G, n, D] -> [G, n, D]."""
        x = self.self_norm(x, self.self_attention(x, None, own_keys), context.dropout_key)
        return self._rest(x, context)

    def under_masks(self, x: Tensor, own_keys: Keys, num_masks: int, context: Context) -> Tensor:
        """What `forward` gives for x [B, n, D] repeated for N masks, [B * N, n, D], without repeating the attention.

        Args:
            own_keys: valid [B, n]; log_mask [B, N, n], or None where the masks condition the memory only.
            context: of the B * N sequences.
        """
        if own_keys.log_mask is None:
            attended = repeat(self.self_attention(x, None, own_keys), num_masks)
        else:
            attended = self.self_attention.under_masks(x, own_keys.valid, own_keys.log_mask)
        return self._rest(self.self_norm(repeat(x, num_masks), attended, context.dropout_key), context)

    def at_row(self, x: Tensor, row: Tensor, own_keys: Keys, context: Context) -> Tensor:
        """One row of what `forward` gives: [G, n, D] at row [G] -> [G, 1, D]."""
        past = torch.arange(x.shape[1], device=x.device) <= row.unsqueeze(1)
        keys = Keys(valid=past if own_keys.valid is None else past & own_keys.valid, log_mask=own_keys.log_mask)
        here = take_row(x, row)
        here = self.self_norm(here, self.self_attention(here, x, keys), context.dropout_key, row)
        return self._rest(here, context, row)

    def _rest(self, x: Tensor, context: Context, first_row: Tensor | None = None) -> Tensor:
        """Cross-attention and feed-forward network."""
        key = context.dropout_key
        if self.cross_attention is not None and context.memory is not None:
            x = self.cross_norm(x, self.cross_attention(x, context.memory, context.memory_keys), key, first_row)
        return self.ffn_norm(x, self.contract(F.relu(self.expand(x), inplace=True)), key, first_row)


class Stack(nn.Module):
    """A stack of blocks, with weights for attending to a memory or without."""

    def __init__(self, config: PPSConfig, num_layers: int, has_memory: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, has_memory) for _ in range(num_layers))

    def forward(self, x: Tensor, own_keys: Keys, context: Context) -> Tensor:
        """Runs the blocks in turn.

        Args:
            x: [G, n, D].
            own_keys: keys among x.
            context: memory, for a stack that can attend to one, and dropout.
        Returns:
            [G, n, D].
        """
        for block in self.blocks:
            x = block(x, own_keys, context)
        return x

    def at_row(self, x: Tensor, row: Tensor, own_keys: Keys, context: Context) -> Tensor:
        """One row of what `forward` gives, [G, D]: the last block has no work for the others."""
        for block in self.blocks[:-1]:
            x = block(x, own_keys, context)
        return self.blocks[-1].at_row(x, row, own_keys, context).squeeze(1)

    def under_masks(
        self, x: Tensor, own_keys: Keys, num_masks: int, context: Context, row: Tensor | None = None
    ) -> Tensor:
        """What `forward` gives for x [B, n, D] repeated for N masks; the first attention is done once per sample.

        Args:
            own_keys: valid [B, n]; log_mask [B, N, n] or None.
            context: of the B * N sequences.
            row: [B * N] the only row that is wanted of each sequence, or None for all.
        Returns:
            [B * N, n, D], or [B * N, 1, D].
        """
        x = self.blocks[0].under_masks(x, own_keys, num_masks, context)
        log_mask = None if own_keys.log_mask is None else own_keys.log_mask.flatten(0, 1)
        keys = Keys(valid=repeat(own_keys.valid, num_masks), log_mask=log_mask)
        rest = self.blocks[1:]
        for block in rest if row is None else rest[:-1]:
            x = block(x, keys, context)
        if row is None:
            return x
        return rest[-1].at_row(x, row, keys, context) if rest else take_row(x, row)
