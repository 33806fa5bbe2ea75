"""Shapes a component's mask can have over time, by the names of `config.MaskShape`."""

from __future__ import annotations

from pps_fast.ops.gaussian_mask import gaussian_mask, gaussian_peak_mask, laplace_mask

MASK_SHAPES = {"gaussian": gaussian_mask, "gaussian_peak": gaussian_peak_mask, "laplace": laplace_mask}
