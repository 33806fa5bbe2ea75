"""What the steps of a config compile is known from steps of fake tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tqdm import tqdm

from pps_fast.ops.launches import Launches
from pps_fast.ops.registration import is_interpreted
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
    # tiles of words are powers of two, 16 at least, and the query has two tokens more than the sentence
    assert step_launches(CONFIG, BIG, (6, 9, 14), "cpu", 2).keys() == launches.keys()


def test_all_are_compiled_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Launches] = []

    def compile_launches(launches: Launches, on_done: object) -> None:
        compiled.append(launches)
        assert getattr(on_done, "__self__", None).__class__ is tqdm

    monkeypatch.setattr(compile_file, "compile_launches", compile_launches)
    assert compile_steps(CONFIG, SIZES, 6, "cpu") == len(compiled[0]) > 20
