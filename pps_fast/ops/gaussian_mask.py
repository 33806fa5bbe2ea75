"""Masks of components over time (Eq. 3) and the published code's variants."""

from __future__ import annotations

from pps_fast import equations
from pps_fast.backend import Op

gaussian_mask = Op("gaussian_mask", torch=equations.gaussian_mask)
gaussian_peak_mask = Op("gaussian_peak_mask", torch=equations.gaussian_peak_mask)
laplace_mask = Op("laplace_mask", torch=equations.laplace_mask)
