"""Label-smoothed cross-entropy of the reconstructed sentence, C(.)."""

from __future__ import annotations

from pps_fast import equations
from pps_fast.backend import Op

reconstruction_nll = Op("reconstruction_nll", torch=equations.reconstruction_nll)
