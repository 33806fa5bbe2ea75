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


def standardized_curve(curve: Tensor, frame_valid: Tensor | None = None) -> Tensor:
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

    zeta is the curve's `standardized_curve`. With power 1/2 the reward is a correlation, which does not see how long a
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
    along = (masks * standardized_curve(curve, frame_valid).unsqueeze(1)).sum(-1)
    return along / (masks.square().sum(-1) + ENERGY_FLOOR).pow(power)
