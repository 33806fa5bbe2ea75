"""Loops for what the paper leaves to the published code: words, segments, the width mix-up and the other negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.support.oracles import Array, Ragged, gaussian_peak_mask, positions


def width_across_batch(width: Array, sizes: Sequence[int]) -> Array:
    """The published mix-up: [B, E] -> [B, E]; a proposal's [B, k] block is flattened and cut to its first B entries."""
    result = np.zeros_like(width)
    first = 0
    for size in sizes:
        flat = [width[b, first + j] for b in range(len(width)) for j in range(size)]
        for b in range(len(width)):
            for j in range(size):
                result[b, first + j] = flat[b]
        first += size
    return result


def hidden_words(hide_prob: Array, noise: Array, num_words: Array, divisor: int) -> Array:
    """[B, L] bool: the max(l // divisor, 1) words of each sentence with the largest log p + noise."""
    result = np.zeros(hide_prob.shape, dtype=bool)
    for b, length in enumerate(num_words):
        ranked = sorted(range(length), key=lambda t: -(math.log(hide_prob[b, t]) + noise[b, t]))
        for t in ranked[: max(length // divisor, 1)]:
            result[b, t] = True
    return result


def kept_segments(num_segments: int, stride: int) -> list[int]:
    """floor(i (S - 1) / (n - 1)) in exact arithmetic, n = S // stride."""
    count = num_segments // stride
    return [i * (num_segments - 1) // (count - 1) for i in range(count)]


def positional_table(num_positions: int, dim: int) -> Array:
    """[n, D]: sines, then cosines; position 0 is all zero."""
    half = dim // 2
    table = np.zeros((num_positions, dim))
    for p in range(1, num_positions):
        for i in range(half):
            frequency = math.exp(-i * math.log(10000) / (half - 1))
            table[p, i], table[p, half + i] = math.sin(p * frequency), math.cos(p * frequency)
    return table


def _hull(center: Array, width: Array) -> tuple[float, float]:
    pairs = list(zip(center, width, strict=True))
    return max(min(c - w / 2 for c, w in pairs), 0.0), min(max(c + w / 2 for c, w in pairs), 1.0)


def inverse_negatives(center: Ragged, width: Ragged, sigma: float, num_positions: int) -> Array:
    """1 - the peak-one bump over the hull of each proposal -> [B, K, T]."""
    result = []
    for cs, ws in zip(center, width, strict=True):
        hulls = [_hull(c, w) for c, w in zip(cs, ws, strict=True)]
        middle, length = (np.array([f(*h) for h in hulls]) for f in (lambda a, b: (a + b) / 2, lambda a, b: b - a))
        result.append(gaussian_peak_mask(middle, length, sigma, num_positions, inverse=True)[0])
    return np.array(result)


def side_negatives(center: Ragged, width: Ragged, sigma: float, num_positions: int, saturated: bool) -> Array:
    """A bump left of the hull and one right of it, each as wide as its distance from the video's end -> [B, K, T]."""
    result = []
    for cs, ws in zip(center, width, strict=True):
        row = []
        for c, w in zip(cs, ws, strict=True):
            left, right = _hull(c, w)
            middle = np.array([left / 2, 1 - (1 - right) / 2])
            bumps, _ = gaussian_peak_mask(middle, np.array([left / 2, (1 - right) / 2]), sigma, num_positions)
            for t, x in enumerate(positions(num_positions)):
                if saturated and x <= middle[0]:
                    bumps[0, t] = 1.0
                if saturated and x >= middle[1]:
                    bumps[1, t] = 1.0
            row.append(bumps[0] + bumps[1])
        result.append(row)
    return np.array(result)


def apart_side_negatives(
    center: Ragged, width: Ragged, sigma: float, num_positions: int, progress: list[float], exponent: float
) -> Array:
    """CPL's: for each proposal a bump left of the hull, then one right of it -> [B, 2 K, T]."""
    result = []
    for cs, ws, share in zip(center, width, progress, strict=True):
        row = []
        for c, w in zip(cs, ws, strict=True):
            left, right = _hull(c, w)
            pace = min(share, 1.0) ** exponent
            middle = np.array([left * 0.5 * pace, 1 - (1 - right) * 0.5 * pace])
            length = np.array([middle[0], 1 - middle[1]])
            row += list(gaussian_peak_mask(middle, length, sigma, num_positions)[0])
        result.append(row)
    return np.array(result)
