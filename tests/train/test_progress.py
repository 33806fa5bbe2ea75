"""Progress of a training: a bar on a terminal, lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import re
import sys

import pytest

from pps_fast.files import Note
from pps_fast.train.progress import Progress, duration
from tests.support.train_runs import small_config, small_input


def _show(is_shown: bool = True) -> None:
    with Progress(total=10, done=4, epochs=2, is_shown=is_shown) as progress:
        progress.begin_epoch(1)
        for step in (5, 6):
            progress.update()
            progress.log(step=step, epoch=1, loss=1.25, samples_per_s=321.4)


def test_off_a_terminal_every_log_is_one_line(capsys):
    _show()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"step 6/10, epoch 1/2, loss 1\.250, 321 samples/s, \d+ s left", lines[1])


def test_on_a_terminal_there_is_a_bar_and_no_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _show()
    text = capsys.readouterr().err
    assert "epoch 1/2" in text and "6/10" in text and "loss=1.250" in text and "samples/s" not in text


def test_nothing_is_shown_where_it_is_not_wanted(capsys):
    _show(is_shown=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min")])
def test_durations_are_rounded_to_what_a_reader_needs(seconds, text):
    assert duration(seconds) == text


def test_training_shows_a_line_every_log_every_steps_and_after_the_last(tmp_path, capsys):
    from pps_fast.train.loop import train

    config = small_config(train__max_steps=5, train__log_every=2)
    train(config, *small_input(config), tmp_path / "run")
    steps = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["step 2/5", "step 4/5", "step 5/5"]


def test_a_run_with_nothing_left_to_do_says_so():
    with pytest.warns(
        Note, match="finished before: all 10 steps are done, only the evaluation is repeated; to train on"
    ):
        Progress(total=10, done=10, epochs=2, is_shown=False)
