"""Measures answers of fitted alignments: is `match` reliable, is the right video retrieved, how long does a query take.

    python -m benchmarks.grounding --data charades_clip.h5 --folds 2 3 4 --out grounding.json

For each fold an alignment is fitted to the others, and every sentence of the fold is asked of all its videos. Own and
other videos weigh equally in calibration, as in the model's own record. Times are medians on one CPU thread, of videos
that were encoded before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pps_fast import PRESETS, Grounder, load, override
from pps_fast.alignment.confidence import calibration_error
from pps_fast.data.identity import describe_data
from pps_fast.data.prepared import PreparedData, read_prepared
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.files import write_json
from pps_fast.runs.environment import environment
from pps_fast.train.closed_form import fit_in_closed_form

NUM_TIMED = 40


def measure(data: PreparedData, name: str, fold: int) -> dict[str, Any]:
    """Fits to all folds but one, and measures on that one."""
    config = override(PRESETS["alignment"], {"data.path": name, "data.fold": fold})
    splits = select_samples(data, config.data)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit_in_closed_form(config, Store(data), splits, run, resume=False, progress=False)
        grounder = load(run)
    rows = np.unique(data.sample_video[splits.test])
    began = time.perf_counter()
    videos = [grounder.encode(data.features[row], name=data.video_ids[row]) for row in rows]
    encode_ms = 1000 * (time.perf_counter() - began) / len(videos)
    sentences = [data.sentences[sample] for sample in splits.test]
    answers = grounder.ground_all(videos, sentences, top=1)
    match = torch.tensor([[answer.match for answer in column] for column in answers]).T.double()
    is_right = torch.from_numpy(data.sample_video[splits.test])[:, None] == torch.from_numpy(rows)
    right, other = match[is_right], match[~is_right]
    rank = (match > right[:, None]).sum(dim=1)
    below = torch.searchsorted(other.sort().values, right) / len(other)
    return {
        "fold": fold,
        "sentences": len(sentences),
        "videos": len(videos),
        "auc": below.mean().item(),
        "calibration_error": calibration_error(right, other),
        "record_of_the_model": {name: getattr(grounder.confidence, name) for name in ("auc", "calibration_error")},
        "reliability": reliability(right, other),
        "percent_first": 100 * (rank < 1).double().mean().item(),
        "percent_in_first_ten": 100 * (rank < 10).double().mean().item(),
        "encode_ms_per_video": encode_ms,
        **times(grounder, videos, sentences[:NUM_TIMED]),
    }


def times(grounder: Grounder, videos: list[Any], sentences: list[str]) -> dict[str, float]:
    """Returns the median milliseconds of a sentence about one video, and about all."""

    def median_ms(ask: Callable[[str], Any]) -> float:
        ask(sentences[0])
        spent = []
        for sentence in sentences:
            began = time.perf_counter()
            ask(sentence)
            spent.append(time.perf_counter() - began)
        return 1000 * statistics.median(spent)

    return {
        "ms_one_video": median_ms(lambda sentence: grounder.ground(videos[0], sentence)),
        "ms_all_videos": median_ms(lambda sentence: grounder.search(videos, [sentence])),
    }


def reliability(right: torch.Tensor, other: torch.Tensor) -> list[dict[str, float]]:
    """Returns mean match, share of right videos and weight of ten equal ranges of match, those that occur."""
    match = torch.cat([right, other])
    weight = torch.cat([torch.full_like(right, 0.5 / len(right)), torch.full_like(other, 0.5 / len(other))])
    is_right = torch.cat([torch.ones_like(right), torch.zeros_like(other)])
    rows = []
    for low in range(10):
        inside = weight * ((match * 10).long().clamp(max=9) == low)
        if total := inside.sum().item():
            share = (inside * is_right).sum().item() / total
            rows.append({"match": (inside * match).sum().item() / total, "share_right": share, "weight": total})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="prepared files with folds")
    parser.add_argument("--folds", type=int, nargs="+", default=[2, 3, 4], help="folds to measure on")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = []
    for path in arguments.data:
        data = read_prepared(path)
        for fold in arguments.folds:
            row = measure(data, path.name, fold)
            results.append({"data": path.stem, **row})
            print({name: value for name, value in results[-1].items() if name != "reliability"}, flush=True)
        results[-len(arguments.folds)]["identity"] = describe_data(data)["sha256"]
    if arguments.out is not None:
        write_json(arguments.out, {"benchmark": "grounding", "rows": results, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
