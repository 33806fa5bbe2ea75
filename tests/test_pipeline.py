"""One function trains and evaluates, another evaluates what was saved; both say the same about the same model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast import pipeline
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.prepared import write_prepared
from pps_fast.data.splits import select_samples
from pps_fast.files import Note
from pps_fast.pipeline import RunResult, evaluate, evaluate_checkpoint, train_and_evaluate
from pps_fast.runs.checkpoint import load_model
from tests.support.compare import assert_agree
from tests.support.prepared_data import write_version_1
from tests.support.train_runs import small_config, weights

CONFIG = small_config(train__max_steps=3, inference__num_bootstrap=20)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    run = tmp_path_factory.mktemp("runs") / "run"
    return train_and_evaluate(CONFIG, run, device="cpu", threads=1, progress=False)


def test_run_is_trained_evaluated_and_written(result):
    run = result.model_dir.parents[1]
    assert (result.step, result.stopped_by, result.device.type) == (3, None, "cpu")
    assert result.model_dir == run / "checkpoints" / "step_000003"
    names = ("evaluation_test.json", "evaluation_test.md", "predictions_test.jsonl")
    assert result.written == tuple(run / name for name in names)
    assert json.loads(result.written[0].read_text())["headline"] == result.report.headline
    assert result.report.num_samples == len(select_samples(result.data, CONFIG.data).test)


def test_saved_model_scores_as_it_did_after_training(result, tmp_path):
    again = evaluate(result.model_dir, device="cpu")
    assert again.rows == result.report.rows and again.headline == result.report.headline
    other = evaluate(str(result.model_dir), split="train", seed=5, selector="lowest_loss", out=tmp_path, device="cpu")
    assert (other.split, other.seed, other.selector) == ("train", 5, "lowest_loss")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation_train.json",
        "evaluation_train.md",
        "predictions_train.jsonl",
    ]


def test_on_start_sees_the_data_before_anything_is_written(tmp_path):
    seen = []

    def stop(run_input: pipeline.RunInput) -> None:
        written = {path.name for path in (tmp_path / "run").iterdir()}
        seen.append((len(run_input.splits.train), run_input.store.device.type, written))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(CONFIG, tmp_path / "run", device="cpu", on_start=stop)
    assert seen == [(48, "cpu", {"lock.json"})] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_aligned", [False, True], ids=["plain", "with alignment"])
def test_a_run_is_the_same_wherever_its_features_live_also_where_it_continues_elsewhere(is_aligned, tmp_path):
    write_prepared(tmp_path / "data.h5", load_data(CONFIG.data))
    changes = {"data.path": str(tmp_path / "data.h5"), "train.max_steps": 8, "data.validation_fraction": 0.3}
    changes |= {"train.evaluate_every": 1, "train.trace_every": 2, "train.keep": "validation"}
    changes |= {"losses.alignment": 1.0, "encoder.frames": "centered"} if is_aligned else {}
    config = override(CONFIG, changes)
    files: dict[str, list[bytes]] = {}
    for names in (("device",), ("host",), ("disk",), ("device", "disk"), ("disk", "device")):
        run = tmp_path / "-".join(names)
        for number, name in enumerate(names, start=1):
            steps = {"data.residence": name, "train.max_steps": 8 if number == len(names) else 5}
            train_and_evaluate(override(config, steps), run, resume=number > 1, device="cpu", progress=False)
        scored = [(run / name).read_bytes() for name in ("predictions_test.jsonl", "evaluation_test.md")]
        files[run.name] = [*weights(run).values(), *scored]
    assert all(content == files["device"] for content in files.values())
    again = evaluate_checkpoint(tmp_path / "device", {"data.residence": "disk"}, device="cpu", out=tmp_path / "again")
    assert again.data.features.path == tmp_path / "data.h5"
    assert (tmp_path / "again" / "predictions_test.jsonl").read_bytes() == files["device"][-2]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_that_cannot_be_used_is_refused_before_the_data_are_read(resume, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "load_data", lambda *config, **options: pytest.fail("data were read"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no run to resume" if resume else "not empty"):
        train_and_evaluate(CONFIG, tmp_path, resume=resume)


def test_a_run_finds_its_data_from_another_directory(tmp_path, monkeypatch):
    write_prepared(tmp_path / "data.h5", load_data(CONFIG.data))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    train_and_evaluate(override(CONFIG, {"data.path": "data.h5"}), "run", device="cpu", progress=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate("../run", device="cpu").num_samples == 12


def test_auto_is_decided_when_a_run_begins_and_kept_when_it_is_resumed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, auto = [], override(CONFIG, {"train.precision": "auto"})
    run = {"device": "cpu", "threads": 1, "progress": False, "on_start": seen.append}
    monkeypatch.setattr(pipeline, "choose_precision", lambda device: ("bf16", "a test says so"))
    train_and_evaluate(override(auto, {"train.max_steps": 1}), tmp_path, **run)
    monkeypatch.setattr(pipeline, "choose_precision", lambda device: ("fp32", "another machine"))
    train_and_evaluate(auto, tmp_path, resume=True, **run)
    assert [(each.config.train.precision, each.reason) for each in seen] == [
        ("bf16", "a test says so"),
        ("bf16", "the run began with it"),
    ]
    assert load_model(tmp_path)[1].train.precision == "bf16"


def test_an_evaluation_in_bf16_rounds_and_is_asked_for(result: RunResult) -> None:
    spans, again = (
        evaluate(result.model_dir, device="cpu", precision=precision).answers.prediction.spans[..., 0]
        for precision in ("fp32", "bf16")
    )
    assert_agree("fp32", spans, result.report.answers.prediction.spans[..., 0])
    assert not torch.equal(again, spans)
    # centers and widths are sigmoids of a product in bf16
    assert_agree("bf16", again.sort().values, spans.sort().values, atol=0.02)


def test_resumed_run_ends_like_one_that_was_not_stopped(result, tmp_path):
    train_and_evaluate(override(CONFIG, {"train.max_steps": 1}), tmp_path, device="cpu", threads=1, progress=False)
    resumed = train_and_evaluate(CONFIG, tmp_path, resume=True, device="cpu", threads=1, progress=False)
    assert weights(tmp_path) == weights(result.model_dir.parents[1])
    assert resumed.report.rows == result.report.rows


def test_validation_split_chooses_the_model_that_is_reported(tmp_path, monkeypatch):
    scored, score = [], pipeline.scoring.score

    def spy(model, store, samples, *others):
        scored.append(samples.tolist())
        return score(model, store, samples, *others)

    monkeypatch.setattr(pipeline.scoring, "score", spy)
    config = override(CONFIG, {"train.keep": "validation", "data.validation_fraction": 0.2})
    trained = train_and_evaluate(config, tmp_path / "run", device="cpu", progress=False)
    assert scored == [select_samples(trained.data, config.data).validation.tolist()]
    assert json.loads((tmp_path / "run" / "best.json").read_text())["step"] == 3


def test_another_data_set_is_scored_with_a_warning(result, tmp_path):
    file = tmp_path / "other.h5"
    write_prepared(file, load_data(override(CONFIG.data, {"planted.seed": 1})))
    with pytest.warns(UserWarning, match="the model was trained on another data set"):
        report = evaluate(result.model_dir, data=file, device="cpu")
    assert report.rows != result.report.rows
    assert evaluate_checkpoint(result.model_dir, {"data.path": str(file)}, device="cpu").note is not None


def test_samples_that_trained_the_model_are_not_scored_as_unseen(tmp_path):
    planted = load_data(CONFIG.data)
    file: Path = tmp_path / "folds.h5"
    write_prepared(file, replace(planted, fold=planted.sample_video % 3))
    config = override(CONFIG, {"data.path": str(file), "data.fold": 0, "train.max_steps": 1})
    run = train_and_evaluate(config, tmp_path / "run", device="cpu", progress=False)
    with pytest.raises(ValueError, match="fold = 1: the model was trained on .*it was trained for fold 0"):
        evaluate(run.model_dir, fold=1, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threads": 0}, "threads = 0"), ({"split": "tset"}, "split = 'tset'"), ({"fold": 9}, "--data.fold .--fold. 9")],
)
def test_options_that_cannot_be_used_are_refused_by_name(result, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(result.model_dir, device="cpu", **options)


def test_resuming_with_other_threads_says_that_bits_will_differ(tmp_path):
    threads = torch.get_num_threads()
    try:
        train_and_evaluate(override(CONFIG, {"train.max_steps": 1}), tmp_path, device="cpu", threads=1, progress=False)
        with pytest.warns(Note, match="threads was 1, is 2: .* the bits will differ"):
            train_and_evaluate(CONFIG, tmp_path, resume=True, device="cpu", threads=2, progress=False)
    finally:
        torch.set_num_threads(threads)


def test_a_file_of_version_1_trains_and_evaluates_like_the_same_data_of_version_2(result, tmp_path):
    config = override(CONFIG, {"data.path": str(write_version_1(tmp_path / "old.h5", load_data(CONFIG.data)))})
    with pytest.warns(Note, match="version 1"):
        old = train_and_evaluate(config, tmp_path / "run", device="cpu", threads=1, progress=False)
    assert weights(tmp_path / "run")["model.safetensors"] == weights(result.model_dir.parents[1])["model.safetensors"]
    assert old.report.rows == result.report.rows
    # the model of one is that of the other, whatever the file's form
    with pytest.warns(Note, match="version 1"):
        assert evaluate(result.model_dir, data=tmp_path / "old.h5", device="cpu").rows == result.report.rows


def test_data_without_any_times_train_to_the_same_model_and_are_answered(result, tmp_path):
    data = load_data(CONFIG.data)
    untimed = replace(data, window_s=np.zeros((0, 2)), window_sample=np.zeros(0, dtype=np.int64))
    write_prepared(tmp_path / "untimed.h5", untimed)
    config = override(CONFIG, {"data.path": str(tmp_path / "untimed.h5")})
    run = train_and_evaluate(config, tmp_path / "run", device="cpu", threads=1, progress=False)
    assert weights(tmp_path / "run")["model.safetensors"] == weights(result.model_dir.parents[1])["model.safetensors"]
    assert run.report.rows == {} and len(run.report.answers.samples) == result.report.num_samples
    # with times that are known later, the model scores as the other does
    write_prepared(tmp_path / "timed.h5", data)
    with pytest.warns(UserWarning, match="the windows are others"):
        assert evaluate(run.model_dir, data=tmp_path / "timed.h5", device="cpu").rows == result.report.rows


def test_data_without_a_test_split_train_and_leave_a_model(tmp_path):
    data = load_data(CONFIG.data)
    write_prepared(tmp_path / "train.h5", replace(data, split=np.full(data.num_samples, "train")))
    config = override(CONFIG, {"data.path": str(tmp_path / "train.h5")})
    run = train_and_evaluate(config, tmp_path / "run", device="cpu", progress=False)
    assert (run.report, run.written, run.stopped_by) == (None, (), None) and (run.model_dir / "model.json").is_file()


def test_a_renamed_file_continues_its_run_and_other_features_do_not(tmp_path):
    data = load_data(CONFIG.data)
    for name, values in (("first", data), ("renamed", data), ("other", replace(data, features=-data.features))):
        write_prepared(tmp_path / f"{name}.h5", values)
    names = ("first", "renamed", "other")
    configs = {name: override(CONFIG, {"data.path": str(tmp_path / f"{name}.h5")}) for name in names}
    first = override(configs["first"], {"train.max_steps": 1})
    train_and_evaluate(first, tmp_path / "run", device="cpu", progress=False)
    with pytest.raises(ValueError, match="has other features; resume with the same prepared file"):
        train_and_evaluate(configs["other"], tmp_path / "run", resume=True, device="cpu", progress=False)
    train_and_evaluate(configs["renamed"], tmp_path / "run", resume=True, device="cpu", progress=False)
    with pytest.raises(ValueError, match="this file has other features; evaluate with the file"):
        evaluate(tmp_path / "run", data=tmp_path / "other.h5", device="cpu")
    (tmp_path / "other.h5").replace(tmp_path / "renamed.h5")
    with pytest.raises(ValueError, match="the file it was trained on has since got other features"):
        evaluate(tmp_path / "run", device="cpu")


def test_a_data_set_without_a_training_split_is_evaluated(result, tmp_path):
    data = load_data(override(CONFIG.data, {"planted.seed": 1}))
    write_prepared(tmp_path / "test.h5", replace(data, split=np.full(data.num_samples, "test")))
    with pytest.warns(UserWarning, match="trained on another data set"):
        report = evaluate(result.model_dir, data=tmp_path / "test.h5", device="cpu")
    assert (report.num_samples, report.num_fit_samples) == (data.num_samples, 0)
    assert len(report.best_blind) == len(report.rows["model"])
