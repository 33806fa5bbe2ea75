"""From options to runs: each once, seeds outermost, mistakes before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.lab import experiment
from pps_fast.lab.experiment import (
    Design,
    LabOptions,
    design_of,
    finished_runs,
    known_data,
    load_once,
    plan,
    run_planned,
    with_data,
)
from pps_fast.lab.runs import RESULT_FILE, plan_run
from pps_fast.runs.checkpoint import describe_data
from tests.support.lab_experiments import CONFIG

DATA = load_data(CONFIG.data)
RECORD = {
    "format": "pps_fast.lab.run",
    "version": 1,
    "device": "cpu",
    "machine": "a machine",
    "torch": "2",
    "updates": 1,
    "train_s": 1.0,
}
DESCRIBED = describe_data(DATA)


def test_seeds_follow_the_presets_and_folds_are_as_given():
    assert design_of(CONFIG, 3, ()) == Design(seeds=(8, 9, 10), folds=(None,))
    config = override(CONFIG, {"train.seed": 1, "data.fold": 4})
    assert design_of(config, 1, ()) == Design(seeds=(1,), folds=(4,))
    assert design_of(config, 2, (0, 2)).seed_folds == [(1, 0), (1, 2), (2, 0), (2, 2)]


@pytest.mark.parametrize(("seeds", "folds", "message"), [(0, (), "seeds = 0"), (1, (1, 1), "each fold once")])
def test_impossible_designs_are_refused(seeds, folds, message):
    with pytest.raises(ValueError, match=message):
        design_of(CONFIG, seeds, folds)


def test_equal_rows_are_one_run():
    rows = {"full model": CONFIG, "table5 'all'": CONFIG, "table5 'none'": override(CONFIG, {"losses.pull": 0.0})}
    runs = plan(rows, design_of(CONFIG, 2, ()), DESCRIBED)
    assert [run.about for run in runs] == [
        "full model, seed 8",
        "table5 'none', seed 8",
        "full model, seed 9",
        "table5 'none', seed 9",
    ]
    assert len({run.name for run in runs}) == 4


def test_data_file_is_named_in_full_and_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_data(CONFIG, None) == CONFIG
    assert with_data(CONFIG, Path("x.h5")).data.path == str(tmp_path / "x.h5")
    config = override(CONFIG, {"data.path": "x.h5"})
    assert with_data(config, None).data.path == with_data(config, Path("x.h5")).data.path == str(tmp_path / "x.h5")
    with pytest.raises(ValueError, match="two data sets"):
        with_data(config, Path("y.h5"))


def test_rows_stand_on_one_data_set():
    other = override(CONFIG, {"data.planted.seed": 3})
    assert load_once([CONFIG, CONFIG]).provenance == DATA.provenance
    with pytest.raises(ValueError, match="rows on different data sets"):
        load_once([CONFIG, other])


def test_finished_runs_tell_the_data_set_they_were_made_on(tmp_path):
    design, where = Design(seeds=(1, 2), folds=(None,)), tmp_path / "runs"
    assert finished_runs(CONFIG, design, DESCRIBED, tmp_path) == {}
    for seed in (1, 2):
        run = where / plan_run(CONFIG, DESCRIBED, seed, None, "").name
        run.mkdir(parents=True)
        if seed == 2:
            (run / RESULT_FILE).write_text(json.dumps({**RECORD, "data": DESCRIBED}))
    assert finished_runs(CONFIG, design, DESCRIBED, tmp_path) == {(2, None): run}
    assert known_data(tmp_path) == DESCRIBED
    (where / "other").mkdir()
    (where / "other" / RESULT_FILE).write_text(json.dumps({**RECORD, "data": {"name": "y", "sha256": "0" * 64}}))
    with pytest.raises(ValueError, match="y 000000000000, .*; --tables-only expects one"):
        known_data(tmp_path)


@pytest.mark.parametrize("number", [0, 10_001, 10**9])
def test_a_number_of_seeds_that_nobody_wants_is_refused(number):
    with pytest.raises(ValueError, match=f"seeds = {number}: expected 1 to 10,000"):
        design_of(PPSConfig(), number, ())


def test_fold_that_the_data_lack_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "run_jobs", lambda *arguments, **options: pytest.fail("trained"))
    runs = plan({"full model": PPSConfig()}, Design(seeds=(1,), folds=(0,)), DESCRIBED)
    with pytest.raises(ValueError, match=r"--data\.fold \(--fold\) 0: the data set has no folds"):
        run_planned(runs, DATA, LabOptions(out=tmp_path))
    with pytest.raises(ValueError, match="threads = 0: expected 1 to 4,096"):
        run_planned(runs, DATA, LabOptions(out=tmp_path, threads=0))
    with pytest.raises(ValueError, match="jobs = 0: expected at least 1"):
        run_planned(runs, DATA, LabOptions(out=tmp_path, jobs=0))
    with pytest.raises(ValueError, match=r"slurm = \['time=4'\]: expected none, or --executor slurm"):
        run_planned(runs, DATA, LabOptions(out=tmp_path, slurm=("time=4",)))
