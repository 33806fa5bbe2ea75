"""python -m tests.campaign kill|writers|fuzz|full-disk --minutes N --seed S: tries to lose something."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.campaign import disk, fuzz, kill, writers
from tests.campaign.common import campaign, reference

CAMPAIGNS = {
    "kill": (kill.attempt, reference),
    "writers": (writers.attempt, reference),
    "fuzz": (fuzz.attempt, fuzz.prepare),
    "full-disk": (disk.attempt, fuzz.prepare),
}


def main() -> int:
    """Runs a campaign and prints tried, survived and lost; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long; 0 makes one attempt")
    parser.add_argument("--seed", type=int, default=0, help="of the first attempt; each one counts it up")
    parser.add_argument("--keep", type=Path, default=Path("build/campaign"), help="where the files of losses are kept")
    arguments = parser.parse_args()
    attempt, prepare = CAMPAIGNS[arguments.name]
    tally = campaign(attempt, 60 * arguments.minutes, arguments.seed, prepare, arguments.keep)
    print(tally.text(arguments.name))
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
