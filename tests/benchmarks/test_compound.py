"""Compound queries: which couples become one, what is compared, and the search for two Gaussians."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import compound
from benchmarks.compound import compound_data, frames_of, measure, overlap, rows_of, two_gaussians
from pps_fast import PRESETS, override
from pps_fast.alignment.equations import gaussian_bank, zscored_curve
from pps_fast.alignment.windows import bank_of_gaussians, filter_moments
from pps_fast.config import PlantedConfig
from pps_fast.data.synthetic import planted_data
from tests.support.compare import assert_agree

DATA = planted_data(PlantedConfig(num_videos=30, num_segments=32, frame_dim=8))
TEST = np.flatnonzero(DATA.split == "test")
BOTH = compound_data(DATA, TEST)
COUPLES = np.arange(DATA.num_samples, BOTH.num_samples)


def test_a_compound_sentence_has_the_words_and_windows_of_two_single_events_of_its_video() -> None:
    assert len(COUPLES) > 100
    for couple in COUPLES[::7]:
        words, windows = BOTH.word_ids[couple], BOTH.truth(np.array([couple]))[0]
        video = BOTH.sample_video[couple]
        parts = [
            sample
            for sample in np.flatnonzero(DATA.sample_video == video)
            if BOTH.sentences[couple].startswith(f"{DATA.sentences[sample]} then ")
            or BOTH.sentences[couple].endswith(f" then {DATA.sentences[sample]}")
        ]
        assert len(parts) == 2 and set(DATA.kind[parts]) == {"single-event"}
        joined = np.concatenate([DATA.word_ids[sample, : DATA.num_words[sample]] for sample in parts])
        assert sorted(words[words > 0]) == sorted(joined)
        assert sorted(windows.tolist()) == sorted(DATA.moment[parts].tolist())


def test_couples_of_test_videos_lie_apart_and_those_of_training_are_all_couples() -> None:
    windows = BOTH.truth(COUPLES)
    gap = windows[:, 1, 0] - windows[:, 0, 1]
    is_test = BOTH.split[COUPLES] == "test"
    assert (gap[is_test] >= compound.MIN_GAP - 1e-12).all() and (gap[~is_test] < compound.MIN_GAP).any()
    # four single events of each of 24 training videos
    assert (~is_test).sum() == 24 * 6


def test_times_of_training_videos_do_not_choose_their_couples() -> None:
    moved = DATA.window_s.copy()
    moved[np.isin(DATA.window_sample, np.flatnonzero(DATA.split == "train"))] = [0.0, 1.0]
    other = compound_data(compound.replace(DATA, window_s=moved), TEST)
    is_train = BOTH.split == "train"
    assert np.array_equal(other.word_ids[is_train], BOTH.word_ids[is_train])


def test_overlap_is_that_of_the_unions() -> None:
    truth = frames_of(BOTH, COUPLES[-1:])
    first, second = BOTH.truth(COUPLES[-1:])[0]
    share = (first[1] - first[0]) + (second[1] - second[0])
    assert_agree("truth", truth.double().mean(), torch.tensor(share), atol=2 / compound.RESOLUTION)
    assert_agree("whole video", overlap(torch.ones_like(truth), truth) / 100, truth.double().mean(dim=1), atol=1e-12)
    assert overlap(truth, truth).item() == 100 and overlap(~truth, truth).item() == 0


def test_two_gaussians_find_both_peaks_and_are_worth_no_less_than_one() -> None:
    position = (torch.arange(32) + 0.5) / 32
    curve = torch.exp(-(((position - 0.2) / 0.08) ** 2)) + torch.exp(-(((position - 0.75) / 0.1) ** 2))
    curves = torch.stack([curve, torch.randn(32, generator=torch.Generator().manual_seed(0))])
    center, radius = bank_of_gaussians(curves.device)
    first, second = two_gaussians(curves, 0.25)
    assert_agree("centers", torch.stack([center[first[0]], center[second[0]]]).sort().values, [0.2, 0.75], atol=0.03)
    masks = gaussian_bank(center, radius, 32).float()
    both = masks[first] + masks[second]
    reward = (both * zscored_curve(curves)).sum(dim=1) / both.square().sum(dim=1).pow(0.25)
    assert (reward >= filter_moments(curves, 1, "linear").reward[:, 0] - 1e-5).all()
    assert reward[0] > 1.05 * filter_moments(curves, 1, "linear").reward[0, 0]


def test_a_run_has_every_kind_of_answer_and_its_differences(tmp_path: Path) -> None:
    changes = {"data.planted.num_videos": 30, "train.max_steps": 2, "inference.alignment_rows": False}
    config = override(PRESETS["align_demo"], changes)
    videos, values = measure(planted_data(config.data.planted), config, tmp_path)
    rows = {row["answer"]: row for row in rows_of(videos, values)}
    assert len(rows) == 4 + len(compound.MODELS)
    assert rows["whole video"]["less_whole_video"] == [0, 0, 0] and "less_one_gaussian" not in rows["whole video"]
    assert rows["alignment, two windows"]["overlap"][0] > rows["whole video"]["overlap"][0]
    assert all("less_one_gaussian" in rows[name] for name in list(compound.MODELS)[1:])
