"""python -m pps_fast.train: one line about the data, a report at the end, mistakes as one line."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from pps_fast import pipeline
from pps_fast.presets import PRESETS
from pps_fast.runs.checkpoint import load_model
from pps_fast.train import __main__ as command
from tests.support.train_runs import small_config

OPTIONS = ["--preset", "tiny", "--data.planted.num-videos", "10", "--train.max-steps", "3", "--device", "cpu"]


def test_help_teaches_presets_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", text) for name in PRESETS)
    for part in ("python -m pps_fast.train --preset", "--resume", "--losses.pull", "--out", "--device", "--threads"):
        assert part in text


def test_run_trains_evaluates_and_reports(tmp_path, capsys):
    run = tmp_path / "run"
    assert command.main([*OPTIONS, "--out", str(run), "--losses.pull", "0"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("data planted: 10 videos of 16 segments x 8, samples: train 48, validation 0, test 12")
    assert "whole video" in output and "step_000003" in output
    assert "The intervals mean nothing: 2 videos are too few to resample; take 10 at least." in " ".join(output.split())
    assert json.loads((run / "evaluation_test.json").read_text())["num_samples"] == 12
    assert load_model(run)[1] == small_config(
        train__max_steps=3, losses__pull=0.0, train__log_every=10, train__checkpoint_every=200
    )


def test_a_step_beyond_the_free_memory_is_told_before_the_first(tmp_path, capsys, monkeypatch):
    remedy = "lower --train.batch-size or use a larger machine"
    for free, status, word, end in (
        (300_000, 0, "note", f"293.0 KiB are free: the system may stop it; {remedy}"),
        (1000, 2, "error", f"1000 bytes are free; {remedy}"),
    ):
        monkeypatch.setattr(command, "free_memory_of", lambda device, free=free: free)
        assert command.main([*OPTIONS, "--out", str(tmp_path / word)]) == status
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{word}: ")]
        assert len(lines) == 1 and lines[0].startswith(f"{word}: a step of 8 samples needs about ")
        assert lines[0].endswith(end)


def test_a_batch_is_estimated_by_the_samples_that_there_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "free_memory_of", lambda device: 1000)
    assert command.main([*OPTIONS, "--out", str(tmp_path / "run"), "--train.batch-size=1000000"]) == 2
    assert "error: a step of 48 samples needs about " in capsys.readouterr().err


def test_segments_that_repeat_frames_are_told_before_the_first_step(tmp_path, capsys, monkeypatch):
    load = pipeline.load_data

    def load_short(config, **options):
        data = load(config, **options)
        return replace(data, num_frames=np.full(len(data.video_ids), 8))

    monkeypatch.setattr(pipeline, "load_data", load_short)
    assert command.main([*OPTIONS, "--out", str(tmp_path / "run")]) == 0
    second = capsys.readouterr().out.splitlines()[1]
    assert second.startswith("note: 16 segments are more than most videos have frames (median 8)")


def test_without_arguments_the_demo_trains_into_runs_demo(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "run", lambda arguments: seen.append(arguments) or 0)
    assert command.main([]) == 0
    assert seen == [command.TrainArguments(preset="demo", config=PRESETS["demo"])]


def test_run_directory_follows_the_preset(monkeypatch):
    seen = []

    def stop(config, out, **options):
        seen.append(out.as_posix())
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train_and_evaluate", stop)
    assert command.main(OPTIONS) == 130
    assert seen == ["runs/tiny"]


def test_second_run_in_the_same_place_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "something").write_text("")
    assert command.main([*OPTIONS, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "--resume" in error


def test_stopped_run_says_how_to_go_on_and_is_not_evaluated(tmp_path, capsys, monkeypatch):
    learn = pipeline.train

    def train(config, store, splits, directory, **options):
        result = learn(config, store, splits, directory, progress=False)
        return type(result)(model=result.model, step=result.step, stopped_by=signal.SIGTERM)

    monkeypatch.setattr(pipeline, "train", train)
    assert command.main([*OPTIONS, "--out", str(tmp_path / "run")]) == 143
    output = capsys.readouterr().out
    assert "stopped by SIGTERM after step 3" in output and "--resume" in output
    assert (tmp_path / "run" / "ops.json").exists() and not (tmp_path / "run" / "evaluation_test.json").exists()


def test_resume_alone_takes_the_options_of_the_run_and_says_that_it_is_finished(tmp_path, capsys):
    run = tmp_path / "run"
    assert command.main([*OPTIONS, "--out", str(run), "--losses.pull", "0.25"]) == 0
    before = (run / "config.json").read_text()
    capsys.readouterr()
    assert command.main(["--resume", "--out", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "note: finished before: all 3 steps are done" in printed.err and "model, shuffled queries" in printed.out
    assert (run / "config.json").read_text() == before
    assert command.main(["--resume", f"--out={run}", "--train.max-steps", "4", "--device", "cpu"]) == 0
    assert load_model(run)[1].losses.pull == 0.25 and "step_000004" in capsys.readouterr().out
    assert command.main(["--resume", "--out", str(tmp_path / "none")]) == 2
    assert "no run to resume here" in capsys.readouterr().err


def test_a_preset_for_real_videos_does_not_train_on_the_embedded_data(tmp_path, capsys):
    assert command.main(["--preset", "charades", "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: --preset charades: is for prepared data; name the file with --data FILE")
    assert not (tmp_path / "run").exists()
