"""Templates of a step's calls: each kind once, with the groups of the config's layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from benchmarks.step_calls import keys_are_words, step_calls
from pps_fast.losses import Objective
from pps_fast.model import PPS
from tests.support.cases import SIZES, small_config

CONFIG = small_config(train__precision="bf16", backend="triton")


def test_each_kind_of_call_is_there_once_with_real_tensors() -> None:
    calls = step_calls(CONFIG, SIZES, 9, batch_size=3)
    kinds = [(call.op.name, call.site) for call in calls]
    assert len(set(kinds)) == len(kinds) > 20 and "clip_adam" not in dict(kinds)
    assert kinds == [(call.op.name, call.site) for call in step_calls(CONFIG, SIZES, 9, batch_size=2)]
    tensors = [x for call in calls for x in call.inputs.values() if isinstance(x, Tensor)]
    assert not any(isinstance(x, FakeTensor) for x in tensors)
    assert {x.dtype for x in tensors} >= {torch.bfloat16, torch.float32, torch.bool, torch.int32, torch.int64}


def test_attention_to_words_has_as_many_keys_as_words() -> None:
    attentions = [call for call in step_calls(CONFIG, SIZES, 9) if "query" in call.inputs]
    num_keys = {
        words: {c.inputs["key"].shape[2] for c in attentions if keys_are_words(c.site) == words} for words in (0, 1)
    }
    # slots that predict a word; words with the start token; and with the slot of q_cls behind them
    assert num_keys[1] == {9, 10, 11}
    assert num_keys[0] == {SIZES.num_segments + 1, SIZES.num_segments // CONFIG.reconstructor.stride}


@pytest.mark.parametrize("push_single", [False, True])
def test_groups_are_those_of_the_model(push_single: bool) -> None:
    config = small_config(losses__push_single=push_single)
    model, objective = PPS(config, SIZES), Objective(config)
    groups = {
        call.site.split(" ")[0]: call.inputs["group"] for call in step_calls(config, SIZES, 9) if "group" in call.inputs
    }
    expected = {
        "proposals": model.pool.group,
        "proposals.center_width": model.pool.group,
        "proposals.weighted": model.pool.group,
        "negatives": model.negatives.group,
        "losses.pull": objective.group,
        "losses.push_intra": objective.group[objective.pushed],
        "losses.push_inter": objective.one_group,
    }
    assert groups.keys() == expected.keys()
    assert all(torch.equal(groups[site], expected[site]) for site in expected)
