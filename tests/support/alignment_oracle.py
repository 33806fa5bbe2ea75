"""The alignment of sentences and frames as plain float64 loops over pairs and frames.

Written from the definition (smoothing, bag of words, ridges, re-pooling, filter), not from `pps_fast.alignment`.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def smoothed_video(frames: Array, share: float) -> Array:
    """Unit rows, then means over the odd number of frames nearest to a share of the video: [S, F] -> [S, F]."""
    rows = np.array([row / np.linalg.norm(row) if row.any() else row for row in frames.astype(np.float64)])
    count = len(rows)
    odd = min((n for n in range(1, 2 * count + 2, 2)), key=lambda n: abs(n - share * count))
    half = odd // 2
    return np.array(
        [np.mean([rows[min(max(t + k, 0), count - 1)] for k in range(-half, half + 1)], axis=0) for t in range(count)]
    )


def sentences(word_ids: Array, vectors: Array, train: Array) -> Array:
    """y of all sentences, [M, W], with idf and mean of the training ones."""
    sets = [sorted({int(word) for word in row if word > 0}) for row in word_ids]
    num = len(train)
    idf = {w: min(math.log(num / max(sum(w in sets[i] for i in train), 1)), 6.0) for w in range(1, len(vectors))}
    sums = [sum((idf[w] * vectors[w].astype(np.float64) for w in words), np.zeros(vectors.shape[1])) for words in sets]
    units = np.array([u / np.linalg.norm(u) if u.any() else u for u in sums])
    mean = units[train].mean(axis=0)
    return np.array([u - mean if u.any() else u for u in units])


def fit_map(pooled: Array, y: Array, frame_ridge: float = 2.0, sentence_ridge: float = 3.0) -> Array:
    """M of P pairs: pooled [P, F], y [P, W] -> [F, W]."""
    both = np.cov(np.concatenate([pooled, y], axis=1).T, bias=True)
    size = pooled.shape[1]
    left, right, cross = both[:size, :size], both[size:, size:], both[:size, size:]
    left = left + frame_ridge * np.trace(left) / size * np.eye(size)
    right = right + sentence_ridge * np.trace(right) / len(right) * np.eye(len(right))
    inverse: Array = np.linalg.inv(left) @ cross @ np.linalg.inv(right)
    return inverse


def zscore(curve: Array) -> Array:
    """(s - mean s) / std s."""
    scored: Array = (curve - curve.mean()) / curve.std()
    return scored


def best_window(curve: Array) -> tuple[int, int]:
    """The window [a, b) of largest sum of s - mean s, by trying all."""
    away = curve - curve.mean()
    windows = [(a, b) for b in range(1, len(curve) + 1) for a in range(b)]
    return max(windows, key=lambda window: away[window[0] : window[1]].sum())


def with_changes(frames: Array, weight: float) -> Array:
    """Frames and weighted differences of those two later and two earlier: [S, F] -> [S, 2 F]."""
    last, rows = len(frames) - 1, []
    for t, x in enumerate(frames):
        rows.append(np.concatenate([x, weight * (frames[min(t + 2, last)] - frames[max(t - 2, 0)])]))
    return np.array(rows)


def standardized(frames: Array, alignment: Array, one: Array, y: Array, mean: Array) -> Array:
    """Scores of frames for a sentence, each divided by the root of its mean square over the sentences y: [S]."""
    scores = []
    for x in frames - mean:
        others = [(x @ alignment @ other) ** 2 for other in y]
        scores.append((x @ alignment @ one) / math.sqrt(np.mean(others)))
    return np.array(scores)


def pooled_frames(
    videos: Array,
    video_of_pair: Array,
    y: Array,
    pooling: str,
    *,
    by_neighbors: bool = False,
    num_parts: int = 4,
    is_standardized: bool = False,
) -> Array:
    """z of every pair, [P, F], for pooling mean, once or cross: videos [N, S, F] smoothed."""
    frames = [videos[v] for v in video_of_pair]
    z = np.array([x.mean(axis=0) for x in frames])
    if pooling == "once":
        alignment = fit_map(z, y)
        windows = [best_window(x @ alignment @ one) for x, one in zip(frames, y, strict=True)]
        return np.array([x[a:b].mean(axis=0) for x, (a, b) in zip(frames, windows, strict=True)])
    rank = {video: index for index, video in enumerate(sorted(set(video_of_pair.tolist())))}
    for turn in range(2 if pooling == "cross" else 0):
        ranks = [rank[v] // num_parts if turn and by_neighbors else rank[v] for v in video_of_pair.tolist()]
        part = np.array(ranks) % num_parts
        maps = [fit_map(z[part != p], y[part != p]) for p in range(num_parts)]
        curves = [x @ maps[p] @ one for x, p, one in zip(frames, part, y, strict=True)]
        if is_standardized:
            mean = videos[sorted(rank)].mean(axis=(0, 1))
            curves = [standardized(x, maps[p], one, y, mean) for x, p, one in zip(frames, part, y, strict=True)]
        weights = [np.exp(2.0 * zscore(curve)) for curve in curves]
        z = np.array([(w / w.sum()) @ x for w, x in zip(weights, frames, strict=True)])
    return z


def filtered_moment(
    curve: Array, *, power: float = 0.25, extent: float = math.sqrt(2), is_clipped: bool = True
) -> tuple[float, float]:
    """The moment of the Gaussian of largest reward, by trying all."""
    zeta, best, answer = zscore(curve), -math.inf, (0.0, 1.0)
    for j in range(64):
        for k in range(28):
            center, radius = (j + 0.5) / 64, 0.03 * (0.5 / 0.03) ** (k / 27)
            mask = np.array(
                [math.exp(-(((t + 0.5) / len(curve) - center) ** 2) / radius**2) for t in range(len(curve))]
            )
            reward = float(mask @ zeta) / (mask**2).sum() ** power
            if reward > best:
                best = reward
                answer = (center - extent * radius, center + extent * radius)
    if is_clipped:
        answer = (max(answer[0], 0.0), min(answer[1], 1.0))
    return answer
