"""Measures whether a mixture pays where a sentence has two events: made-up compound queries, "A then B".

    python -m benchmarks.compound --data charades_clip.h5 --folds 2 3 4 --out compound.jsonl
    python -m benchmarks.compound

Two sentences of one video become one. In training any two do, without a time; of the test videos those whose moments
are at least a tenth of the video apart. The truth are both moments, and an answer is a set of frames: where its mask is
above e^-2 of its peak. The score is the mean intersection over union of both sets, in percent, with intervals by video.
Without --data: planted videos, where A and B are single events.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import Row, about_machine, append, short
from pps_fast import PRESETS, PPSConfig, load_model, override, train_and_evaluate
from pps_fast.alignment.equations import ENERGY_FLOOR, gaussian_bank, zscored_curve
from pps_fast.alignment.windows import READING, bank_of_gaussians, bank_rewards, window_moments
from pps_fast.data.identity import describe_data
from pps_fast.data.packing import write_prepared
from pps_fast.data.prepared import PreparedData, read_prepared
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data
from pps_fast.eval.bootstrap import VideoBootstrap
from pps_fast.model import PPS
from pps_fast.proposals.readings import LOG_LEVEL

KIND = "compound"
MIN_GAP = 0.1
"""share of the video between the moments of a compound query"""
RESOLUTION = 256
"""points of a video at which answers and truth are compared"""
_SINGLE = {"proposals.layout": "uniform", "proposals.components_per_proposal": 1}
_SINGLE |= {"losses.pull": 0.0, "losses.push_intra": 0.0}
_MIXTURE = {"proposals.layout": "uniform", "proposals.components_per_proposal": 2}
MODELS: dict[str, dict[str, Any]] = {
    "PPS with alignment, one Gaussian": _SINGLE,
    "PPS with alignment, mixture of two": _MIXTURE,
    "PPS with alignment, mixture of two, without pull": {**_MIXTURE, "losses.pull": 0.0},
}
WHOLE_VIDEO = "whole video"
ONE_GAUSSIAN = {"alignment": "alignment, one Gaussian", "PPS": "PPS with alignment, one Gaussian"}
"""beginning of an answer's name -> the answer of its kind with one Gaussian"""


def compound_data(data: PreparedData, test: np.ndarray) -> PreparedData:
    """Returns a data set of compound sentences beside its own: of test videos apart in time, of the others any two.

    Args:
        test: [n] int64 samples of the test split; a compound query's windows are the first windows of both.
    """
    is_test, moment = np.zeros(data.num_samples, dtype=bool), data.moment
    is_test[test] = True
    couples = []
    for members in _by_video(data):
        if not is_test[members[0]]:
            couples += combinations(members, 2)
            continue
        for first, second in combinations(sorted(members, key=lambda sample: moment[sample, 0]), 2):
            if moment[second, 0] - moment[first, 1] >= MIN_GAP:
                couples.append((first, second))
    return _with_couples(data, np.array(couples).reshape(-1, 2))


def _by_video(data: PreparedData) -> Iterator[list[int]]:
    """Yields the samples of each video that have some, without planted sentences of two events."""
    order = np.argsort(data.sample_video, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(data.sample_video[order])) + 1):
        if single := [int(sample) for sample in members if _is_single(data, sample)]:
            yield single


def _is_single(data: PreparedData, sample: int) -> bool:
    return data.kind is None or data.kind[sample] != "multi-event"


def _with_couples(data: PreparedData, couples: np.ndarray) -> PreparedData:
    """Returns the samples and, behind them, the couples [n, 2] as samples of kind `KIND` with two windows."""
    first, second = couples.T
    both = [np.concatenate([_words(data, a), _words(data, b)]) for a, b in couples]
    word_ids = np.zeros((data.num_samples + len(couples), 2 * data.word_ids.shape[1]), dtype=np.int64)
    word_ids[: data.num_samples, : data.word_ids.shape[1]] = data.word_ids
    for row, words in zip(word_ids[data.num_samples :], both, strict=True):
        row[: len(words)] = words
    num_words = (word_ids > 0).sum(axis=1)
    kind = data.kind if data.kind is not None else np.full(data.num_samples, "single", dtype=object)
    windows, index = data.moment_s, np.arange(len(couples))
    return replace(
        data,
        sample_video=np.concatenate([data.sample_video, data.sample_video[first]]),
        sentences=[*data.sentences, *(f"{data.sentences[a]} then {data.sentences[b]}" for a, b in couples)],
        word_ids=word_ids,
        num_words=num_words,
        # nothing is rebuilt here
        hide_prob=np.where(word_ids > 0, 1 / num_words[:, None], 0).astype(np.float32),
        window_s=np.concatenate([data.window_s, windows[couples.flatten()]]),
        window_sample=np.concatenate([data.window_sample, data.num_samples + np.repeat(index, 2)]),
        split=np.concatenate([data.split, data.split[first]]),
        fold=np.concatenate([data.fold, data.fold[first]]),
        kind=np.concatenate([kind, np.full(len(couples), KIND, dtype=object)]),
        query_id=None,
        sentence_vectors=None,
    )


def _words(data: PreparedData, sample: int) -> np.ndarray:
    return data.word_ids[sample, : data.num_words[sample]]


def frames_of(data: PreparedData, samples: np.ndarray) -> Tensor:
    """Returns [n, RESOLUTION] bool, which points of its video are in any window of a sample."""
    point = (np.arange(RESOLUTION) + 0.5) / RESOLUTION
    truth = data.truth(samples)[..., None]  # [n, windows, 2, 1]
    return torch.from_numpy(((point >= truth[:, :, 0]) & (point < truth[:, :, 1])).any(axis=1))


def overlap(answer: Tensor, truth: Tensor) -> Tensor:
    """Returns [n] float64 percent, intersection over union of sets of points, [n, RESOLUTION] bool each."""
    return 100 * (answer & truth).sum(dim=1).double() / (answer | truth).sum(dim=1)


def two_gaussians(curve: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Returns candidates of the bank [B] each: the couple whose sum has the largest reward, found by turns.

    The first is the single Gaussian of largest reward; then each in turn becomes the best beside the other, thrice.

    Args:
        curve: [B, S].
        power: of the energy in the reward.
    """
    masks = gaussian_bank(*bank_of_gaussians(curve.device), curve.shape[1]).to(curve.dtype)  # [c, S]
    along, products = zscored_curve(curve) @ masks.T, masks @ masks.T
    energy = products.diagonal()
    first = (along / (energy + ENERGY_FLOOR).pow(power)).argmax(dim=1)
    second = first
    for _ in range(3):
        for turn in (0, 1):
            other = first if turn == 0 else second
            total = energy + energy[other, None] + 2 * products[other]
            best = ((along + along.gather(1, other[:, None])) / (total + ENERGY_FLOOR).pow(power)).argmax(dim=1)
            first, second = (first, best) if turn == 0 else (best, second)
    return first, second


def closed_form(model: PPS, store: Store, samples: np.ndarray) -> dict[str, Tensor]:
    """Returns the sets of points [n, RESOLUTION] that are read from the curves of the model's alignment alone."""
    if model.alignment is None:
        raise ValueError("benchmarks.compound: the model has no alignment")
    curve = model.alignment(store.batch(samples, seed=0))
    power = READING[model.alignment.options.curve][0]
    fine = gaussian_bank(*bank_of_gaussians(curve.device), RESOLUTION).to(curve.dtype)
    masks = gaussian_bank(*bank_of_gaussians(curve.device), curve.shape[1]).to(curve.dtype)
    reward = bank_rewards(zscored_curve(curve), masks, power)
    first, second = two_gaussians(curve, power)
    windows = window_moments(curve, 2, model.alignment.options.curve).masks > 0
    point = (torch.arange(RESOLUTION) * curve.shape[1]) // RESOLUTION
    return {
        WHOLE_VIDEO: torch.ones(len(samples), RESOLUTION, dtype=torch.bool),
        "alignment, one Gaussian": _above_level(fine[reward.argmax(dim=1)].log()),
        "alignment, two Gaussians": _above_level((fine[first] + fine[second]).log()),
        "alignment, two windows": windows.any(dim=1)[:, point],
    }


def proposed(model: PPS, store: Store, samples: np.ndarray) -> Tensor:
    """Returns the sets of points [n, RESOLUTION] of the proposals with the largest reward."""
    output = model(store.batch(samples, seed=0), with_negatives=False)
    best = output.reward.argmax(dim=1)
    log_masks = output.proposals.log_masks[torch.arange(len(best)), best]  # [n, T], position t at t / (T - 1)
    fine = torch.nn.functional.interpolate(log_masks[:, None], RESOLUTION, mode="linear", align_corners=True)
    return _above_level(fine[:, 0])


def _above_level(log_masks: Tensor) -> Tensor:
    return log_masks - log_masks.amax(dim=1, keepdim=True) >= LOG_LEVEL


def measure(data: PreparedData, config: PPSConfig, folder: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """Trains `MODELS`; returns the videos [n] of the compound test queries, and overlaps [n] of each kind of answer."""
    split = select_samples(data, config.data)
    both = compound_data(data, split.test)
    path = folder / "compound.h5"
    write_prepared(path, both)
    both = read_prepared(path)
    test = select_samples(both, config.data).test
    samples = test[both.kind[test] == KIND] if both.kind is not None else test
    store, truth, answers = Store(both), frames_of(both, samples), {}
    for name, changes in MODELS.items():
        run = folder / name.replace(" ", "_")
        trained = train_and_evaluate(override(config, {"data.path": str(path), **changes}), run, progress=False)
        if trained.stopped_by is not None:
            # a model that was not trained to its end would be measured
            raise KeyboardInterrupt
        model = load_model(run)[0].eval()
        with torch.no_grad():
            answers |= closed_form(model, store, samples) if not answers else {}
            answers[name] = proposed(model, store, samples)
    values = {name: overlap(answer, truth) for name, answer in answers.items()}
    return torch.from_numpy(both.sample_video[samples]), values


def rows_of(videos: Tensor, values: dict[str, Tensor]) -> list[Row]:
    """Returns a row for each kind of answer: its overlap, and less that of the whole video and of one Gaussian."""
    bootstrap = VideoBootstrap(videos, num_resamples=1000, seed=0)
    rows = []
    for name, overlaps in values.items():
        columns = {"overlap": overlaps, "less_whole_video": overlaps - values[WHOLE_VIDEO]}
        single = next((one for prefix, one in ONE_GAUSSIAN.items() if name.startswith(prefix)), None)
        if single is not None and single != name:
            columns["less_one_gaussian"] = overlaps - values[single]
        estimates = {column: bootstrap.estimate(value) for column, value in columns.items()}
        intervals = {column: [short(x) for x in (one.value, one.low, one.high)] for column, one in estimates.items()}
        rows.append({"answer": name, **intervals})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="prepared file with folds; default: planted videos")
    parser.add_argument("--folds", type=int, nargs="+", default=[2, 3, 4], help="folds to measure on")
    parser.add_argument("--epochs", type=int, default=6, help="of each training")
    parser.add_argument("--out", type=Path, help="also append the rows to this file of JSON lines")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    changes: dict[str, Any] = {"train.epochs": arguments.epochs, "inference.alignment_rows": False}
    name, folds = "align_demo", [None]
    if arguments.data is not None:
        name, folds = "charades_clip_align_small", arguments.folds
    config = override(PRESETS[name], changes)
    data = planted_data(config.data.planted) if arguments.data is None else read_prepared(arguments.data)
    parts = []
    for fold in folds:
        with tempfile.TemporaryDirectory() as folder:
            parts.append(measure(data, override(config, {"data.fold": fold}), Path(folder)))
    videos = torch.cat([part[0] for part in parts])
    values = {row: torch.cat([part[1][row] for part in parts]) for row in parts[0][1]}
    about = {"benchmark": "compound", "data": "planted" if arguments.data is None else arguments.data.stem}
    about |= {"sha256": describe_data(data)["sha256"], "preset": name, "folds": folds, **changes}
    about |= {"queries": len(videos), "videos": len(videos.unique()), **about_machine(torch.device("cpu"))}
    rows = [{**about, **row} for row in rows_of(videos, values)]
    for row in rows:
        print(
            row["answer"], *(row[name] for name in ("overlap", "less_whole_video", "less_one_gaussian") if name in row)
        )
    append(arguments.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
