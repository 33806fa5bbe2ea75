"""Several processes that divide every batch compute what one process computes, up to the order of sums."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.distributed import ALONE, World
from pps_fast.model import PPS
from pps_fast.presets import ALIGNED, CNM
from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.cross_fit import begin_alignment
from pps_fast.train.cuda_graph import CapturedStep, EagerStep
from tests.support.compare import assert_agree
from tests.support.processes import run, train_command
from tests.support.thread_world import in_threads
from tests.support.train_runs import small_config, small_input
from tests.train.test_cuda_graph import FakeRecorder

# rounding of fp64 over a few steps, of values up to about 10
ATOL = 1e-12
BASE = override(small_config(), {"encoder.dropout": 0.1, "train.batch_size": 7})
CONFIGS = {
    "joint": BASE,
    "alternating": override(BASE, CNM),
    "alignment": override(BASE, ALIGNED),
    "weight decay": override(BASE, {"train.weight_decay": 0.1, "losses.num_best": 2}),
}
LOCK = threading.Lock()
# two full batches, and one with fewer samples than there are processes
BATCHES = [np.arange(7), np.arange(20, 27), np.arange(30, 32)]


class DoubleStore(Store):
    """Batches in fp64."""

    def gather(self, *values):
        return super().gather(*values).to(dtype=torch.float64)


def _train(config: PPSConfig, world: World, is_captured: bool = False):
    """Returns reports of steps over BATCHES, and the parameters after them."""
    store, splits = DoubleStore(small_input(config)[0].data), small_input(config)[1]
    # initial weights come from a generator that threads share
    with LOCK:
        torch.manual_seed(1)
        model = PPS(config, store.sizes)
    begin_alignment(model, store, splits.train, is_fitted=False, progress=False)
    train_step = TRAIN_STEPS[config.train.update](model.double().train(), config, world)
    run_step = CapturedStep(train_step, store, 7, FakeRecorder()) if is_captured else EagerStep(train_step, store)
    reports = []
    for epoch, samples in enumerate(BATCHES):
        for optimizer in train_step.optimizers:
            optimizer.set_learning_rate(1e-3)
        store.begin_pass(3, epoch, progress=0.5)
        reports.append(run_step(samples))
    return reports, [parameter.detach() for parameter in train_step.parameters]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("is_captured", [False, True])
def test_a_divided_step_has_losses_norms_and_updates_of_a_whole_one(name: str, size: int, is_captured: bool) -> None:
    config = CONFIGS[name]
    expected, weights = _train(config, ALONE)
    for reports, parameters in in_threads(size, lambda world: _train(config, world, is_captured)):
        for got, wanted in zip(reports, expected, strict=True):
            assert got.loss.terms.keys() == wanted.loss.terms.keys() and got.is_finite
            for term, value in wanted.loss.terms.items():
                assert_agree(term, got.loss.terms[term], value, atol=ATOL, rtol=ATOL)
            assert_agree("total", got.loss.total, wanted.loss.total, atol=ATOL, rtol=ATOL)
            assert_agree("losses of samples", got.loss.sample_total, wanted.loss.sample_total, atol=ATOL, rtol=ATOL)
            assert_agree("norm", got.grad_norm, wanted.grad_norm, atol=ATOL, rtol=ATOL)
        for got, wanted in zip(parameters, weights, strict=True):
            assert_agree("parameter", got, wanted, atol=ATOL)


def test_a_loss_that_is_not_finite_in_one_process_stops_the_updates_of_all() -> None:
    config = CONFIGS["joint"]

    def program(world: World):
        store = DoubleStore(small_input(config)[0].data)
        with LOCK:
            torch.manual_seed(1)
            model = PPS(config, store.sizes).double().train()
        step = TRAIN_STEPS["joint"](model, config, world)
        before = [parameter.detach().clone() for parameter in step.parameters]
        step.optimizers[0].set_learning_rate(1e-2)
        if world.place.rank == 1:
            objective = step.objective

            def spoiled(output):
                loss = objective(output)
                return type(loss)(total=loss.total / 0, terms=loss.terms, sample_total=loss.sample_total / 0)

            step.objective = spoiled
        store.begin_pass(3, 0)
        report = EagerStep(step, store)(BATCHES[0])
        unchanged = all(torch.equal(one, other) for one, other in zip(step.parameters, before, strict=True))
        return report, unchanged

    for report, unchanged in in_threads(2, program):
        assert unchanged and not report.is_finite
        # the samples of the second process, 3 to 6 of 7
        assert torch.isfinite(report.loss.sample_total).tolist() == [True] * 3 + [False] * 4


def _values(out: Path) -> dict[str, np.ndarray]:
    """Returns losses, norms, what the video tells, weights, moments and metrics of a run by their names."""
    values = {}
    for line in read_metrics(out):
        for field in ("terms", "video_gain"):
            values |= {f"{field} {line['step']} {name}": value for name, value in line.get(field, {}).items()}
        values |= {f"{field} {line['step']}": line[field] for field in ("loss", "grad_norm") if field in line}
    for file in ("model", "training"):
        tensors = load_file(find_checkpoint(out, "latest") / f"{file}.safetensors")
        values |= {f"{file} {name}": value for name, value in tensors.items()}
    rows = json.loads((out / "evaluation_test.json").read_text(encoding="utf-8"))["rows"]
    return values | {f"{row} {name}": one["value"] for row, columns in rows.items() for name, one in columns.items()}


@pytest.mark.slow
def test_torchrun_starts_one_run_that_the_first_process_writes_and_prints(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--preset", "tiny", "--train.max-steps", "2", "--train.log-every", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run([*torchrun, "-m", "pps_fast.train", *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("device cpu of 2 processes; run ") == done.stdout.count("written: ") == 1
    assert done.stderr.count("step 1/2, epoch 1/2") == 1 and "error" not in done.stderr
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 2]
    assert (tmp_path / "run" / "ops.json").is_file() and not (tmp_path / "run" / "lock.json").exists()


@pytest.mark.slow
def test_twenty_steps_of_processes_killed_and_resumed_in_other_numbers_equal_those_of_one(tmp_path: Path) -> None:
    # the last batch of the epoch has one sample, which is less than there are processes
    options = ["--preset", "tiny", "--train.batch-size", "5", "--train.epochs", "1", "--train.log-every", "1"]
    options += ["--inference.no-alignment-rows", "--inference.num-bootstrap", "5"]
    run(1, train_command, [*options, "--out", str(tmp_path / "one")], True, output=tmp_path / "out")
    divided = ["--out", str(tmp_path / "divided")]
    run(3, train_command, [*options, *divided, "--train.max-steps", "8"], True, output=tmp_path / "out")
    said = run(2, train_command, ["--resume", *divided, "--train.max-steps", "20"], True, output=tmp_path / "out")
    assert said[0].count("note: processes was 3, is 2: sums are taken in another order, ") == 1 and said[1] == ""
    expected, got = _values(tmp_path / "one"), _values(tmp_path / "divided")
    # the parts were evaluated at their ends
    assert expected.keys() <= got.keys() and "loss 20" in expected and "model, shuffled queries R@1 mIoU" in expected
    for name, value in expected.items():
        assert_agree(name, np.asarray(got[name]), np.asarray(value), atol=ATOL, rtol=ATOL)
