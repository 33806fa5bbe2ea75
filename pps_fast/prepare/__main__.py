"""python -m pps_fast.prepare: annotations + features + vocabulary -> one packed file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import tyro

from pps_fast.cli import exit_status
from pps_fast.data.prepared import write_prepared
from pps_fast.prepare.build import build
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.report import format_summary

DESCRIPTION = """Turns annotations, video features and a vocabulary into the one file that training and evaluation read.

Features are averaged to a fixed number of segments per video, sentences become word classes with the probability of
each word to be hidden. Forms of files are found out by extension and content; nothing is downloaded.

examples:
  Charades-STA as published (I3D features in one HDF5 file):
    python -m pps_fast.prepare --out charades.h5 --protocol filtered --train train.json --test test.json
      --features i3d_features.hdf5 --vocabulary glove.pkl --vocab-size 1111
  Charades-STA from the original text files, all pairs:
    python -m pps_fast.prepare --out charades.h5 --protocol full --train charades_sta_train.txt
      --test charades_sta_test.txt --durations Charades_v1_train.csv Charades_v1_test.csv
      --features i3d_features.hdf5 --vocabulary glove.pkl --vocab-size 1111
  ActivityNet Captions (C3D features, one HDF5 group per video):
    python -m pps_fast.prepare --out activitynet.h5 --protocol as_is --train train.json --validation val_1.json
      --test val_2.json --features sub_activitynet_v1-3.c3d.hdf5 --feature-key c3d_features
      --vocabulary glove.6B.300d.txt --vocab-size 8000
  One annotation file divided into five folds by video (then: train --data.fold 0):
    python -m pps_fast.prepare --out clip.h5 --protocol full --pool charades_sta_test.txt
      --durations Charades_v1_test.csv --features clip.hdf5 --vocabulary glove.pkl --folds 5
  Planted features over real annotations, to see whether a run can learn at all:
    python -m pps_fast.prepare --out planted.h5 --protocol filtered --train train.json --test test.json
      --features planted --vocabulary glove.pkl --vocab-size 1111

Bad input (unknown videos, NaN, start >= end, ...) is refused with file, row and remedy; --skip-bad leaves it out and
lists it. The output appears only when it is complete.
"""


def run(options: PrepareOptions) -> int:
    """Prepares a data set, writes it and prints what it holds; returns the exit status.

    Raises:
        ValueError: for input that cannot be used.
    """
    started = time.perf_counter()
    data = build(options, show_progress=True)
    write_prepared(options.out, data)
    print(format_summary(data, options.out))
    print(f"prepared in {time.perf_counter() - started:.1f} s")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        options = tyro.cli(PrepareOptions, args=list(argv), prog="python -m pps_fast.prepare", description=DESCRIPTION)
        return run(options)

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
