"""From component masks to proposals: importance weights (Eq. 10), mixture (Eq. 4), boundaries."""

from __future__ import annotations

from pps_fast import equations
from pps_fast.backend import Op

importance = Op("importance", torch=equations.importance)
mixture = Op("mixture", torch=equations.mixture)
peak_mixture = Op("peak_mixture", torch=equations.peak_mixture)
boundaries = Op("boundaries", torch=equations.boundaries)
