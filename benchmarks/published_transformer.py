"""The published code's transformer: attention with a multiplicative mask, post-LN layers, two stacks.

"Item n" is a number of the list of facts about the published code; attributes have the names of its state dict.
Shapes are in the legend of `pps_fast.types`; G is a number of sequences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# what an attention weight keeps where the proposal's mask is 0 (item 13)
MASK_FLOOR = 1e-10
# score of padding (item 12)
PADDING_SCORE = -1e30


class Attention(nn.Module):
    """Multi-head attention with scores and weights in memory (items 11 to 13).

    a = softmax(scores); with a mask g, a'_j = a_j (g_j + 1e-10) / sum_i a_i (g_i + 1e-10) for all heads and queries.
    """

    def __init__(self, hidden_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def _project(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns query, key and value, one matrix product for each input."""
        if memory is None:
            return F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        sizes = (x.shape[-1], 2 * x.shape[-1])
        weights, biases = self.in_proj_weight.split(sizes), self.in_proj_bias.split(sizes)
        keys, value = F.linear(memory, weights[1], biases[1]).chunk(2, -1)
        return F.linear(x, weights[0], biases[0]), keys, value

    def _heads(self, x: Tensor) -> Tensor:
        """[G, n, D] -> [G H, n, D / H], a copy."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).flatten(0, 1)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        is_key: Tensor,
        key_mask: Tensor | None = None,
        future: Tensor | None = None,
    ) -> Tensor:
        """Attends from x to memory, or to x itself when memory is None.

        Args:
            x: [G, n, D].
            memory: [G, T, D] or None.
            is_key: [G, T] bool, False for padding.
            key_mask: [G, T] g in [0, 1]; None for no mask.
            future: [n, n] -inf where a key lies behind the query, else 0; None for no order.
        Returns:
            [G, n, D].
        """
        query, key, value = self._project(x, memory)
        query = query * (x.shape[-1] // self.num_heads) ** -0.5
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        scores = torch.bmm(query, key.transpose(1, 2)).unflatten(0, (-1, self.num_heads))  # [G, H, n, T]
        if future is not None:
            scores = scores + future
        scores = scores.masked_fill(~is_key[:, None, None], PADDING_SCORE)
        weights = torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), -1)
        if key_mask is not None:
            weights = weights * (key_mask + MASK_FLOOR)[:, None, None]
            weights = weights / weights.sum(-1, keepdim=True)
        attended = torch.bmm(weights.to(value.dtype).flatten(0, 1), value).unflatten(0, (-1, self.num_heads))
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """x <- LN(x + Drop(SelfAtt(x))); with a memory the same with CrossAtt(x, memory); then with the FFN (item 11).

    Every layer has a cross-attention, also in the two stacks that are never given a memory (item 14).
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.self_attn = Attention(hidden_dim, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(hidden_dim)
        self.encoder_attn = Attention(hidden_dim, num_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(hidden_dim)
        self.fc1 = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.fc2 = nn.Linear(2 * hidden_dim, hidden_dim)
        self.final_layer_norm = nn.LayerNorm(hidden_dim)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def forward(
        self,
        x: Tensor,
        is_key: Tensor,
        future: Tensor,
        key_mask: Tensor | None,
        memory: Tensor | None,
        is_memory_key: Tensor | None,
        memory_mask: Tensor | None,
    ) -> Tensor:
        """[G, n, D] -> [G, n, D]; self-attention is causal in every stack (item 12)."""
        attended = self.self_attn(x, None, is_key, key_mask, future)
        x = self.self_attn_layer_norm(x + self._drop(attended))
        if memory is not None:
            attended = self.encoder_attn(x, memory, is_memory_key, memory_mask)
            x = self.encoder_attn_layer_norm(x + self._drop(attended))
        expanded = F.relu(self.fc1(x))
        return self.final_layer_norm(x + self._drop(self.fc2(expanded)))


class Stack(nn.Module):
    """Layers in turn."""

    def __init__(self, num_layers: int, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.decoder_layers = nn.ModuleList(Layer(hidden_dim, num_heads, dropout) for _ in range(num_layers))
        self._future: Tensor | None = None

    def _future_scores(self, x: Tensor) -> Tensor:
        """[n, n] -inf above the diagonal, kept between calls."""
        length, kept = x.shape[1], self._future
        if kept is None or len(kept) < length or (kept.dtype, kept.device) != (x.dtype, x.device):
            kept = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
            self._future = kept
        return kept[:length, :length]

    def forward(
        self,
        x: Tensor,
        is_key: Tensor,
        key_mask: Tensor | None = None,
        memory: Tensor | None = None,
        is_memory_key: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Runs the layers.

        Args:
            x: [G, n, D].
            is_key: [G, n] bool.
            key_mask: [G, n] of the self-attention.
            memory: [G, T, D] for a stack with cross-attention.
            is_memory_key: [G, T] bool.
            memory_mask: [G, T] of the cross-attention.
        Returns:
            [G, n, D].
        """
        future = self._future_scores(x)
        for layer in self.decoder_layers:
            x = layer(x, is_key, future, key_mask, memory, is_memory_key, memory_mask)
        return x


class DualTransformer(nn.Module):
    """`decoder1` reads frames, `decoder2` words; either can be the memory of the other (item 14)."""

    def __init__(self, num_layers: tuple[int, int], hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.decoder1 = Stack(num_layers[0], hidden_dim, num_heads, dropout)
        self.decoder2 = Stack(num_layers[1], hidden_dim, num_heads, dropout)

    def summarize(self, frames: Tensor, is_frame: Tensor, words: Tensor, is_word: Tensor) -> Tensor:
        """The generator's order: words, then frames that look at them: -> [B, S + 1, D]."""
        memory = self.decoder2(words, is_word)
        return self.decoder1(frames, is_frame, memory=memory, is_memory_key=is_word)

    def rebuild(self, frames: Tensor, is_frame: Tensor, words: Tensor, is_word: Tensor, mask: Tensor | None) -> Tensor:
        """The reconstructor's order: masked frames, then words that look at them, masked again: -> [G, L + 2, D]."""
        memory = self.decoder1(frames, is_frame, key_mask=mask)
        return self.decoder2(words, is_word, memory=memory, is_memory_key=is_frame, memory_mask=mask)


class WordPositions:
    """Sinusoidal positions: pe(p) = [sin(p w), cos(p w)], w_i = exp(-i ln(10000) / (D / 2 - 1)), pe(0) = 0.

    The table is kept cut to the rows last asked for, so that the second pass over the words, which needs one row
    more than the first, makes it anew on the CPU and uploads it in every forward (item 10).
    """

    def __init__(self, hidden_dim: int) -> None:
        self.hidden_dim = hidden_dim
        self._table: Tensor | None = None

    def rows(self, count: int, like: Tensor) -> Tensor:
        """Returns [count, D] on the device of `like`, fp32 or fp64."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        if self._table is None or len(self._table) < count or self._table.dtype != dtype:
            half = self.hidden_dim // 2
            frequency = torch.exp(torch.arange(half, dtype=dtype) * (-math.log(10000) / (half - 1)))
            angle = torch.arange(count, dtype=dtype).unsqueeze(1) * frequency
            self._table = torch.cat((angle.sin(), angle.cos()), 1)
            self._table[0] = 0
        self._table = self._table.to(like.device)[:count]
        return self._table


class ImportanceWeights(nn.Module):
    """h_l = u^T tanh(W r_l), softmax over the components of one proposal (item 20)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.feat2att = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.to_alpha = nn.Linear(hidden_dim, 1, bias=False)
        self.fc = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, r_cls: Tensor) -> Tensor:
        """[B, k, D] -> [B, k], summing to 1."""
        weights = torch.softmax(self.to_alpha(torch.tanh(self.feat2att(r_cls))).squeeze(-1), -1)
        # computed and discarded, as in the published code
        self.fc(torch.bmm(weights.unsqueeze(1), r_cls).squeeze(1))
        return weights
