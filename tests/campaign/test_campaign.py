"""Ten seconds of every campaign; `python -m tests.campaign` runs them for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.__main__ import CAMPAIGNS
from tests.campaign.child import Done
from tests.campaign.common import Tally, campaign
from tests.campaign.fuzz import _named_outputs, faults_of, foreign_faults


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_ten_seconds_of_a_campaign_lose_nothing(name: str, tmp_path: Path) -> None:
    attempt, prepare = CAMPAIGNS[name]
    tally = campaign(attempt, 10.0, 0, prepare, tmp_path)
    assert tally.tried > 0 and not tally.lost, tally.text(name)


def test_figures_name_every_loss_and_how_to_repeat_it() -> None:
    tally = Tally(tried=3, refused=1, kills=5, lost=["  other weights (repeat with --minutes 0 --seed 7)"])
    tally.count("train, spoil_json")
    lines = tally.text("kill").splitlines()
    assert lines[0] == "kill: tried 3, survived 2, lost 1, refused 1, kills 5"
    assert lines[1:] == ["  train, spoil_json 1", "  other weights (repeat with --minutes 0 --seed 7)"]


@pytest.mark.parametrize(
    ("status", "text", "fault"),
    [
        (2, "videos: 3\rerror: a.h5: damaged; fetch it again\n", None),
        (2, "╭─ Parsing error ─╮\n│ no option │\n╰───╯\n", None),
        (0, "R@1 mIoU 30\nnote: a file of version 1\n", None),
        (None, "", "hang"),
        (-11, "", "crash (signal 11)"),
        (1, "Traceback (most recent call last):\n  KeyError: 'x'\n", "traceback"),
        (0, "a.py:3: UserWarning: torch says\nerror: x\n", "words of a library"),
        (2, "", "status 2 without a sentence"),
        (2, f"error: {'x' * 1001}\n", "message longer than 1,000 characters"),
    ],
)
def test_a_fault_is_seen_in_how_a_program_ends(status: int | None, text: str, fault: str | None) -> None:
    assert faults_of(Done(status=status, text=text, grown=0)) == ([] if fault is None else [fault])
    assert faults_of(Done(status=0, text="", grown=2 << 30)) == ["memory: 2048 MiB"]


def test_what_is_changed_or_left_without_being_asked_for_is_seen() -> None:
    before = {"work/a": "1", "work/run/x": "1"}
    after = {"work/a": "2", "work/run/x": "2", "work/run/.tmp-x@host.7": "3", "work/b": "4"}
    assert foreign_faults(before, after, ["work/run"]) == [
        "foreign file touched: work/a",
        "foreign file touched: work/b",
        "left behind: work/run/.tmp-x@host.7",
    ]
    assert foreign_faults(before, before, []) == []


def test_only_what_was_not_there_may_be_written_because_a_command_names_it(tmp_path: Path) -> None:
    before = {"work/data.h5": "1", "work/run/x": "1"}
    argv = ["--out", "../x", "--data=data.h5", "run", ".", f"--to={tmp_path}/work/new/1", "--text", "a\0b"]
    allowed = ["work/--out", "x", "work/new/1", "work/--text", "work/new"]
    assert _named_outputs(argv, tmp_path / "work", before) == allowed
