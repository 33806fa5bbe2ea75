"""Shapes that the mask of a component can have over time: Eq. (3), and those of the published code.

Paper: Section 3, "Modeling of GMP for positive proposal".
"""

from __future__ import annotations

from pps_fast.ops.gaussian_mask import gaussian_mask, gaussian_peak_mask, laplace_mask

# by the names of `config.MaskShape`
MASK_SHAPES = {"gaussian": gaussian_mask, "gaussian_peak": gaussian_peak_mask, "laplace": laplace_mask}
