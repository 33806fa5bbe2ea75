"""Equations of the alignment of sentences and frames, beside the paper's page: torch only, any floating dtype.

As `pps_fast/equations.py`, this file is the `torch` backend of an op, the float64 oracle of its kernel and the
documentation of the mathematics; its guard is `tests/support/oracles.py`. Shapes follow the legend of `types.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# a curve whose standard deviation is at most so many roundings of its root mean square counts as constant: its frames
# are equal, and were multiplied in another order
CONSTANT_ROUNDINGS = 32
# added to the sum of a mask's squares, so that a mask that vanishes has no reward and a bounded gradient
ENERGY_FLOOR = 1e-10


def _wide(x: Tensor) -> Tensor:
    """x in fp32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def zscored_curve(curve: Tensor, frame_valid: Tensor | None = None) -> Tensor:
    """zeta = (s - mean s) / std s, over the frames that exist; the standard deviation is that of the frames, 1 / T.

    Args:
        curve: [B, T] s, scores of frames.
        frame_valid: [B, T] bool, False for padding, which is not read; None when all frames exist.
    Returns:
        [B, T] fp32 or fp64, 0 for padding. A curve that is constant within rounding, as that of a single frame, is 0
        and has no gradient.
    """
    curve = _wide(curve)
    hidden = torch.zeros_like(curve, dtype=torch.bool) if frame_valid is None else ~frame_valid
    curve = curve.masked_fill(hidden, 0)
    count = (~hidden).sum(-1, keepdim=True).clamp(min=1)
    away = (curve - curve.sum(-1, keepdim=True) / count).masked_fill(hidden, 0)
    variance = away.square().sum(-1, keepdim=True) / count
    rounding = CONSTANT_ROUNDINGS * torch.finfo(curve.dtype).eps
    # not >, which would hide a NaN
    is_constant = variance <= rounding**2 * curve.square().sum(-1, keepdim=True) / count
    return (away / variance.masked_fill(is_constant, 1).sqrt()).masked_fill(is_constant, 0)


def mask_reward(masks: Tensor, curve: Tensor, power: float = 0.25, frame_valid: Tensor | None = None) -> Tensor:
    """Reward of a mask g against a curve s: R(g) = sum_t g_t zeta_t / (sum_t g_t^2 + 1e-10)^power.

    zeta is the curve's `zscored_curve`. With power 1/2 the reward is a correlation, which does not see how long a
    mask is scaled; below it, of two masks with the same correlation the longer one is worth more.

    Args:
        masks: [B, n, T] n masks of each sample, of components or of proposals, in [0, 1].
        curve: [B, T] scores of frames; masks and curve may both get a gradient.
        power: 1/4 for the curve x_t^T M y, 1/2 for the standardized one, each with a reading of its own.
        frame_valid: [B, T] bool, False for padding, where neither masks nor curve are read; None when all frames exist.
    Returns:
        [B, n] fp32 or fp64; 0 for a constant curve, for a single frame and for a mask of zeros. A NaN in a mask is in
        this mask's reward, one in a curve in all of its sample.
    """
    masks = _wide(masks)
    if frame_valid is not None:
        masks = masks.masked_fill(~frame_valid.unsqueeze(1), 0)
    # a sum, not a product of matrices, which autocast would take to bf16
    along = (masks * zscored_curve(curve, frame_valid).unsqueeze(1)).sum(-1)
    return along / (masks.square().sum(-1) + ENERGY_FLOOR).pow(power)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., n] divided by their lengths; a vector of zeros stays one."""
    vectors = _wide(vectors)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length == 0, 1)


def smoothing_window(num_segments: int, share: float) -> int:
    """The odd number of segments nearest to a share of the video, at least 1."""
    return 2 * max(round((share * num_segments - 1) / 2), 0) + 1


def smoothed_frames(frames: Tensor, window: int) -> Tensor:
    """Each frame replaced by the mean of the `window` frames around it; the first and last frame are repeated outward.

    Args:
        frames: [B, S, F].
        window: odd number of frames; 1 changes nothing.
    """
    half, num_frames = window // 2, frames.shape[1]
    padded = torch.cat([frames[:, :1].expand(-1, half, -1), frames, frames[:, -1:].expand(-1, half, -1)], dim=1)
    total = frames
    for shift in [*range(half), *range(half + 1, window)]:
        total = total + padded[:, shift : shift + num_frames]
    return total / window


def with_changes(frames: Tensor, weight: float, reach: int = 2) -> Tensor:
    """[x_t; weight (x_{t+reach} - x_{t-reach})], which tells where something begins and ends from where it lasts.

    Args:
        frames: [B, S, F] x; the first and last frame are repeated outward.
    Returns:
        [B, S, 2 F].
    """
    count = frames.shape[1]
    position = torch.arange(count, device=frames.device)
    change = frames[:, (position + reach).clamp(max=count - 1)] - frames[:, (position - reach).clamp(min=0)]
    return torch.cat([frames, weight * change], dim=-1)


def bag_of_words(word_ids: Tensor, words: Tensor, word_weights: Tensor) -> Tensor:
    """u = the sum over a sentence's distinct words w of idf(w) g_w.

    Args:
        word_ids: [B, L] int64 classes, 0 for none.
        words: [B, L, W] their vectors g.
        word_weights: [V] idf; that of class 0 is not read.
    Returns:
        [B, W].
    """
    earlier = torch.ones(word_ids.shape[1], word_ids.shape[1], dtype=torch.bool, device=word_ids.device).tril(-1)
    is_repeated = ((word_ids[:, :, None] == word_ids[:, None, :]) & earlier).any(dim=2)
    weights = word_weights[word_ids].masked_fill(is_repeated | (word_ids == 0), 0)
    return (weights.unsqueeze(1) @ words.to(weights.dtype)).squeeze(1)


def alignment_map(
    frame_covariance: Tensor, sentence_covariance: Tensor, cross_covariance: Tensor, ridges: tuple[float, float]
) -> Tensor:
    """M = (Sz + a tr(Sz)/F I)^-1 C (Sy + b tr(Sy)/n I)^-1, which scores a frame x for a sentence y by x^T M y.

    Args:
        frame_covariance: [F, F] Sz of the pooled frames of pairs.
        sentence_covariance: [n, n] Sy of their sentences.
        cross_covariance: [F, n] C between the two.
        ridges: a and b, shares of the mean variance.
    Returns:
        [F, n]; zeros where frames or sentences do not vary at all.
    """
    left, right = (
        _ridged(matrix, ridge) for matrix, ridge in zip((frame_covariance, sentence_covariance), ridges, strict=True)
    )
    return torch.linalg.solve(right, torch.linalg.solve(left, cross_covariance).T).T


def _ridged(covariance: Tensor, ridge: float) -> Tensor:
    size = len(covariance)
    mean_variance = covariance.trace() / size
    # 1 where nothing varies: the covariance with the other side is then 0, too
    return covariance + (ridge * mean_variance).masked_fill(mean_variance <= 0, 1) * torch.eye(
        size, dtype=covariance.dtype, device=covariance.device
    )


def linear_curve(frames: Tensor, direction: Tensor) -> Tensor:
    """s_t = x_t^T M y of n sentences about each video.

    Args:
        frames: [B, S, F] x.
        direction: [B, n, F] M y of the sentences.
    Returns:
        [B, n, S].
    """
    return direction @ frames.mT


def spread_curve(frames: Tensor, direction: Tensor, frame_mean: Tensor, spread: Tensor) -> Tensor:
    """s_t = (x_t - m)^T M y / sqrt((x_t - m)^T A (x_t - m)), a score divided by its spread over sentences.

    Without the division an unusual frame scores high for every sentence.

    Args:
        frames: [B, S, F] x.
        direction: [B, n, F] M y of n sentences about each video.
        frame_mean: [F] m, of the training videos.
        spread: [F, W] a root of A = M (mean of y y^T over the training sentences) M^T: spread @ spread.T = A.
    Returns:
        [B, n, S]; 0 for a frame that no sentence tells from the mean.
    """
    away = frames - frame_mean
    deviation = torch.linalg.vector_norm(away @ spread, dim=-1).unsqueeze(1)
    return linear_curve(away, direction) / deviation.masked_fill(deviation == 0, 1)


def attention_pooling(frames: Tensor, curve: Tensor, sharpness: float) -> Tensor:
    """z = sum_t p_t x_t with p = softmax over t of sharpness * zeta_t: [B, S, F], [B, n, S] -> [B, n, F]."""
    return torch.softmax(sharpness * zscored_curve(curve), dim=-1).to(frames.dtype) @ frames


def max_sum_window(curve: Tensor) -> tuple[Tensor, Tensor]:
    """The window [a, b) with the largest sum of curve values, as bounds in frames.

    Of equal windows the one that ends first, and of these the one that starts first.

    Args:
        curve: [..., S].
    Returns:
        [...] int64 a and [...] int64 b, 0 <= a < b <= S.
    """
    sums = torch.cat([torch.zeros_like(curve[..., :1]), curve.cumsum(dim=-1)], dim=-1)  # [..., S + 1]
    lowest = sums[..., :-1].cummin(dim=-1).values  # [..., S], of the sums up to each frame
    end = (sums[..., 1:] - lowest).argmax(dim=-1)
    is_start = sums[..., :-1] == lowest.gather(-1, end.unsqueeze(-1))
    return is_start.int().argmax(dim=-1), end + 1


def window_mask(start: Tensor, end: Tensor, num_frames: int) -> Tensor:
    """Which frames are in the windows [a, b), as `max_sum_window` returns them: [...], [...] -> [..., S] bool."""
    position = torch.arange(num_frames, device=start.device)
    return (position >= start.unsqueeze(-1)) & (position < end.unsqueeze(-1))


def window_pooling(frames: Tensor, curve: Tensor) -> Tensor:
    """z = mean of x over the `max_sum_window` of s - mean s: [B, S, F], [B, n, S] -> [B, n, F]."""
    start, end = max_sum_window(curve - curve.mean(dim=-1, keepdim=True))
    inside = window_mask(start, end, curve.shape[-1])
    return (inside.to(frames.dtype) / (end - start).unsqueeze(-1)) @ frames


def gaussian_bank(center: Tensor, radius: Tensor, num_positions: int) -> Tensor:
    """g(t) = exp(-((t + 1/2) / T - c)^2 / r^2): centers and radii [n] as shares of the video -> [n, T]."""
    position = (torch.arange(num_positions, dtype=center.dtype, device=center.device) + 0.5) / num_positions
    return torch.exp(-(((position - center[:, None]) / radius[:, None]) ** 2))
