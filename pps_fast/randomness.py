"""Dropout as a function of counters: the same sample, mask, place and position drop the same value everywhere.

A decision depends on nothing but a key and the position it is made for: not on batch-mates, on the device, on the
backend or on what was computed before. A pass can therefore be computed twice, or for some of its masks or rows only,
with the dropout it had; the backward pass makes the decisions anew instead of storing them; and a resumed run needs no
state of a random number generator.

The hash is two multiplications and a shift of 32-bit words, with two 16-bit decisions in each:

    h = (p * STEP ^ key) * FIRST,  h ^= h >> 15,  h *= SECOND,  p the number of a pair of neighbours in a row-major row

int32 everywhere, because torch has no arithmetic for uint32: products wrap, shifts repeat the sign. The lower half of h
decides for the even neighbour, the upper half for the odd one: a value is kept where the half, as a signed word, is at
least 65,536 rate - 32,768. `mix` makes a key of a key and a counter by the same hash, the counter in the place of p.

The repeated sign costs a bit: h takes 2^31 values, and bit 31 of a key has no say in lower halves. So two of n keys
meet with probability n^2 / 2^32, in one pair of sequences among a whole batch's and at one place of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# odd constants of the golden ratio and of the public-domain murmur3 finaliser, as signed words
STEP, FIRST, SECOND = -1640531535, -2048144789, -1028477387
SHIFT = 15
# a decision is a 16-bit word
NUM_LEVELS = 1 << 16
# pairs decided at once on a CPU, so that they stay in its cache
_CHUNK = 1 << 18


def mix(key: Tensor, counter: Tensor | int) -> Tensor:
    """Returns new keys from int32 keys and counters: int32 too, of a shape that broadcasts, or one number."""
    step = _wrapped(counter * STEP) if isinstance(counter, int) else counter * STEP
    mixed = (key ^ step) * FIRST
    return (mixed ^ (mixed >> SHIFT)) * SECOND


def _wrapped(value: int) -> int:
    """An integer as a signed 32-bit word."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def num_dropped_levels(rate: float) -> int:
    """Returns how many of the 65,536 levels of a decision drop: `rate` rounded to that grid."""
    return round(rate * NUM_LEVELS)


def _decide(key: Tensor, pairs: Tensor, rate: float, out: Tensor) -> Tensor:
    """Writes 1 (True) for each value that is kept and 0 for the others into `out`, [G, 2 * pairs] of any dtype."""
    h = pairs ^ key.unsqueeze(-1)
    h.mul_(FIRST)
    h.bitwise_xor_(h >> SHIFT)
    h.mul_(SECOND)
    return torch.ge(h.view(torch.int16), num_dropped_levels(rate) - NUM_LEVELS // 2, out=out)


def _pairs_of(shape: tuple[int, int], first_row: Tensor | None, device: torch.device) -> Tensor:
    """p * STEP of the pairs of rows [n, D]: [pairs] without `first_row`, else [G, pairs]."""
    num_rows, width = shape
    pairs = torch.arange((num_rows * width + 1) // 2, dtype=torch.int32, device=device) * STEP
    if first_row is None:
        return pairs
    if width % 2:
        raise ValueError(f"dropout: rows of {width} values with first_row: expected an even number, as pairs decide")
    return pairs + (first_row.to(torch.int32) * (width // 2 * STEP)).unsqueeze(-1)


def _chunks(key: Tensor, pairs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the keys that are worked on together, and their pairs."""
    step = max(_CHUNK // pairs.shape[-1], 1) if key.device.type == "cpu" else len(key)
    for first in range(0, len(key), step):
        chosen = slice(first, first + step)
        yield chosen, (pairs if pairs.dim() == 1 else pairs[chosen])


def _sum_with_kept(x: Tensor | None, branch: Tensor, key: Tensor, rate: float, first_row: Tensor | None) -> Tensor:
    """x + what is kept of branch [G, n, D], scaled; without x, the second term alone."""
    shape = (branch.shape[1], branch.shape[2])
    pairs = _pairs_of(shape, first_row, branch.device)
    scale = 1 / (1 - num_dropped_levels(rate) / NUM_LEVELS)
    result = torch.empty_like(branch, memory_format=torch.contiguous_format)
    num_values = shape[0] * shape[1]
    for chosen, own in _chunks(key, pairs):
        part = branch[chosen]
        kept = torch.empty(len(part), 2 * pairs.shape[-1], dtype=branch.dtype, device=branch.device)
        kept = _decide(key[chosen], own, rate, out=kept)[:, :num_values].view(part.shape)
        if x is None:
            torch.mul(part, kept.mul_(scale), out=result[chosen])
        else:
            torch.addcmul(x[chosen], part, kept, value=scale, out=result[chosen])
    return result


class _Dropout(torch.autograd.Function):
    """Scales what is kept by 1 / (share kept) and adds it to x; the backward pass decides again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor | None, branch: Tensor, key: Tensor, rate: float, first_row: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(key, first_row)
        ctx.has_sum, ctx.rate = x is not None, rate
        return _sum_with_kept(x, branch, key, rate, first_row)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        key, first_row = ctx.saved_tensors
        grad_branch = _Dropout.apply(None, grad, key, ctx.rate, first_row)
        return grad if ctx.has_sum else None, grad_branch, None, None, None


def dropout(branch: Tensor, key: Tensor | None, rate: float, first_row: Tensor | None = None) -> Tensor:
    """Drops values of sequences at a rate and scales the others, so that the expectation stays.

    Args:
        branch: [G, n, D].
        key: [G] int32; None drops nothing.
        rate: 0 to below 1, rounded to 1 / 65,536.
        first_row: [G] int64 position of the first of the n rows in its sequence, with D even; 0 when not given.
    Returns:
        [G, n, D].
    """
    if key is None or num_dropped_levels(rate) == 0:
        return branch
    return _Dropout.apply(None, branch, key, rate, first_row)


def add_dropout(x: Tensor, branch: Tensor, key: Tensor | None, rate: float, first_row: Tensor | None = None) -> Tensor:
    """x + dropout(branch), in x's dtype and without the intermediate result; arguments as `dropout`."""
    branch = branch.to(x.dtype)
    if key is None or num_dropped_levels(rate) == 0:
        return x + branch
    return _Dropout.apply(x, branch, key, rate, first_row)
