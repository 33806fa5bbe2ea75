"""The transformer all stages share: post-LN blocks with causal, mask-conditioned self-attention.

Paper: Section 3, f_te, f_td (generator) and f_me, f_md (Eq. 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.ops.masked_attention import masked_attention

# the hidden layer of the feed-forward network is this many times wider
FFN_EXPANSION = 2


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What may be attended to.

    Attributes:
        valid: [G, T] bool, False for padding; None when all keys are valid.
        mask: [G, T] in [0, 1], the proposal the attention is conditioned on (Eq. 8); None for no mask.
    """

    valid: Tensor | None = None
    mask: Tensor | None = None


class MultiHeadAttention(nn.Module):
    """Multi-head attention with one packed projection for query, key and value."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.num_heads = config.encoder.num_heads
        self.backend = config.backend
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def _heads(self, x: Tensor) -> Tensor:
        """[G, n, D] -> [G, H, n, D / H]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor | None, keys: Keys) -> Tensor:
        """Attends from x to memory, or causally to x itself when memory is None.

        Args:
            x: [G, n, D].
            memory: [G, T, D] or None.
            keys: of memory, or of x.
        Returns:
            [G, n, D].
        """
        if memory is None:
            query, key, value = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            width = x.shape[-1]
            weights, biases = self.in_proj_weight.split((width, 2 * width)), self.in_proj_bias.split((width, 2 * width))
            query = F.linear(x, weights[0], biases[0])
            key, value = F.linear(memory, weights[1], biases[1]).chunk(2, -1)
        attended = masked_attention(
            self._heads(query),
            self._heads(key),
            self._heads(value),
            key_mask=keys.mask,
            key_valid=keys.valid,
            causal=memory is None,
            backend=self.backend,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x <- LN(x + SelfAtt(x)); with memory, x <- LN(x + CrossAtt(x, memory)); x <- LN(x + FFN(x)).

    Dropout lies on each branch, before the sum.
    """

    def __init__(self, config: PPSConfig, has_memory: bool) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.dropout = nn.Dropout(config.encoder.dropout)
        self.self_attention = MultiHeadAttention(config)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(config) if has_memory else None
        self.cross_norm = nn.LayerNorm(width) if has_memory else None
        self.expand = nn.Linear(width, FFN_EXPANSION * width)
        self.contract = nn.Linear(FFN_EXPANSION * width, width)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, own_keys: Keys, memory: Tensor | None, memory_keys: Keys | None) -> Tensor:
        """[G, n, D] -> [G, n, D]."""
        x = self.self_norm(x + self.dropout(self.self_attention(x, None, own_keys)))
        if self.cross_attention is not None:
            x = self.cross_norm(x + self.dropout(self.cross_attention(x, memory, memory_keys)))
        return self.ffn_norm(x + self.dropout(self.contract(F.relu(self.expand(x)))))


class Stack(nn.Module):
    """A stack of blocks, with cross-attention to a memory or without."""

    def __init__(self, config: PPSConfig, num_layers: int, has_memory: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, has_memory) for _ in range(num_layers))

    def forward(
        self, x: Tensor, own_keys: Keys, memory: Tensor | None = None, memory_keys: Keys | None = None
    ) -> Tensor:
        """Runs the blocks in turn.

        Args:
            x: [G, n, D].
            own_keys: keys among x.
            memory: [G, T, D], for a stack with memory.
            memory_keys: keys among memory.
        Returns:
            [G, n, D].
        """
        for block in self.blocks:
            x = block(x, own_keys, memory, memory_keys)
        return x
