"""Scorers: the answer first, and blocks of windows that change nothing."""

from __future__ import annotations

import pytest
import torch

import pps_fast
from pps_fast.ground import scorers
from pps_fast.predict import SELECTORS, predict
from tests.support.eval_fakes import DATA, output_of
from tests.support.grounders import alignment_run


@pytest.mark.parametrize("selector", sorted(SELECTORS.keys() - {"alignment"}))
def test_the_chosen_moment_comes_first_and_the_others_by_rising_loss(selector: str) -> None:
    random = torch.Generator().manual_seed(0)
    spans = torch.rand(9, 5, 2, generator=random).sort(dim=-1).values
    prediction = predict(output_of(torch.rand(9, 5, generator=random), spans), selector)
    ranked = scorers._answer_first(prediction)
    assert torch.equal(ranked.spans[:, 0], prediction.top1)
    rest = ranked.nll[:, 1:]
    assert torch.equal(rest, rest.sort(dim=1).values)
    assert torch.equal(ranked.nll.sort(dim=1).values, prediction.nll)


def test_blocks_of_windows_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    grounder = pps_fast.load(alignment_run())
    videos = [grounder.encode(DATA.features[video], name=str(video)) for video in range(5)]
    whole = grounder.search(videos, DATA.sentences[:3])
    monkeypatch.setattr(scorers, "_BLOCK", 2)
    for one, other in zip(whole, grounder.search(videos, DATA.sentences[:3]), strict=True):
        assert [m.video for m in one] == [m.video for m in other]
        assert [m.match for m in one] == pytest.approx([m.match for m in other], rel=1e-5)
