"""Reads moments from the curve of a sentence over a video: ranked answers, as proposals of one component.

Letters: c candidates of the bank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.alignment.equations import ENERGY_FLOOR, gaussian_bank, max_sum_window, window_mask, zscored_curve
from pps_fast.config import CurveKind, CurveReading
from pps_fast.predict import temporal_iou

NUM_CENTERS, NUM_RADII = 64, 28
MIN_RADIUS, MAX_RADIUS = 0.03, 0.5
# standard deviation of the log of a radius in `duration_bonus`
LOG_RADIUS_SPREAD = 0.7
# a moment that overlaps a better one as much is no further answer
_MAX_OVERLAP = 0.5

# curve -> the power of a mask's energy in its reward, and the radii from its center to either end of the moment
READING: dict[CurveKind, tuple[float, float]] = {
    # two standard deviations of the Gaussian, where the mask is e^-2
    "linear": (0.25, math.sqrt(2)),
    "standardized": (0.5, math.sqrt(3)),
}


@dataclass(frozen=True, kw_only=True)
class Moments:
    """n ranked moments of each sample.

    Attributes:
        start, end: [B, n] fractions of the video, clipped to [0, 1].
        reward: [B, n] by which they are ranked, falling.
        masks: [B, n, S] the Gaussians, or 1 inside a window and 0 outside.
    """

    start: Tensor
    end: Tensor
    reward: Tensor
    masks: Tensor


def filter_moments(curve: Tensor, count: int, kind: CurveKind, bonus: Tensor | None = None) -> Moments:
    """Reads moments with a Gaussian matched filter: 64 centers x 28 radii, ranked by their reward R(g).

    The first is the Gaussian of largest reward; each further one has the largest reward among those that overlap none
    before it by an IoU of .5. Equal rewards: the earlier center, then the smaller radius. A constant curve tells
    nothing: every moment is then the whole video, with reward 0.

    Args:
        curve: [B, S] scores of frames.
        count: n.
        kind: of the curve, which decides how it is read, see `READING`.
        bonus: [c] added to the reward of each candidate, see `duration_bonus`; None for nothing.
    """
    zeta, (power, extent) = zscored_curve(curve), READING[kind]
    center, radius = bank_of_gaussians(curve.device)
    masks = gaussian_bank(center, radius, curve.shape[1]).to(zeta.dtype)  # [c, S]
    reward = bank_rewards(zeta, masks, power)  # [B, c]
    if bonus is not None:
        reward = reward + bonus.to(zeta.dtype)
    spans = torch.stack([center - extent * radius, center + extent * radius], dim=1).clamp(0, 1)
    chosen = _distinct(reward, spans.to(zeta.dtype), count)  # [B, n]
    is_constant = ~zeta.any(dim=1, keepdim=True)
    return Moments(
        start=spans[chosen, 0].to(zeta.dtype).masked_fill(is_constant, 0.0),
        end=spans[chosen, 1].to(zeta.dtype).masked_fill(is_constant, 1.0),
        reward=reward.gather(1, chosen),
        masks=masks[chosen].masked_fill(is_constant[:, :, None], 1.0),
    )


def window_moments(curve: Tensor, count: int, kind: CurveKind, bonus: Tensor | None = None) -> Moments:
    """Reads moments as windows [a, b) with the largest sum of s - mean s; further ones lie outside those before.

    A constant curve, as one of a single frame, tells nothing: the first moment is the whole video, with reward 0.

    Args:
        curve: [B, S] scores of frames.
        count: n; where all frames are taken, the last window is repeated.
        kind: of the curve; windows are the same for all.
        bonus: of the candidates of the filter; not read.
    """
    num_frames = curve.shape[1]
    away = curve - curve.mean(dim=1, keepdim=True)
    is_constant = ~zscored_curve(curve).any(dim=1)
    # more than any window can make good
    taken_value = -2 * away.abs().sum(dim=1, keepdim=True) - 1
    rest, starts, ends, rewards = away, [], [], []
    for _ in range(count):
        start, end = max_sum_window(rest)
        start, end = start.masked_fill(is_constant, 0), end.masked_fill(is_constant, num_frames)
        inside = window_mask(start, end, num_frames)
        starts.append(start)
        ends.append(end)
        rewards.append((away * inside).sum(dim=1).masked_fill(is_constant, 0.0))
        rest = torch.where(inside, taken_value, rest)
    start, end = torch.stack(starts, dim=1), torch.stack(ends, dim=1)
    return Moments(
        start=start.to(curve.dtype) / num_frames,
        end=end.to(curve.dtype) / num_frames,
        reward=torch.stack(rewards, dim=1),
        masks=window_mask(start, end, num_frames).to(curve.dtype),
    )


READERS: dict[CurveReading, Callable[[Tensor, int, CurveKind, Tensor | None], Moments]] = {
    "filter": filter_moments,
    "window": window_moments,
}
"""by the strings of `config.CurveReading`"""


def best_log_radius(curve: Tensor, kind: CurveKind) -> Tensor:
    """Returns [B] the log of the radius of the Gaussian with the largest reward: curve [B, S]."""
    zeta, (center, radius) = zscored_curve(curve), bank_of_gaussians(curve.device)
    masks = gaussian_bank(center, radius, curve.shape[1]).to(zeta.dtype)
    return radius.log()[bank_rewards(zeta, masks, READING[kind][0]).argmax(dim=1)].to(curve.dtype)


def bank_rewards(zeta: Tensor, masks: Tensor, power: float) -> Tensor:
    """Returns [B, c] R(g) of masks that all curves share: z-scored curves [B, S], masks [c, S]."""
    return zeta @ (masks / (masks.square().sum(dim=1, keepdim=True) + ENERGY_FLOOR).pow(power)).T


def duration_bonus(log_radius: Tensor, weight: float) -> Tensor:
    """Returns [c] D(r) = -weight (log r - l)^2 / (2 * .7^2) of the bank's candidates; log_radius is l, a scalar."""
    _, radius = bank_of_gaussians(log_radius.device)
    return -weight * (radius.log() - log_radius).square() / (2 * LOG_RADIUS_SPREAD**2)


def bank_of_gaussians(device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns centers and radii [c] of the bank, float64."""
    center = (torch.arange(NUM_CENTERS, dtype=torch.float64) + 0.5) / NUM_CENTERS
    share = torch.arange(NUM_RADII, dtype=torch.float64) / (NUM_RADII - 1)
    radius = MIN_RADIUS * (MAX_RADIUS / MIN_RADIUS) ** share
    grid = torch.cartesian_prod(center, radius)
    return grid[:, 0].to(device), grid[:, 1].to(device)


def _distinct(reward: Tensor, spans: Tensor, count: int) -> Tensor:
    """Returns [B, n] candidates by falling reward that overlap no better one much: reward [B, c], spans [c, 2]."""
    rest, chosen = reward, [reward.argmax(dim=1)]
    while len(chosen) < count:
        best = chosen[-1]
        overlap = temporal_iou(spans[best][:, None], spans[None])  # [B, c]
        rest = rest.masked_fill(overlap > _MAX_OVERLAP, -torch.inf)
        chosen.append(rest.argmax(dim=1))
    return torch.stack(chosen, dim=1)
