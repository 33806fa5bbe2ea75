"""python -m tests.campaign kill|writers --minutes N --seed S: tries to lose something, and says what was lost."""

from __future__ import annotations

import argparse
import sys

from tests.campaign import kill, writers
from tests.campaign.common import campaign

CAMPAIGNS = {"kill": kill.attempt, "writers": writers.attempt}


def main() -> int:
    """Runs a campaign and prints tried, survived and lost; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long; 0 makes one attempt")
    parser.add_argument("--seed", type=int, default=0, help="of the first attempt; each one counts it up")
    arguments = parser.parse_args()
    tally = campaign(CAMPAIGNS[arguments.name], 60 * arguments.minutes, arguments.seed)
    print(tally.text(arguments.name))
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
