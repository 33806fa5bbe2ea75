"""A run directory is empty, or holds the very run that is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict, override
from pps_fast.files import Note
from pps_fast.runs.checkpoint import describe_data, find_checkpoint
from pps_fast.runs.lock import owning
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.runs.records import read_config
from pps_fast.runs.run_directory import open_run, rewrite_deleted
from tests.support.train_runs import run_small, small_config, small_input

CONFIG = small_config(train__max_steps=2)
DATA = describe_data(small_input(CONFIG)[0].data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    run_small(CONFIG, directory)
    return directory


def test_new_run_gets_its_config_as_json_that_reads_back_equal(tmp_path):
    config = small_config(inference__iou_thresholds=(0.1, 0.9), data__fold=3)
    assert open_run(tmp_path / "a" / "b", config, DATA, "cpu", resume=False) is None
    assert from_dict(PPSConfig, json.loads((tmp_path / "a" / "b" / "config.json").read_text())) == config


def test_directory_that_is_not_empty_is_refused_with_the_ways_out(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty; .*--resume.*--out"):
        open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)
    with pytest.raises(ValueError, match=r"notes.txt: a file"):
        open_run(tmp_path / "notes.txt", CONFIG, DATA, "cpu", resume=False)


def test_directory_with_only_left_overs_of_a_kill_is_fresh_and_is_cleaned(tmp_path):
    (tmp_path / "checkpoints" / ".tmp-step_000001").mkdir(parents=True)
    for name in (".tmp-config.json@host.77", ".tmp-config.json.78", ".DS_Store", ".nfs0001"):
        (tmp_path / name).write_text("{")
    assert open_run(tmp_path, CONFIG, DATA, "cpu", resume=False) is None
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "checkpoints", ".DS_Store", ".nfs0001"}
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_run_that_ended_before_its_first_checkpoint_does_not_block_its_directory(tmp_path):
    open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    other = small_config(train__max_steps=1, train__learning_rate=1e-5)
    run_small(other, tmp_path)
    lines = [line for line in read_metrics(tmp_path) if "loss" in line]
    assert read_config(tmp_path) == other and [line["step"] for line in lines] == [1]
    with pytest.raises(ValueError, match="not empty"):
        open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)


@pytest.mark.parametrize("name", ["notes.txt", "best.json", "evaluation_test.json"])
def test_a_run_with_more_in_it_than_its_beginning_is_refused(name, tmp_path):
    open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="not empty"):
        open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)


def test_a_config_of_somebody_else_is_no_beginning_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="not empty"):
        open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)


def test_checkpoints_behind_a_link_are_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    for resume in (False, True):
        with pytest.raises(ValueError, match="checkpoints: a symbolic link"):
            open_run(tmp_path / "run", CONFIG, DATA, "cpu", resume=resume)


class _Log:
    def __init__(self) -> None:
        self.times = 0

    def rewrite(self) -> None:
        self.times += 1


def test_deleted_run_directory_is_said_and_gets_its_files_again(tmp_path):
    run, log = tmp_path / "run", _Log()
    with owning(run) as lock:
        open_run(run, CONFIG, DATA, "cpu", resume=False)
        assert not rewrite_deleted(run, CONFIG, lock, [log])
        before = (run / "config.json").read_bytes()
        shutil.rmtree(run)
        with pytest.warns(Note, match="run: was deleted during the training; .* written again"):
            assert rewrite_deleted(run, CONFIG, lock, [log])
        assert (run / "config.json").read_bytes() == before and lock.is_there() and log.times == 1
        # the lock alone is no run
        (run / "lock.json").unlink()
        assert not rewrite_deleted(run, CONFIG, lock, [log]) and lock.is_there()


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run to resume here"):
        open_run(tmp_path / "typo", CONFIG, DATA, "cpu", resume=True)
    assert not (tmp_path / "typo").exists()


def test_resuming_returns_the_latest_checkpoint(run):
    assert open_run(run, CONFIG, DATA, "cpu", resume=True) == find_checkpoint(run, "latest")


def test_resuming_a_run_that_has_not_saved_starts_at_the_beginning(tmp_path):
    open_run(tmp_path, CONFIG, DATA, "cpu", resume=False)
    (tmp_path / "checkpoints" / ".tmp-step_000001").mkdir(parents=True)
    assert open_run(tmp_path, CONFIG, DATA, "cpu", resume=True) is None
    assert not list((tmp_path / "checkpoints").iterdir())


def test_changed_config_is_refused_naming_every_changed_field(run):
    changed = override(CONFIG, {"losses.pull": 0.25, "train.seed": 9, "train.epochs": 7})
    with pytest.raises(ValueError) as caught:
        open_run(run, changed, DATA, "cpu", resume=True)
    assert "losses.pull was 5.0, is 0.25; train.seed was 8, is 9. " in str(caught.value)
    assert "train.epochs was" not in str(caught.value)


def test_length_and_logging_may_change_and_are_recorded(run):
    changes = {"epochs": 7, "max_steps": None, "log_every": 3, "checkpoint_every": 4, "trace_every": 5}
    changed = override(CONFIG, {f"train.{name}": value for name, value in changes.items()})
    open_run(run, changed, DATA, "cpu", resume=True)
    assert json.loads((run / "config.json").read_text())["train"]["epochs"] == 7
    open_run(run, CONFIG, DATA, "cpu", resume=True)


def test_the_number_of_epochs_may_not_change_under_a_curriculum(tmp_path):
    config = override(CONFIG, {"proposals.negatives.kind": "sides_apart", "proposals.negatives.curriculum": 0.5})
    open_run(tmp_path, config, DATA, "cpu", resume=False)
    with pytest.raises(ValueError, match="train.epochs was 2, is 7.*only train.max_steps, train.log_every"):
        open_run(tmp_path, override(config, {"train.epochs": 7}), DATA, "cpu", resume=True)
    open_run(tmp_path, override(config, {"train.max_steps": 7}), DATA, "cpu", resume=True)


def test_a_run_from_before_a_knob_existed_can_be_resumed(run):
    path = run / "config.json"
    values = json.loads(path.read_text())
    del values["generator"]["max_width"], values["train"]["update"]
    path.write_text(json.dumps(values))
    assert open_run(run, CONFIG, DATA, "cpu", resume=True) == find_checkpoint(run, "latest")
    assert json.loads(path.read_text())["train"]["update"] == "joint"


def test_a_file_that_was_moved_and_renamed_is_the_same_data(run):
    moved = override(CONFIG, {"data.path": "/elsewhere/renamed.h5"})
    assert open_run(run, moved, {**DATA, "name": "renamed"}, "cpu", resume=True) == find_checkpoint(run, "latest")
    open_run(run, CONFIG, DATA, "cpu", resume=True)


def test_other_data_or_device_is_refused(run):
    content = {**DATA["content"], "features": "0" * 64, "windows": "1" * 64}
    with pytest.raises(ValueError, match="'other' has other features, windows; resume with the same prepared file"):
        open_run(run, CONFIG, {**DATA, "name": "other", "content": content}, "cpu", resume=True)
    with pytest.raises(ValueError, match="written on device cpu, this is cuda.*--device cpu"):
        open_run(run, CONFIG, DATA, "cuda", resume=True)
