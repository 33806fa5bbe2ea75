"""A step of fake tensors calls the ops that a real one calls, with the same shapes, dtypes and strides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pps_fast.config_tree import override
from pps_fast.info import published_sizes
from pps_fast.model import PPS
from pps_fast.ops.record import Record, record_calls
from pps_fast.presets import PRESETS
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.fake_step import SavedBytes, record_step
from tests.support.cases import SIZES, random_batch, small_config

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "tiny": small_config(),
    "released": small_config("charades_released"),
    "activitynet": small_config("activitynet", losses__pull_strategy="all", proposals__mask_shape="laplace"),
    "generator": small_config(reconstructor__importance="generator", train__precision="bf16"),
    "none": small_config(reconstructor__importance="none", losses__pull=0.0, losses__push_intra=0.0),
    "sides": small_config(proposals__negatives__kind="sides", reconstructor__target_length="end_of_sentence"),
    "uniform": small_config(proposals__layout="uniform", losses__push_single=False, losses__pull_strategy="middle"),
    "deep": small_config(reconstructor__num_layers=3, generator__num_layers=2, losses__num_best=2),
    "uneven": small_config(reconstructor__num_layers=2, reconstructor__num_word_layers=1),
    "plain": small_config(reconstructor__schedule="plain", reconstructor__num_layers=2),
    "bf16": small_config(train__precision="bf16", losses__push_inter=0.0),
    "tf32": small_config(train__precision="tf32"),
    "torch": small_config(backend="torch"),
    "cpl": small_config("cpl_demo", generator__num_layers=2, reconstructor__num_layers=2),
    "cpl plain": small_config("cpl", reconstructor__schedule="plain"),
    "cnm": small_config("cnm_demo"),
}


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.stride(), value.device.type
    return [_described(part) for part in value] if isinstance(value, (list, tuple)) else value


def _calls(records: Sequence[Record]) -> list[Any]:
    return [(r.op.name, r.backend, {name: _described(value) for name, value in r.inputs.items()}) for r in records]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_calls_are_those_of_a_real_step_in_their_order(name: str) -> None:
    config, batch = CONFIGS[name], random_batch()
    model = PPS(config, SIZES).train()
    step = TRAIN_STEPS[config.train.update](model, config)
    with record_calls() as real:
        step(batch)
    num_samples, num_columns = batch.word_ids.shape
    fake = record_step(config, SIZES, num_columns, "cpu", batch_size=num_samples)
    assert _calls(fake) == _calls(real)
    assert [r.op.name for r in fake].count("clip_adam") == len(step.optimizers)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_a_gpu_that_is_not_there_has_its_dtypes_and_device(precision: str) -> None:
    config = small_config(train__precision=precision)
    records = record_step(config, SIZES, 9, "cuda", batch_size=2)
    tensors = [x for r in records for x in r.inputs.values() if isinstance(x, Tensor)]
    assert len(tensors) > 50 and all(isinstance(x, FakeTensor) and x.is_cuda for x in tensors)
    activation = torch.bfloat16 if precision == "bf16" else torch.float32
    assert all(r.inputs["query"].dtype == activation for r in records if "query" in r.inputs)
    assert all(r.inputs["center"].dtype == torch.float32 for r in records if "center" in r.inputs)


def test_a_gpu_takes_all_masks_at_once_and_projects_the_memory() -> None:
    sizes, num_columns = published_sizes()["charades"]
    one_layer = {"reconstructor.num_layers": 1, "generator.num_layers": 1}
    config = override(PRESETS["charades"], one_layer)
    sites = {device: record_step(config, sizes, num_columns, device, 8) for device in ("cpu", "cuda")}
    shared = {name: sum(r.op.name == "shared_attention" for r in records) for name, records in sites.items()}
    assert shared["cuda"] == 3 < shared["cpu"]
    # with absorbed weights, all heads attend to the rows of the memory themselves, as one
    attentions = {name: [r for r in records if r.op.name == "masked_attention"] for name, records in sites.items()}
    absorbed = {name: [r for r in calls if r.inputs["query"].shape[1] == 1] for name, calls in attentions.items()}
    assert absorbed["cpu"] and not absorbed["cuda"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_kernels_that_are_insisted_on_in_vain_do_not_end_the_step(device: str) -> None:
    # 600 words are more than the kernels take
    records = record_step(small_config(backend="triton"), SIZES, 600, device)
    assert records[-1].op.name == "clip_adam" and {r.backend for r in records} == {"triton"}
    assert any("the kernel takes" in reason for r in records for reason in r.op.reasons(**r.inputs))


def test_random_numbers_gradients_and_autocast_stay_as_they_were() -> None:
    before = torch.get_rng_state()
    record_step(small_config(train__precision="bf16"), SIZES, 9, "cuda")
    record_step(small_config(train__precision="bf16"), SIZES, 9, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled() and torch.get_float32_matmul_precision() == "highest"
    for device in ("cpu", "cuda"):
        assert not torch.is_autocast_enabled(device)


def test_sites_name_the_parts_of_the_model() -> None:
    records = record_step(small_config(), SIZES, 9, "cpu")
    sites: dict[str, set[str]] = {}
    for r in records:
        sites.setdefault(r.op.name, set()).add(r.site)
    assert sites["pull_distant"] == {"losses.pull"} and sites["clip_adam"] == {"update.clip_and_step"}
    assert sites["push"] == {"losses.push_intra", "losses.push_inter"}
    assert {site.split(".")[0] for site in sites["masked_attention"]} == {
        "generator",
        "importance: reconstructor",
        "reconstructor",
    }


def test_the_paper_s_step_takes_seconds_and_warns_of_nothing() -> None:
    code = (
        "import time; from pps_fast.info import published_sizes; from pps_fast.presets import PRESETS\n"
        "from pps_fast.train.fake_step import record_step\n"
        "begin = time.process_time()\n"
        "calls = record_step(PRESETS['charades'], *published_sizes()['charades'], 'cuda')\n"
        "print(len(calls), time.process_time() - begin)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    num_calls, seconds = done.stdout.split()
    # CPU time; measured 1 s
    assert int(num_calls) > 100 and float(seconds) < 10


def test_a_fake_step_keeps_for_its_backward_pass_what_a_real_one_keeps():
    config = CONFIGS["tiny"]
    batch = random_batch()
    with SavedBytes() as fake:
        record_step(config, SIZES, batch.words.shape[1], "cpu", len(batch.words))
    torch.manual_seed(0)
    step = TRAIN_STEPS[config.train.update](PPS(config, SIZES).train(), config)
    with SavedBytes() as real:
        step(batch)
    assert 0.9 < fake.total / real.total < 1.1
    with SavedBytes() as larger:
        record_step(config, SIZES, batch.words.shape[1], "cpu", 4 * len(batch.words))
    assert 3 < larger.total / fake.total < 4
