"""Mask-conditioned attention (Eq. 8)."""

from __future__ import annotations

from pps_fast import equations
from pps_fast.backend import Op

masked_attention = Op("masked_attention", torch=equations.masked_attention)
