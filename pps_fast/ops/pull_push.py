"""Pulling and pushing losses (Eqs. 5-7)."""

from __future__ import annotations

from pps_fast import equations
from pps_fast.backend import Op

pull_distant = Op("pull_distant", torch=equations.pull_distant)
pull_middle = Op("pull_middle", torch=equations.pull_middle)
pull_all = Op("pull_all", torch=equations.pull_all)
push = Op("push", torch=equations.push)
