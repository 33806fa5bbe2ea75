"""What the steps of a config compile is known from steps of fake tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tqdm import tqdm

from benchmarks.step import sizes_of
from pps_fast.cli import PresetName
from pps_fast.config_tree import override
from pps_fast.ops.launches import Launches
from pps_fast.ops.registration import is_interpreted
from pps_fast.presets import PRESETS
from pps_fast.reconstructor import shared
from pps_fast.train import compile as compile_file
from pps_fast.train.compile import compile_steps, step_launches
from tests.support.cases import SIZES, small_config

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
# as in the paper's model, rows are multiples of 16 wide, and one block holds few words' logits
CONFIG = small_config(backend="triton", train__precision="bf16", encoder__hidden_dim=32, encoder__num_heads=2)
BIG = replace(SIZES, vocab_size=1112)


def test_steps_of_other_sentence_lengths_compile_the_same() -> None:
    launches = step_launches(CONFIG, BIG, (6,), "cpu", 2)
    names = {item.name for item in launches}
    assert {"masked_attention_bwd_tile_kernel", "linear_gradient_sum_kernel", "clip_adam_update_kernel"} <= names
    # tiles hold 32 words at least, and the query has two tokens more than the sentence
    assert step_launches(CONFIG, BIG, (6, 3, 15, 30), "cpu", 2).keys() == launches.keys()
    assert step_launches(CONFIG, BIG, (31,), "cpu", 2).keys() != launches.keys()


# of a training in bf16 on a GPU with its evaluation in fp32, whatever the lengths of its sentences
LIMITS = {"charades": 82, "activitynet": 82}


@pytest.mark.parametrize("preset", LIMITS)
def test_no_count_of_compilations_grows(preset: PresetName, monkeypatch: pytest.MonkeyPatch) -> None:
    # a CPU takes fewer masks at once
    monkeypatch.setattr(shared, "masks_at_once", lambda frames: 1 << 30)
    config = override(PRESETS[preset], {"train.precision": "bf16", "backend": "triton"})
    launches = step_launches(config, sizes_of(preset)[0], (3, 14, 30), "cpu", config.train.batch_size)
    counts = Counter(item.name for item in launches)
    # a count that shrank is written down, so that it cannot grow back
    assert len(launches) == LIMITS[preset], f"{counts}: if this is meant, write it into the table"


def test_an_evaluation_in_bf16_compiles_what_it_reads() -> None:
    launches = step_launches(override(CONFIG, {"inference.precision": "bf16"}), BIG, (6,), "cpu", 2)
    read = {dict(item.distinguished)["p_x"] for item in launches if item.name == "residual_norm_fwd_kernel"}
    assert read == {"pointer to torch.bfloat16"}


def test_all_are_compiled_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Launches] = []

    def compile_launches(launches: Launches, on_done: object) -> None:
        compiled.append(launches)
        assert getattr(on_done, "__self__", None).__class__ is tqdm

    monkeypatch.setattr(compile_file, "compile_launches", compile_launches)
    assert compile_steps(CONFIG, SIZES, 6, "cpu") == len(compiled[0]) > 20
