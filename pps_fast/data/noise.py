"""Randomness as a function of counters: the same sample draws the same numbers in whatever batch it stands.

Paper: Section 4, "we randomly hide a third (1/3) of the words".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_WORD = (1 << 64) - 1
# stands where the noise has the number of a word column, of which there are fewer
_DROPOUT = 1 << 32
# increment and multipliers of the public-domain splitmix64 finaliser
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


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
        state = _mix(state + (_as_word(counter) + np.uint64(1)) * _STEP)
    return state


def gumbel_noise(seed: int, epoch: int, sample_index: np.ndarray, num_columns: int) -> np.ndarray:
    """Standard Gumbel noise -log(-log(u)) with u hashed from (seed, epoch, sample, column).

    The n largest entries of log(p) + noise are a draw of n items without replacement with probabilities p.

    Args:
        seed: any integer.
        epoch: number of the pass over the data; a sample's noise changes from one to the next.
        sample_index: [B] integers, positions of the samples in their data set.
        num_columns: L.
    Returns:
        [B, L] float32, finite, within -3.7 to 36.8; row b depends on sample_index[b] and on no other row.
    """
    samples = np.asarray(sample_index).reshape(-1, 1)
    bits = counter_hash(seed, epoch, samples, np.arange(num_columns).reshape(1, -1))
    # 52 bits and the half step fill a float64 exactly; one bit more would round the largest u up to 1
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return (-np.log(-np.log(uniform))).astype(np.float32)


def dropout_keys(seed: int, epoch: int, sample_index: np.ndarray) -> np.ndarray:
    """Keys from which the dropout of a sample in one pass over the data follows.

    Args:
        seed, epoch, sample_index: as in `gumbel_noise`.
    Returns:
        [B] int32; entry b depends on sample_index[b] and on no other.
    """
    bits = counter_hash(seed, epoch, np.asarray(sample_index), _DROPOUT)
    return (bits >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _as_word(counter: ArrayLike) -> np.ndarray:
    """Returns a counter as uint64 array of at least one dimension (scalars would warn when they wrap)."""
    if isinstance(counter, int):
        return np.array([counter & _WORD], dtype=np.uint64)
    return np.atleast_1d(np.asarray(counter)).astype(np.uint64)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _MULTIPLIERS[0]
    state = (state ^ (state >> np.uint64(27))) * _MULTIPLIERS[1]
    return state ^ (state >> np.uint64(31))
