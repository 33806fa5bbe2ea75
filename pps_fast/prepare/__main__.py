"""python -m pps_fast.prepare: annotations + features + vocabulary -> one packed file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pps_fast.cli import exit_status, parse
from pps_fast.help_text import Program
from pps_fast.prepare.options import PrepareOptions

PROGRAM = Program(
    name="prepare",
    description="""Packs annotations, video features and word vectors into the one file that training and evaluation
read. Formats are recognized by extension and content; nothing is downloaded. Bad input (unknown videos, NaN, start >=
end) is refused with file, row and remedy.""",
    options=PrepareOptions,
    first=(
        "out", "protocol", "features", "vocabulary", "train", "validation", "test", "pool", "folds", "durations",
        "num_segments", "vocab_size", "skip_bad",
    ),
    more="""Features are averaged to a fixed number of segments per video; each word of a sentence becomes a class, with
a probability of being hidden in training. The output appears only when it is complete.

Charades-STA from the original text files, all pairs:
  python -m pps_fast.prepare --out charades.h5 --protocol full --train charades_sta_train.txt
    --test charades_sta_test.txt --durations Charades_v1_train.csv Charades_v1_test.csv
    --features i3d_features.hdf5 --vocabulary glove.pkl --vocab-size 1111
ActivityNet Captions (C3D features, one HDF5 group for each video):
  python -m pps_fast.prepare --out activitynet.h5 --protocol as_is --train train.json --validation val_1.json
    --test val_2.json --features sub_activitynet_v1-3.c3d.hdf5 --feature-key c3d_features
    --vocabulary glove.6B.300d.txt --vocab-size 8000
Planted features over real annotations, to see whether a run can learn at all:
  python -m pps_fast.prepare --out planted.h5 --protocol filtered --train train.json --test test.json
    --features planted --vocabulary glove.pkl --vocab-size 1111""",
    examples="""python -m pps_fast.prepare --out charades.h5 --protocol filtered --train train.json --test test.json
  --features i3d_features.hdf5 --vocabulary glove.pkl --vocab-size 1111
python -m pps_fast.prepare --out clip.h5 --protocol full --pool charades_sta_test.txt --folds 5
  --durations Charades_v1_test.csv --features clip.hdf5 --vocabulary glove.pkl""",
)  # fmt: skip


def run(options: PrepareOptions) -> int:
    """Prepares a data set, writes it and prints what it holds; returns the exit status.

    Raises:
        ValueError: for input that cannot be used.
    """
    from pps_fast.prepare.build import prepare
    from pps_fast.prepare.report import format_summary

    started = time.perf_counter()
    replaced = ", replaces an earlier data set" if options.out.exists() else ""
    data, frame_dim = prepare(options, show_progress=True)
    print(format_summary(data, frame_dim, options.out) + replaced)
    print(f"prepared in {time.perf_counter() - started:.1f} s")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
