"""Ten seconds of every campaign; `python -m tests.campaign` runs them for longer."""

from __future__ import annotations

import pytest

from tests.campaign.__main__ import CAMPAIGNS
from tests.campaign.common import Tally, campaign


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_ten_seconds_of_a_campaign_lose_nothing(name: str) -> None:
    tally = campaign(CAMPAIGNS[name], 10.0, seed=0)
    assert tally.tried > 0 and not tally.lost, tally.text(name)


def test_figures_name_every_loss_and_how_to_repeat_it() -> None:
    text = Tally(tried=3, refused=1, lost=["  other weights (repeat with --minutes 0 --seed 7)"]).text("kill")
    assert text.splitlines()[0] == "kill: tried 3, survived 2, lost 1, refused 1" and "--seed 7" in text
