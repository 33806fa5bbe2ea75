"""Pulling and pushing losses. Paper: Section 3, "Losses for pull-push learning scheme", Eqs. (5)-(7)."""

from __future__ import annotations

from pps_fast.ops.pull_push import pull_all, pull_distant, pull_middle

PULL_STRATEGIES = {"distant": pull_distant, "middle": pull_middle, "all": pull_all}
