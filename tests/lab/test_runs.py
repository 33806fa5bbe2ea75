"""One run: a name that says what it is, and results that hold every tested sample."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pps_fast import devices
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.splits import select_samples
from pps_fast.lab.runs import RESULT_FILE, SAMPLES_FILE, is_finished, num_updates, plan_run, run_one
from pps_fast.runs.run_directory import CONFIG_FILE
from tests.support.lab_experiments import CONFIG

DATA = {"name": "planted", "sha256": "aa"}


def _name(config=CONFIG, data=DATA, seed=1, fold=None) -> str:
    return plan_run(config, data, seed, fold, "x").name


def test_equal_runs_have_one_name_and_others_have_their_own():
    changed = override(CONFIG, {"losses.pull": 0.5})
    names = [_name(), _name(changed), _name(data={**DATA, "sha256": "ab"}), _name(seed=2), _name(fold=0), _name(fold=1)]
    assert len(set(names)) == len(names)
    assert _name(seed=2).startswith("seed2_") and _name(fold=1).startswith("seed1_fold1_")
    # seed and fold of the config itself are replaced, and a file may lie anywhere
    assert _name(override(CONFIG, {"train.seed": 5, "data.path": "elsewhere.h5"})) == names[0]


def test_run_leaves_every_sample_and_where_it_was_made(tmp_path):
    run = tmp_path / "run"
    # as a kill before the first complete file leaves it
    run.mkdir()
    (run / ".tmp-config.json@host.77").write_text("{")
    assert run_one(CONFIG, run, "cpu", 1, "c0ffee") is None and is_finished(run)
    result = json.loads((run / RESULT_FILE).read_text())
    assert result["updates"] == 5 and result["train_s"] > 0 and result["commit"] == "c0ffee"
    assert result["data"]["protocol"] == "embedded planted moments"
    assert devices.devices()["cpu"]["name"] == result["processor"] and result["processor"] in result["machine"]
    assert (result["device"], result["threads"]) == ("cpu", torch.get_num_threads())
    data = load_data(CONFIG.data)
    test = select_samples(data, CONFIG.data).test
    rows = json.loads((run / "evaluation_test.json").read_text())["rows"]
    with np.load(run / SAMPLES_FILE) as samples:
        assert samples["sample"].tolist() == test.tolist()
        assert samples["sentence"].tolist() == [data.sentences[index] for index in test]
        assert samples["kind"].tolist() == data.kind[test].tolist()
        np.testing.assert_array_equal(samples["moment"], data.moment[test])
        for name, row in (("model", "model"), ("shuffled", "model, shuffled queries")):
            assert 100 * samples[f"{name}_top1"].mean() == pytest.approx(rows[row]["R@1 mIoU"]["value"], rel=1e-12)
            assert 100 * samples[f"{name}_topn"].mean() == pytest.approx(rows[row]["R@3 mIoU"]["value"], rel=1e-12)


def test_directory_with_somebody_elses_files_is_refused_and_stays(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="run: not empty"):
        run_one(CONFIG, run, "cpu", 1, "c0ffee")
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_run_that_another_process_trains_is_refused_without_touching_it(tmp_path):
    (tmp_path / "lock.json").write_text('{"pid": 9, "host": "node-7", "started": "2026-01-01"}')
    with pytest.raises(ValueError, match="in use by process 9 on node-7"):
        run_one(CONFIG, tmp_path, "cpu", 1, "c0ffee")
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_validation_split_chooses_the_checkpoint(tmp_path):
    changes = {"train.keep": "validation", "data.validation_fraction": 0.2, "train.max_steps": 1}
    assert run_one(override(CONFIG, changes), tmp_path / "run", "cpu", 1, "c0ffee") is None
    assert (tmp_path / "run" / "best.json").is_file()


def test_run_of_another_config_in_the_same_place_is_refused(tmp_path):
    run_one(override(CONFIG, {"train.max_steps": 1}), tmp_path, "cpu", 1, "c0ffee")
    assert (tmp_path / CONFIG_FILE).is_file()
    with pytest.raises(ValueError, match="losses.pull was"):
        run_one(override(CONFIG, {"losses.pull": 0.0}), tmp_path, "cpu", 1, "c0ffee")


@pytest.mark.parametrize(("changes", "updates"), [({}, 5), ({"train.max_steps": None}, 12), ({"train.epochs": 1}, 5)])
def test_number_of_updates_is_what_training_makes(changes, updates):
    config = override(CONFIG, changes)
    assert num_updates(config, select_samples(load_data(config.data), config.data)) == updates
