"""Benchmark inputs have the shapes of the model, and values that make sense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.cases import DATASETS, Inputs, OpCase, cases_of, num_columns_of, wrt_of
from benchmarks.step_calls import step_calls
from pps_fast.config_tree import override
from pps_fast.data.store import COLUMN_STEP
from pps_fast.ops import ALL_OPS
from pps_fast.presets import PRESETS

# data set, op, input and a shape that it has at some site: the sizes of the published models at batch 32
SHAPES = [
    ("charades", "masked_attention", "query", (32 * 27, 4, 50, 64)),
    ("charades", "masked_attention", "key_bias", (32 * 27, 50)),
    ("charades", "masked_attention", "key", (32, 4, 201, 64)),
    ("charades", "shared_attention", "key_bias", (32, 27, 50)),
    ("charades", "residual_norm", "x", (32 * 27, 50, 256)),
    ("charades", "mixture", "masks", (32, 28, 50)),
    ("activitynet", "masked_attention", "query", (32 * 14, 4, 50, 64)),
    ("activitynet", "masked_attention", "key", (32, 4, 21, 64)),
    ("activitynet", "mixture", "masks", (32, 15, 50)),
]


def _shapes(dataset: str, op: str, name: str) -> set[tuple[int, ...]]:
    """Shapes of an input at all sites, at batch 32 from batch 1."""
    ones = [case.inputs("cpu").get(name) for case in cases_of((dataset,), ("fp32",), 1)[op]]
    return {(32 * one.shape[0], *one.shape[1:]) for one in ones if one is not None}


@pytest.mark.parametrize(("dataset", "op", "name", "shape"), SHAPES)
def test_shapes_are_those_of_the_data_sets(dataset: str, op: str, name: str, shape: tuple[int, ...]) -> None:
    assert shape in _shapes(dataset, op, name)


@pytest.mark.parametrize(("dataset", "longest", "vocab_size"), [("charades", 13, 1112), ("activitynet", 20, 8001)])
def test_word_columns_hold_the_longest_sentence(dataset: str, longest: int, vocab_size: int) -> None:
    assert longest <= num_columns_of(dataset) < longest + COLUMN_STEP
    shapes = _shapes(dataset, "reconstruction_nll", "logits")
    assert {shape[2:] for shape in shapes} == {(num_columns_of(dataset), vocab_size)}


def test_every_op_has_cases_of_both_data_sets_in_batches_of_the_size_asked_for() -> None:
    cases = cases_of(dtypes=("fp32",), batch_size=1)
    for op in ALL_OPS:
        assert {(case.dataset, case.batch_size) for case in cases[op.name]} == {("charades", 1), ("activitynet", 1)}


@pytest.mark.parametrize(
    ("shape", "strategy", "names"),
    [
        ("gaussian_peak", "middle", ("gaussian_peak_mask", "pull_middle")),
        ("laplace", "all", ("laplace_mask", "pull_all")),
    ],
)
def test_ops_of_other_configs_have_the_inputs_of_a_step_of_these(
    shape: str, strategy: str, names: tuple[str, ...]
) -> None:
    preset, sizes, _ = DATASETS["tiny"]
    changes = {"proposals.mask_shape": shape, "losses.pull_strategy": strategy, "backend": "triton"}
    calls = step_calls(override(PRESETS[preset], changes), sizes, num_columns_of("tiny"), 3)
    for name in names:
        (call,) = [call for call in calls if call.op.name == name]
        (case,) = cases_of(("tiny",), ("fp32",), 3)[name]
        assert case.site == call.site
        assert _layout(case.inputs("cpu")) == _layout(call.inputs)


def _layout(inputs: Inputs) -> Inputs:
    """What is known of inputs without their values."""
    return {name: (x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else x for name, x in inputs.items()}


def test_values_make_sense_and_repeat() -> None:
    cases = [case for cases in cases_of(("tiny",), batch_size=3).values() for case in cases]
    assert len(cases) > 50
    for case in cases:
        _check_values(case)


def _check_values(case: OpCase) -> None:
    about = f"{case.op} {case.name} {case.dtype}"
    inputs, again, other = case.inputs("cpu"), case.inputs("cpu"), case.inputs("cpu", draw=1)
    tensors = {name: x for name, x in inputs.items() if isinstance(x, Tensor)}
    assert wrt_of(inputs), about
    for name, x in tensors.items():
        assert x.equal(again[name]), about
        assert x.double().isfinite().all(), about
        assert name not in wrt_of(inputs) or not x.equal(other[name]) or name == "importance", about
    for name in ("key_valid", "is_target"):
        if name in tensors:
            assert tensors[name].sum(-1).min() >= 1, about
    for name in ("masks", "center", "width", "importance"):
        if name in tensors:
            assert tensors[name].min() > 0 and tensors[name].max() <= 1, about
    if "importance" in tensors:
        total = torch.zeros(3, inputs["num_groups"]).index_add(1, inputs["group"], tensors["importance"])
        assert torch.allclose(total, torch.ones_like(total)), about


def test_activations_have_the_dtype_asked_for_and_masks_stay_fp32() -> None:
    cases = cases_of(("tiny",), ("bf16", "tf32"), 3)
    cross = "importance: reconstructor.word_stack.cross_attention"
    attention = next(case for case in cases["masked_attention"] if case.site.startswith(cross) and case.dtype == "bf16")
    inputs = attention.inputs("cpu", requires_grad=True)
    assert inputs["query"].dtype == torch.bfloat16 and inputs["key_bias"].dtype == torch.float32
    assert all(inputs[name].requires_grad for name in ("query", "key", "value", "key_bias"))
    # losses and masks exist in fp32 only, and only products can be rounded to tf32
    assert "push" not in cases and {case.dtype for case in cases["reconstruction_nll"]} == {"bf16"}
    assert {op for op, of_op in cases.items() if any(case.dtype == "tf32" for case in of_op)} == {
        "masked_attention",
        "shared_attention",
    }


def test_heads_lie_in_memory_as_the_projections_leave_them() -> None:
    (words, *_) = cases_of(("charades",), ("fp32",), 1)["masked_attention"]
    assert words.site.startswith("generator.word_stack.self_attention")
    inputs = words.inputs("cpu")
    for name in ("query", "key", "value"):
        # rows of query, key and value side by side, 4 heads of 64 each
        assert inputs[name].stride()[1:] == (64, 3 * 256, 1)
