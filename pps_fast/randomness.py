"""All randomness of training as functions of counters, and the one table of their streams.

The same sample draws the same numbers whatever its batch, the device, the backend and what was computed before. A pass
can therefore be computed twice, or for some of its masks or rows only, with the dropout it had; the backward pass makes
the decisions anew instead of storing them; and a resumed run needs no state of a random number generator.

There are two hash functions, because they run in two places and their numbers are part of every run made so far:

`counter_hash` (numpy, 64 bits, splitmix64) runs once per epoch on the CPU and has one round per counter. A number
follows from all of its counters in order, and from how many there are:

    counters                                   stream                          used by
    (seed, epoch, sample)                      order of the samples            data/sampler.py
    (seed, epoch, sample, WORD_COLUMNS)        noise that picks hidden words   gumbel_noise, data/store.py
    (seed, epoch, sample, SAMPLE_KEY)          the sample's dropout key        dropout_keys, data/store.py

`mix` (torch, 32 bits) runs on the device inside a step and in the kernels. All that follows from a dropout key is a
word of two rounds, mix(mix(dropout_key, first), second). The first counter names the stream, so that streams never
meet in a counter; the second counts inside the stream:

    first counter           second counter             stream                             used by
    SITES                   pair of neighbors p        which values a site drops          dropout, add_dropout, kernels
    -m, m in MASK_NUMBERS   m, the same                dropout key of mask m              mask_keys, model.py
    SECOND_UPDATE           SECOND_UPDATE              the sample's key in the second     train/alternating.py
                                                       update on a batch
    SECOND_NOISE            word column                hidden words of that update        train/alternating.py

The key of a mask or of the second update is used by the same table again. Words of different counters are equal only by
chance: see `mix`.

Initial weights and the embedded data set come from torch's and numpy's generators with the run's seed, before training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

# counters of `counter_hash` behind (seed, epoch, sample)
WORD_COLUMNS, SAMPLE_KEY = range(1 << 32), 1 << 32
# first counters of `mix` on a dropout key; those of masks are the negated numbers
SITES, MASK_NUMBERS = range(1 << 20), range(1, 1 << 20)
SECOND_UPDATE, SECOND_NOISE = 1 << 30, (1 << 30) + 1

# odd constants of the golden ratio and of the public-domain murmur3 finalizer, as signed words
STEP, FIRST, SECOND = -1640531535, -2048144789, -1028477387
SHIFT = 15
# a decision is a 16-bit word
NUM_LEVELS = 1 << 16
# pairs decided at once on a CPU, so that they stay in its cache
_CHUNK = 1 << 18

_WORD = (1 << 64) - 1
# increment and multipliers of the public-domain splitmix64 finalizer
_SPLITMIX_STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


# --- once per epoch, on the CPU -------------------------------------------------------------------


def counter_hash(*counters: ArrayLike) -> np.ndarray:
    """Mixes integers into 64 well-distributed bits, one splitmix64 round for each counter.

    Args:
        counters: integers or integer arrays that broadcast against each other; negative ones wrap to 64 bits.
            Their order matters, and so does their number.
    Returns:
        uint64 array of the broadcast shape (at least one-dimensional).
    """
    state = np.zeros(1, dtype=np.uint64)
    for counter in counters:
        state = _splitmix(state + (_as_word(counter) + np.uint64(1)) * _SPLITMIX_STEP)
    return state


def gumbel_noise(seed: int, epoch: int, sample_index: np.ndarray, num_columns: int) -> np.ndarray:
    """Standard Gumbel noise -log(-log(u)) with u hashed from (seed, epoch, sample, column).

    The n largest entries of log(p) + noise are a draw of n items without replacement with probabilities p.

    Args:
        seed: any integer.
        epoch: number of the pass over the data; a sample's noise changes from one to the next.
        sample_index: [B] integers, positions of the samples in their data set.
        num_columns: L, at most len(WORD_COLUMNS).
    Returns:
        [B, L] float32, finite, within -3.7 to 36.8; row b depends on sample_index[b] and on no other row.
    """
    samples = np.asarray(sample_index).reshape(-1, 1)
    bits = counter_hash(seed, epoch, samples, np.arange(num_columns).reshape(1, -1))
    # 52 bits and the half step fill a float64 exactly; one bit more would round the largest u up to 1
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return (-np.log(-np.log(uniform))).astype(np.float32)


def dropout_keys(seed: int, epoch: int, sample_index: np.ndarray) -> np.ndarray:
    """Dropout keys: the dropout of a sample in one pass over the data follows from its key.

    Args:
        seed, epoch, sample_index: as in `gumbel_noise`.
    Returns:
        [B] int32; entry b depends on sample_index[b] and on no other.
    """
    bits = counter_hash(seed, epoch, np.asarray(sample_index), SAMPLE_KEY)
    return (bits >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _as_word(counter: ArrayLike) -> np.ndarray:
    """Returns a counter as uint64 array of at least one dimension (scalars would warn when they wrap)."""
    if isinstance(counter, int):
        return np.array([counter & _WORD], dtype=np.uint64)
    return np.atleast_1d(np.asarray(counter)).astype(np.uint64)


def _splitmix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _MULTIPLIERS[0]
    state = (state ^ (state >> np.uint64(27))) * _MULTIPLIERS[1]
    return state ^ (state >> np.uint64(31))


# --- inside a step, on the device -----------------------------------------------------------------


def mix(dropout_key: Tensor, counter: Tensor | int) -> Tensor:
    """Hashes keys with counters: two multiplications and a shift of 32-bit words.

        h = (counter * STEP ^ dropout_key) * FIRST,  h ^= h >> 15,  h *= SECOND

    int32 everywhere, because torch has no arithmetic for uint32: products wrap, shifts repeat the sign. The repeated
    sign costs a bit: h takes 2^31 values, and bit 31 of a key does not affect the lower half of h. The probability that
    any two of n keys give the same decisions is n^2 / 2^32.

    Args:
        dropout_key: int32 of any shape.
        counter: int32 of a shape that broadcasts, or one number.
    Returns:
        int32 keys of the broadcast shape.
    """
    step = _wrapped(counter * STEP) if isinstance(counter, int) else counter * STEP
    mixed = (dropout_key ^ step) * FIRST
    return (mixed ^ (mixed >> SHIFT)) * SECOND


def _wrapped(value: int) -> int:
    """An integer as a signed 32-bit word."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def mask_keys(dropout_key: Tensor, num_masks: int) -> Tensor:
    """Dropout keys of the sequences that are reconstructed from the masks of each sample.

    The returned keys all differ from the sample's key, which its frame and word sequences use. Each is hashed twice so
    that it cannot collide with another stream of the same sample.

    Args:
        dropout_key: [B] int32 of the samples.
        num_masks: N, at most len(MASK_NUMBERS).
    Returns:
        [B, N] int32.
    """
    first = MASK_NUMBERS.start
    number = torch.arange(first, first + num_masks, dtype=torch.int32, device=dropout_key.device)
    return mix(mix(dropout_key.unsqueeze(1), -number), number)


def num_dropped_levels(rate: float) -> int:
    """Returns how many of the 65,536 levels of a decision drop: `rate` rounded to that grid."""
    return round(rate * NUM_LEVELS)


def _decide(dropout_key: Tensor, pairs: Tensor, rate: float, out: Tensor) -> Tensor:
    """Writes 1 (True) for each value that is kept and 0 for the others into `out`, [G, 2 * pairs] of any dtype.

    Pair p of neighbors in a row-major sequence has the word h = mix(dropout_key, p). Its lower half decides for the
    even neighbor, its upper half for the odd one: a value is kept where the half, as a signed word, is at least
    65,536 rate - 32,768.

    Args:
        dropout_key: [G] int32, already mixed with the site.
        pairs: p * STEP, [pairs] or [G, pairs] int32.
    """
    h = pairs ^ dropout_key.unsqueeze(-1)
    h.mul_(FIRST)
    h.bitwise_xor_(h >> SHIFT)
    h.mul_(SECOND)
    return torch.ge(h.view(torch.int16), num_dropped_levels(rate) - NUM_LEVELS // 2, out=out)


def _pairs_of(shape: tuple[int, int], first_row: Tensor | int, device: torch.device) -> Tensor:
    """p * STEP of the pairs that hold rows [n, D]: [pairs] where `first_row` is a number, else [G, pairs].

    The first value is the second of its pair where the rows begin at an odd value.
    """
    num_rows, width = shape
    begin = first_row * width if isinstance(first_row, int) else 0
    end = begin + num_rows * width
    pairs = torch.arange(begin // 2, (end + 1) // 2, dtype=torch.int32, device=device) * STEP
    if isinstance(first_row, int):
        return pairs
    if width % 2:
        raise ValueError(f"dropout: rows of {width} values with first_row: expected an even number, as pairs decide")
    return pairs + (first_row.to(torch.int32) * (width // 2 * STEP)).unsqueeze(-1)


def _chunks(dropout_key: Tensor, pairs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields slices of the keys that fit into the cache of a CPU, with their pairs."""
    step = max(_CHUNK // pairs.shape[-1], 1) if dropout_key.device.type == "cpu" else len(dropout_key)
    for first in range(0, len(dropout_key), step):
        chosen = slice(first, first + step)
        yield chosen, (pairs if pairs.dim() == 1 else pairs[chosen])


def _sum_with_kept(
    x: Tensor | None,
    branch: Tensor,
    dropout_key: Tensor,
    rate: float,
    first_row: Tensor | int,
    dtype: torch.dtype | None,
) -> Tensor:
    """Returns x + scaled branch with dropped values set to 0, [G, n, D]; without x, the second term alone."""
    shape = (branch.shape[1], branch.shape[2])
    pairs = _pairs_of(shape, first_row, branch.device)
    scale = 1 / (1 - num_dropped_levels(rate) / NUM_LEVELS)
    result = torch.empty_like(branch, dtype=dtype, memory_format=torch.contiguous_format)
    begin = first_row * shape[1] % 2 if isinstance(first_row, int) else 0
    values = slice(begin, begin + shape[0] * shape[1])
    for chosen, chunk_pairs in _chunks(dropout_key, pairs):
        part = branch[chosen]
        kept = torch.empty(len(part), 2 * pairs.shape[-1], dtype=branch.dtype, device=branch.device)
        kept = _decide(dropout_key[chosen], chunk_pairs, rate, out=kept)[:, values].view(part.shape)
        if x is None:
            torch.mul(part, kept.mul_(scale), out=result[chosen])
        else:
            torch.addcmul(x[chosen], part, kept, value=scale, out=result[chosen])
    return result


class _Dropout(torch.autograd.Function):
    """Scales kept values by 1 / (share kept) and adds them to x; the backward pass recomputes which are kept."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, branch, dropout_key, ctx.rate, first_row, _ = inputs
        is_number = isinstance(first_row, int)
        ctx.save_for_backward(dropout_key, None if is_number else first_row)
        ctx.first_row = first_row if is_number else 0
        ctx.has_sum, ctx.dtype = x is not None, branch.dtype
        return _sum_with_kept(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dropout_key, first_row = ctx.saved_tensors
        first_row = ctx.first_row if first_row is None else first_row
        grad_branch = _Dropout.apply(None, grad, dropout_key, ctx.rate, first_row, ctx.dtype)
        return grad if ctx.has_sum else None, grad_branch, None, None, None, None


def dropout(
    branch: Tensor,
    dropout_key: Tensor | None,
    rate: float,
    first_row: Tensor | int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Drops values of sequences at a rate and scales the others, so that the expectation stays.

    Args:
        branch: [G, n, D].
        dropout_key: [G] int32, already mixed with the site; None drops nothing.
        rate: 0 to below 1, rounded to 1 / 65,536.
        first_row: position of the first of the n rows in its sequence: one for all, or [G] int64 with D even.
        dtype: of the result; None for that of `branch`.
    Returns:
        [G, n, D].
    """
    if dropout_key is None or num_dropped_levels(rate) == 0:
        return branch if dtype is None else branch.to(dtype)
    return _Dropout.apply(None, branch, dropout_key, rate, first_row, dtype)


def add_dropout(
    x: Tensor, branch: Tensor, dropout_key: Tensor | None, rate: float, first_row: Tensor | int = 0
) -> Tensor:
    """x + dropout(branch), in x's dtype and without the intermediate result; arguments as `dropout`."""
    branch = branch.to(x.dtype)
    if dropout_key is None or num_dropped_levels(rate) == 0:
        return x + branch
    return _Dropout.apply(x, branch, dropout_key, rate, first_row, None)
