"""python -m pps_fast.draw: pictures of queries, runs and what pull and push do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pps_fast.cli import exit_status, parse
from pps_fast.draw.options import Curves, PictureOptions, Timeline, Trajectories, Variants
from pps_fast.help_text import Program

PROGRAM: Program[Any] = Program(
    name="draw",
    description="""Draws pictures of runs of `python -m pps_fast.train`. Needs matplotlib: pip install 'pps_fast[plot]'.

Without --sample or --query, the longest sentence of the split is drawn, the first of equals: the choice looks at no
model's answer. `python -m pps_fast.draw PICTURE --help` lists the options of a picture. Pictures:""",
    options=PictureOptions,  # type: ignore[arg-type]  # a union stands for its subcommands
    subcommands={"timeline": Timeline, "variants": Variants, "curves": Curves, "trajectories": Trajectories},
    aliases={"--checkpoint": "--model", "--checkpoints": "--models"},
    examples="""python -m pps_fast.draw timeline --model runs/demo
python -m pps_fast.draw timeline --model runs/demo --query "opens the door" --out door.svg
python -m pps_fast.draw variants --models runs/demo runs/without_push --labels full "without push"
python -m pps_fast.draw curves --runs runs/demo runs/without_push
python -m pps_fast.train --train.trace-every 5 --out runs/traced
python -m pps_fast.draw trajectories --runs runs/traced""",
)


def run(options: Timeline | Variants | Curves | Trajectories) -> int:
    """Draws, writes and says where; returns the exit status.

    Raises:
        ValueError: for runs, data or options that cannot be used, or matplotlib not installed.
    """
    from pps_fast.draw.pictures import draw

    print(f"written: {draw(options)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
