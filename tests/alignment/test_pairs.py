"""Training pairs in blocks: of any size, kept or read anew, in parts that no video shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.alignment import pairs
from pps_fast.alignment.fit import POOLINGS, fit_alignment
from pps_fast.alignment.pairs import PairSums, by_neighbors, by_rank
from pps_fast.config import AlignmentConfig, PlantedConfig
from pps_fast.data.synthetic import planted_data
from tests.support.compare import assert_agree

DATA = planted_data(PlantedConfig(num_videos=20, num_segments=20, frame_dim=6))
TRAIN = np.flatnonzero(DATA.split == "train")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_blocks_of_any_size_and_frames_that_are_read_anew_give_the_same_fit(
    pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AlignmentConfig(pooling=pooling, pooling_curve="standardized", change=0.4)
    whole = fit_alignment(DATA, TRAIN, options)
    # a block of three videos, of which nothing is kept
    monkeypatch.setattr(pairs, "_BLOCK_BYTES", 3 * 4 * 20 * 12)
    monkeypatch.setattr(pairs, "_HELD_BYTES", 0)
    streamed = fit_alignment(DATA, TRAIN, options)
    for name, value in vars(whole).items():
        assert_agree(name, getattr(streamed, name), value, rtol=1e-5, atol=1e-6)


def test_both_divisions_have_parts_of_equal_size_and_share_few_couples() -> None:
    rank = torch.arange(48)
    first, second = by_rank(rank, 4), by_neighbors(rank, 4)
    assert first.bincount().tolist() == second.bincount().tolist() == [12] * 4
    assert first[:5].tolist() == [0, 1, 2, 3, 0] and second[:5].tolist() == [0, 0, 0, 0, 1]


def test_maps_and_root_are_those_of_the_rows_that_were_added() -> None:
    random = torch.Generator().manual_seed(0)
    pooled, sentences = (torch.randn(40, width, generator=random) for width in (5, 3))
    part, options = torch.arange(40) % 3, AlignmentConfig(parts=3)
    sums, rest = PairSums(5, 3, options, torch.device("cpu")), PairSums(5, 3, options, torch.device("cpu"))
    sums.add(part, pooled, sentences)
    rest.add(part[part != 1], pooled[part != 1], sentences[part != 1])
    assert_agree("map without part 1", sums.maps_without_parts()[1], rest.fit(), rtol=1e-9, atol=1e-12)
    moment = sentences.double().T @ sentences.double() / 40
    assert_agree("root", sums.sentence_root() @ sums.sentence_root().T, moment, rtol=1e-9, atol=1e-12)
