"""How many runs at a time: one for each GPU or CPU, as memory allows; features once for each, or in the file."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.prepared import read_prepared, write_prepared
from pps_fast.files import Note
from pps_fast.lab import capacity
from pps_fast.lab.capacity import memory_of_run, plan_places
from pps_fast.lab.options import LabOptions
from pps_fast.lab.runs import plan_run
from tests.support.lab_experiments import CONFIG

DATA = load_data(CONFIG.data)
RUNS = [plan_run(CONFIG, {"sha256": str(index)}, 1, None, "x") for index in range(64)]
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    monkeypatch.setattr(capacity, "free_memory", lambda: 1000 * GIB)


def test_there_is_one_run_for_each_cpu_or_each_gpu(monkeypatch):
    def count(**options):
        return plan_places(RUNS, DATA, LabOptions(**options))[1]

    assert count(device="cpu") == [None] * min(len(os.sched_getaffinity(0)), 64)
    assert count(device="cpu", jobs=3) == [None] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(capacity, "visible_gpus", lambda: ["2", "GPU-5a"])
    assert count() == ["2", "GPU-5a"] and count(device="cpu", jobs=1) == [None]
    assert count(jobs=5) == ["2", "GPU-5a", "2", "GPU-5a", "2"]
    # no more than there are runs
    assert plan_places(RUNS[:1], DATA, LabOptions())[1] == ["2"]


def test_memory_limits_the_number_and_the_limit_is_told(monkeypatch):
    monkeypatch.setattr(capacity, "_num_cpus", lambda: 8)
    monkeypatch.setattr(capacity, "memory_of_run", lambda *arguments, **options: 2 * GIB)
    monkeypatch.setattr(capacity, "free_memory", lambda: 7 * GIB)
    expected = r"^3 at a time and not 8 runs: each needs about 2\.0 GiB of memory, 7\.0 GiB are free; --jobs chooses"
    with pytest.warns(Note, match=expected):
        assert len(plan_places(RUNS, DATA, LabOptions(device="cpu"))[1]) == 3
    with pytest.warns(Note, match=r"^4 runs at a time needs about 8\.0 GiB .* lower --jobs"):
        assert len(plan_places(RUNS, DATA, LabOptions(device="cpu", jobs=4))[1]) == 4
    with pytest.raises(ValueError, match=r"20 runs at a time needs about 40\.0 GiB"):
        plan_places(RUNS, DATA, LabOptions(device="cpu", jobs=20))
    monkeypatch.setattr(capacity, "free_memory", lambda: GIB)
    with pytest.warns(Note, match="^1 at a time"):
        assert len(plan_places(RUNS, DATA, LabOptions(device="cpu"))[1]) == 1


def test_features_that_do_not_fit_once_for_each_run_stay_in_their_file(tmp_path, monkeypatch):
    write_prepared(tmp_path / "x.h5", DATA)
    config = override(CONFIG, {"data.path": str(tmp_path / "x.h5")})
    runs = [plan_run(config, {"sha256": "x"}, seed, None, "x") for seed in range(4)]
    data, options = read_prepared(tmp_path / "x.h5", copies=0), LabOptions(device="cpu", jobs=4)
    size = DATA.features.nbytes
    monkeypatch.setattr(capacity, "_PROCESS", 0)
    monkeypatch.setattr(capacity, "memory_of_run", lambda *arguments, with_features: with_features * size)
    for free, expected in ((8 * size, "auto"), (8 * size - 1, "disk")):
        monkeypatch.setattr(capacity, "free_memory", lambda free=free: free)
        planned, _ = plan_places(runs, data, options)
        assert {run.config.data.residence for run in planned} == {expected}
        assert [run.name for run in planned] == [run.name for run in runs]
    chosen = [replace(run, config=override(run.config, {"data.residence": "host"})) for run in runs]
    assert plan_places(chosen, data, options)[0] == chosen


def test_the_estimate_counts_process_features_weights_and_what_a_step_keeps(monkeypatch):
    device = torch.device("cpu")
    with_features = memory_of_run(CONFIG, DATA, device, with_features=True)
    assert with_features - memory_of_run(CONFIG, DATA, device, with_features=False) == DATA.features.nbytes
    config = override(CONFIG, {"data.path": "x.h5", "train.batch_size": 16})
    with_step = memory_of_run(config, DATA, device, with_features=False)
    monkeypatch.setattr(capacity, "record_step", lambda *arguments: None)
    without, wide = (
        memory_of_run(override(config, {"encoder.hidden_dim": width}), DATA, device, with_features=False)
        for width in (config.encoder.hidden_dim, 256)
    )
    assert capacity._PROCESS < without < with_step < wide
