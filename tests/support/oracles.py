"""The paper's equations as plain float64 loops over samples, proposals, components and positions.

Written from the paper and the facts about the published code, not from `pps_fast.equations`, whose guard they are.
The ragged "proposal k has n_k components" stays ragged here: `x[b][k]` is an array over the components of proposal k of
sample b. `of_op` takes an op's flat arguments apart, so that the flat axis itself is under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Ragged = list[list[Array]]

SHAPES_OF_MASKS = ("gaussian_mask", "gaussian_peak_mask", "laplace_mask", "gaussian_exponent")
# other ops whose arguments are not divided into proposals
WITHOUT_GROUPS = ("masked_attention", "shared_attention", "reconstruction_nll", "residual_norm", "mask_reward")


# --- generator ------------------------------------------------------------------------------------


def sigmoid_head(g_cls: Array, weight: Array, bias: Array) -> Array:
    """Eqs. (1) and (2) before the division by sigma: [B, D], [n, D], [n] -> [B, n]."""
    result = np.zeros((len(g_cls), len(bias)))
    for b, g in enumerate(g_cls):
        for e in range(len(bias)):
            total = bias[e] + sum(weight[e, d] * g[d] for d in range(len(g)))
            result[b, e] = 1 / (1 + math.exp(-total))
    return result


def positions(num_positions: int) -> list[float]:
    return [t / (num_positions - 1) for t in range(num_positions)]


def _with_log(mask: Array, inverse: bool) -> tuple[Array, Array]:
    """A mask or what it leaves out, and the log of that + 1e-10."""
    result, log = np.zeros(mask.shape), np.zeros(mask.shape)
    for index in np.ndindex(mask.shape):
        result[index] = 1 - mask[index] if inverse else mask[index]
        log[index] = math.log(result[index] + 1e-10)
    return result, log


def gaussian_mask(
    center: Array, width: Array, sigma: float, num_positions: int, width_floor: float = 0.01, inverse: bool = False
) -> tuple[Array, Array]:
    """Eq. (3): [...] -> [..., T] and its log."""
    return _with_log(np.exp(gaussian_exponent(center, width, sigma, num_positions, width_floor)), inverse)


def _peak_one(decay: Callable[[float], float], center: Array, std: Array, num_positions: int) -> Array:
    """exp(-decay(|x - c| / s)) over its value at the position nearest to the center."""
    result = np.zeros((*center.shape, num_positions))
    for index in np.ndindex(center.shape):
        distance = [abs(x - center[index]) / std[index] for x in positions(num_positions)]
        for t in range(num_positions):
            result[index][t] = math.exp(decay(min(distance)) - decay(distance[t]))
    return result


def gaussian_peak_mask(
    center: Array, width: Array, sigma: float, num_positions: int, width_floor: float = 0.01, inverse: bool = False
) -> tuple[Array, Array]:
    """exp(-d^2 / 2 s^2) over its peak on the grid, and its log."""
    std = np.maximum(width, width_floor) / sigma
    return _with_log(_peak_one(lambda d: d * d / 2, center, std, num_positions), inverse)


def laplace_mask(
    center: Array, width: Array, sigma: float, num_positions: int, width_floor: float = 0.01, inverse: bool = False
) -> tuple[Array, Array]:
    """exp(-d / s) over its peak on the grid, and its log."""
    std = np.maximum(width, width_floor) / sigma
    return _with_log(_peak_one(lambda d: d, center, std, num_positions), inverse)


def mixture(masks: Ragged, weights: Ragged) -> tuple[Array, Array]:
    """Eq. (4): masks [n_k, T] and weights [n_k] -> [B, K, T] and its log."""
    mixed = np.array(
        [[sum(w * m for w, m in zip(ws, ms, strict=True)) for ms, ws in zip(*sample, strict=True)]
         for sample in zip(masks, weights, strict=True)]
    )  # fmt: skip
    return _with_log(mixed, inverse=False)


def peak_mixture(masks: Ragged) -> tuple[Array, Array]:
    """Sum of a proposal's masks over its largest value -> [B, K, T], and its log; a sum that is 0 everywhere stays."""
    result = []
    for sample in masks:
        row = []
        for proposal in sample:
            summed = sum(mask for mask in proposal)
            row.append(summed / summed.max() if summed.max() > 0 else summed)
        result.append(row)
    return _with_log(np.array(result), inverse=False)


# --- pulling and pushing --------------------------------------------------------------------------


def _batch_mean(loss: Callable[..., float], batch: Ragged) -> float:
    return sum(sum(loss(proposal) for proposal in sample) for sample in batch) / len(batch)


def pull_distant(center: Ragged) -> float:
    """Eq. (5)."""
    return _batch_mean(lambda c: (c[np.argmin(c)] - c[np.argmax(c)]) ** 2, center)


def pull_middle(center: Ragged) -> float:
    """The two farthest centers against the lower median."""

    def loss(c: Array) -> float:
        ordered = sorted(c)
        middle = ordered[(len(c) - 1) // 2]
        return (ordered[0] - middle) ** 2 + (ordered[-1] - middle) ** 2

    return _batch_mean(loss, center)


def pull_all(center: Ragged) -> float:
    """Every pair of centers."""
    return _batch_mean(lambda c: sum((c[i] - c[j]) ** 2 for i in range(len(c)) for j in range(i)), center)


def gaussian_exponent(
    center: Array, width: Array, sigma: float, num_positions: int, width_floor: float = 0.01
) -> Array:
    """log of Eq. (3): [...] -> [..., T]."""
    result = np.zeros((*center.shape, num_positions))
    for index in np.ndindex(center.shape):
        s = max(width[index], width_floor) / sigma
        result[index] = [-(((x - center[index]) / s) ** 2) for x in positions(num_positions)]
    return result


def mixture_exponent(exponents: Ragged, importance: Ragged) -> Array:
    """log of Eq. (4): exponents [n_k, T] and importance [n_k] -> [B, K, T]; the largest term is taken out of sums."""

    def log_sum(terms: list[float]) -> float:
        return max(terms) + math.log(sum(math.exp(term - max(terms)) for term in terms))

    return np.array(
        [[[log_sum([math.log(w) + e[t] for w, e in zip(ws, es, strict=True)]) for t in range(es.shape[1])]
          for es, ws in zip(*sample, strict=True)]
         for sample in zip(exponents, importance, strict=True)]
    )  # fmt: skip


def push(masks: Ragged, target: float, normalize: bool, exponents: Ragged | None = None) -> float:
    """Eq. (6); Eq. (7) when the K proposals are the rows of one group. A row of zeros stays zero.

    With exponents, rows are exp(exponents) over their sum, the largest of a row taken out of both.
    """
    if normalize and exponents is not None:
        masks = [[np.exp(part - part.max(-1, keepdims=True)) for part in sample] for sample in exponents]

    def loss(rows: Array) -> float:
        if normalize:
            rows = [row / row.sum() if row.sum() > 0 else row for row in rows]
        total = 0.0
        for i in range(len(rows)):
            for j in range(len(rows)):
                total += (float(np.dot(rows[i], rows[j])) - (target if i == j else 0.0)) ** 2
        return total

    return _batch_mean(loss, masks)


# --- reconstructor --------------------------------------------------------------------------------


def masked_attention(
    query: Array,
    key: Array,
    value: Array,
    key_bias: Array | None = None,
    key_valid: Array | None = None,
    causal: bool = False,
) -> Array:
    """The core of Eq. (8) in its multiplicative form: a' = a (g + 1e-10) / sum a (g + 1e-10).

    Shapes as the op's: query [G, H, Q, h], key and value [G, H, T, h], key_bias = log(g + 1e-10) and key_valid [G, T].
    """
    result = np.zeros((*query.shape[:3], value.shape[-1]))
    for g, h, i in np.ndindex(query.shape[:3]):
        num_keys = key.shape[2]
        seen = [j for j in range(num_keys) if (not causal or j <= i) and (key_valid is None or key_valid[g, j])]
        if not seen:
            result[g, h, i] = sum(value[g, h, j] for j in range(num_keys)) / num_keys
            continue
        score = {j: float(np.dot(query[g, h, i], key[g, h, j])) / math.sqrt(query.shape[-1]) for j in seen}
        largest = max(score.values())
        share = {j: math.exp(score[j] - largest) for j in seen}
        if key_bias is not None:
            share = {j: share[j] * math.exp(key_bias[g, j]) for j in seen}
        total = sum(share.values())
        result[g, h, i] = sum(share[j] / total * value[g, h, j] for j in seen)
    return result


def shared_attention(
    query: Array, key: Array, value: Array, key_bias: Array, key_valid: Array | None = None, causal: bool = False
) -> Array:
    """One mask after the other: key_bias [B, N, T] -> [B, N, H, Q, h]."""
    of_masks = [
        masked_attention(query, key, value, key_bias[:, n], key_valid, causal) for n in range(key_bias.shape[1])
    ]
    return np.stack(of_masks, 1)


def _word(value: int) -> int:
    """An integer as a signed 32-bit word."""
    value &= 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value


def hashed(dropout_key: int, counter: int) -> int:
    """The hash of `pps_fast/randomness.py`, in integers of any size that are cut to 32 bits."""
    h = _word((_word(counter * 0x9E3779B1) ^ _word(dropout_key)) * 0x85EBCA6B)
    return _word((h ^ (h >> 15)) * 0xC2B2AE35)


def is_kept(dropout_key: int, position: int, rate: float) -> bool:
    """Whether dropout keeps the value at a position of a sequence, counted row by row."""
    h = hashed(dropout_key, position // 2) & 0xFFFFFFFF
    half = h >> 16 if position % 2 else h & 0xFFFF
    half = half - 0x10000 if half & 0x8000 else half
    return half >= round(65536 * rate) - 32768


def residual_norm(
    x: Array,
    branch: Array,
    weight: Array,
    bias: Array,
    dropout_key: Array | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Array | None = None,
) -> Array:
    """LayerNorm(x + dropout(branch)): [G, n, D]."""
    result = np.zeros(x.shape)
    num_values = x.shape[-1]
    for g, row in np.ndindex(x.shape[:2]):
        summed = []
        for d in range(num_values):
            term = branch[g, row, d]
            if dropout_key is not None:
                position = (row + (0 if first_row is None else int(first_row[g]))) * num_values + d
                kept = is_kept(hashed(int(dropout_key[g]), site), position, rate)
                term = term / (1 - round(65536 * rate) / 65536) if kept else 0.0
            summed.append(x[g, row, d] + term)
        mean = sum(summed) / num_values
        std = math.sqrt(sum((z - mean) ** 2 for z in summed) / num_values + 1e-5)
        for d, z in enumerate(summed):
            result[g, row, d] = (z - mean) / std * weight[d] + bias[d]
    return result


def importance_score(r_cls: Array, inner: Array, outer: Array) -> Array:
    """Eq. (9): r_cls [B, n, D], inner [D, D], outer [1, D] -> [B, n]."""
    result = np.zeros(r_cls.shape[:2])
    for b, n in np.ndindex(r_cls.shape[:2]):
        hidden = [math.tanh(float(np.dot(row, r_cls[b, n]))) for row in inner]
        result[b, n] = sum(u * x for u, x in zip(outer[0], hidden, strict=True))
    return result


def importance(score: Ragged) -> Ragged:
    """Eq. (10): a softmax inside every proposal."""
    result = []
    for sample in score:
        row = []
        for h in sample:
            exponential = [math.exp(x - max(h)) for x in h]
            row.append(np.array([x / sum(exponential) for x in exponential]))
        result.append(row)
    return result


def reconstruction_nll(logits: Array, targets: Array, is_target: Array, smoothing: float) -> Array:
    """C(.): logits [B, N, L, V], targets and is_target [B, L] -> [B, N]."""
    num_classes = logits.shape[-1]
    result = np.zeros(logits.shape[:2])
    for b, n in np.ndindex(logits.shape[:2]):
        words = [t for t in range(logits.shape[2]) if is_target[b, t]]
        for t in words:
            z = logits[b, n, t]
            log_sum = z.max() + math.log(sum(math.exp(x - z.max()) for x in z))
            for v in range(num_classes):
                share = smoothing / num_classes + ((1 - smoothing) if v == targets[b, t] else 0.0)
                result[b, n] += share * (log_sum - z[v]) / len(words)
    return result


def best_proposals(positive_nll: Array, num_best: int) -> Array:
    """k*: [B, K] -> [B, num_best]; the lower index first among equals."""
    return np.array([sorted(range(len(row)), key=lambda k: (row[k], k))[:num_best] for row in positive_nll])


def reconstruction_loss(positive: Array, whole_video: Array, num_best: int = 1) -> Array:
    """L_rec: [B, K], [B] -> [B]."""
    best = best_proposals(positive, num_best)
    return np.array([sum(positive[b, k] for k in ks) / num_best + whole_video[b] for b, ks in enumerate(best)])


def contrastive_loss(
    positive: Array, whole_video: Array, negative: Array, margins: tuple[float, float], num_best: int = 1
) -> float:
    """L_ivc: positive [B, K], whole_video [B], negative [B, K, J], margins (beta_1, beta_2)."""
    total = 0.0
    for b, ks in enumerate(best_proposals(positive, num_best)):
        for k in ks:
            total += max(positive[b, k] - whole_video[b] + margins[0], 0.0)
            for other in negative[b, k]:
                total += max(positive[b, k] - other + margins[1], 0.0)
    return total / (len(positive) * num_best)


def boundaries(center: Ragged, width: Ragged, weights: Ragged, shrink: float = 0.0) -> tuple[Array, Array]:
    """Start and end of every proposal, [B, K] each."""
    start, end = [], []
    for sample in zip(center, width, weights, strict=True):
        left, right = [], []
        for c, w, a in zip(*sample, strict=True):
            low = sum(a[e] * (c[e] - w[e] / 2) for e in range(len(c)))
            high = sum(a[e] * (c[e] + w[e] / 2) for e in range(len(c)))
            left.append(max(low + shrink * (high - low) / 2, 0.0))
            right.append(min(high - shrink * (high - low) / 2, 1.0))
        start.append(left)
        end.append(right)
    return np.array(start), np.array(end)


# --- alignment ------------------------------------------------------------------------------------


def mask_reward(masks: Array, curve: Array, power: float = 0.25, frame_valid: Array | None = None) -> Array:
    """R(g) = <g, zeta> / (<g, g> + 1e-10)^power over the frames that exist: [B, n, T], [B, T] -> [B, n]."""
    result = np.zeros(masks.shape[:2])
    for b, n in np.ndindex(result.shape):
        frames = [t for t in range(masks.shape[2]) if frame_valid is None or frame_valid[b, t]]
        mean = sum(curve[b, t] for t in frames) / max(len(frames), 1)
        std = math.sqrt(sum((curve[b, t] - mean) ** 2 for t in frames) / max(len(frames), 1))
        along = sum(masks[b, n, t] * (curve[b, t] - mean) for t in frames)
        energy = sum(masks[b, n, t] ** 2 for t in frames)
        result[b, n] = along / std / (energy + 1e-10) ** power if std > 0 else 0.0
    return result


# --- flat arguments -------------------------------------------------------------------------------


def ragged(flat: Array, group: Array, num_groups: int | None = None) -> Ragged:
    """[B, E, ...] -> x[b][k], the components whose group is k in their order."""
    count = int(max(group)) + 1 if num_groups is None else num_groups
    return [[np.array([row[e] for e in range(len(group)) if group[e] == k]) for k in range(count)] for row in flat]


def flat(parts: Ragged, group: Array) -> Array:
    """The inverse of `ragged`."""
    result = []
    for sample in parts:
        queues = [list(part) for part in sample]
        result.append([queues[k].pop(0) for k in group])
    return np.array(result)


def of_op(name: str, arguments: dict[str, Any]) -> Any:
    """Runs the oracle of an op on the op's own keyword arguments as numpy arrays; its results as the op's."""
    if name in (*SHAPES_OF_MASKS, *WITHOUT_GROUPS):
        return globals()[name](**arguments)
    if name == "contrastive_loss":
        *nll, whole_video_margin, negative_margin = arguments.values()
        return np.asarray(contrastive_loss(*nll, (whole_video_margin, negative_margin), nll[0].shape[1]))
    arguments = dict(arguments)
    group, count = arguments.pop("group"), arguments.pop("num_groups", None)
    parts = {
        argument: ragged(value, group, count) if isinstance(value, Array) else value
        for argument, value in arguments.items()
    }
    if name == "importance":
        return flat(importance(parts["score"]), group)
    if name == "mixture":
        return mixture(parts["masks"], parts["importance"])
    if name == "boundaries":
        return boundaries(parts["center"], parts["width"], parts["importance"], arguments["shrink"])
    result = globals()[name](**parts)
    return result if isinstance(result, tuple) else np.asarray(result)
