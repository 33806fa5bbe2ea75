"""What every backend of every op refuses, with one sentence for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pps_fast.ops import (
    ALL_OPS,
    boundaries,
    clip_adam,
    contrastive_loss,
    gaussian_exponent,
    gaussian_mask,
    gaussian_peak_mask,
    importance,
    laplace_mask,
    mask_reward,
    masked_attention,
    mixture,
    mixture_exponent,
    peak_mixture,
    pull_all,
    pull_distant,
    pull_middle,
    push,
    reconstruction_nll,
    residual_norm,
    shared_attention,
)
from pps_fast.ops.clip_adam import AdamBuffers, AdamConstants
from pps_fast.ops.contract import at_least, booleans, check, exactly, floats, integers
from pps_fast.ops.dispatch import Op

BACKENDS = ("torch", "triton", "auto")
GROUP, VALID = torch.zeros(3, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool)
BAD_GROUPS: list[tuple[dict[str, Any], str]] = [
    ({"group": torch.zeros(3)}, "group is torch.float32, expected an integer dtype"),
    ({"group": torch.zeros(2, dtype=torch.int64)}, r"group has shape \(2,\), expected \[\w\] with \w = 3"),
    ({"group": torch.zeros(3, dtype=torch.int64, device="meta")}, r"group is on meta, \w+ on cpu; expected one device"),
]
BAD_COUNTS: list[tuple[dict[str, Any], str]] = [({"num_groups": -1}, "num_groups = -1, expected 0 or more")]


def _rand(*names: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: torch.rand(shape) for name in names}


def _buffers(**changes: Tensor) -> list[AdamBuffers]:
    return [AdamBuffers(*(torch.rand(4) for _ in range(4)))._replace(**changes)]


def _update() -> dict[str, Any]:
    wide = torch.zeros((), dtype=torch.float64)
    state = {"rate": wide, "update": wide.clone(), "is_finite": torch.tensor(True)}
    return {"buffers": _buffers(), **state, "constants": AdamConstants(1.0, 0.9, 0.999, 1e-8, 0.0)}


GROUPED = {"group": GROUP, "num_groups": 1}
MASKS = _rand("center", "width", shape=(3,)) | {"sigma": 9.0, "num_positions": 8}
GOOD: dict[Op, dict[str, Any]] = {
    gaussian_mask: MASKS,
    gaussian_peak_mask: MASKS,
    laplace_mask: MASKS,
    gaussian_exponent: MASKS,
    masked_attention: _rand("query", "key", "value", shape=(1, 2, 5, 4)) | {"key_bias": torch.rand(1, 5)},
    shared_attention: _rand("query", "key", "value", shape=(1, 2, 5, 4)) | {"key_bias": torch.rand(1, 3, 5)},
    importance: {"score": torch.rand(2, 3), **GROUPED},
    mixture: _rand("masks", "log_masks", shape=(2, 3, 4)) | {"importance": torch.rand(2, 3), **GROUPED},
    mixture_exponent: {"exponents": torch.rand(2, 3, 4), "importance": torch.rand(2, 3), **GROUPED},
    peak_mixture: {"masks": torch.rand(2, 3, 4), **GROUPED},
    boundaries: _rand("center", "width", "importance", shape=(2, 3)) | GROUPED,
    pull_distant: {"center": torch.rand(2, 3), **GROUPED},
    pull_middle: {"center": torch.rand(2, 3), **GROUPED},
    pull_all: {"center": torch.rand(2, 3), **GROUPED},
    push: {"masks": torch.rand(2, 3, 4), "group": GROUP, "target": 0.15},
    reconstruction_nll: {
        "logits": torch.rand(2, 3, 4, 5),
        "targets": torch.zeros(2, 4, dtype=torch.int64),
        "is_target": torch.ones(2, 4, dtype=torch.bool),
        "smoothing": 0.1,
    },
    contrastive_loss: {
        "best_nll": torch.rand(2, 3),
        "whole_video_nll": torch.rand(2),
        "negative_nll": torch.rand(2, 3, 1),
        "whole_video_margin": 0.1,
        "negative_margin": 0.15,
    },
    residual_norm: {
        **_rand("x", "branch", shape=(2, 3, 4)),
        **_rand("weight", "bias", shape=(4,)),
        "dropout_key": torch.zeros(2, dtype=torch.int32),
        "rate": 0.1,
    },
    mask_reward: {"masks": torch.rand(1, 3, 5), "curve": torch.rand(1, 5), "frame_valid": VALID},
    clip_adam: _update(),
}

# changes of the good arguments, and what is said of them
BAD_MASKS: list[tuple[dict[str, Any], str]] = [
    ({"width": torch.rand(4)}, r"width has shape \(4,\), expected \(3,\)"),
    ({"width": torch.rand(3).long()}, "width is torch.int64, expected a floating dtype"),
    ({"center": 0.5}, "center is float, expected a tensor"),
    ({"num_positions": 1}, "num_positions = 1, expected 2 or more"),
]
BAD_ATTENTION: list[tuple[dict[str, Any], str]] = [
    ({"query": torch.rand(2, 5, 4)}, r"query has shape \(2, 5, 4\), expected \[\w, H, Q, h\]"),
    ({"query": None}, r"query is NoneType, expected a tensor \[\w, H, Q, h\]"),
    (
        {"key": torch.rand(1, 2, 5, 3)},
        r"key has shape \(1, 2, 5, 3\), expected \[\w, H, T, h\] with \w = 1, H = 2, h = 4",
    ),
    ({"value": torch.rand(1, 2, 6, 4)}, r"value has shape \(1, 2, 6, 4\), expected \[\w, H, T, h\] with .*T = 5"),
    ({"key": torch.rand(1, 2, 5, 4).half()}, "query is torch.float32, key torch.float16; expected one dtype"),
    ({"key_valid": torch.ones(1, 5)}, "key_valid is torch.float32, expected torch.bool"),
    ({"key_valid": torch.ones(3, 5).bool()}, r"key_valid has shape \(3, 5\), expected \[\w, T\] with \w = 1, T = 5"),
    ({"key_valid": VALID.to("meta")}, "key_valid is on meta, query on cpu; expected one device"),
]
BAD: dict[Op, list[tuple[dict[str, Any], str]]] = {
    **dict.fromkeys((gaussian_mask, gaussian_peak_mask, laplace_mask, gaussian_exponent), BAD_MASKS),
    masked_attention: [
        *BAD_ATTENTION,
        ({"key_bias": torch.rand(5)}, r"key_bias has shape \(5,\), expected \[G, T\] with G = 1, T = 5"),
    ],
    shared_attention: [
        *BAD_ATTENTION,
        ({"key_bias": torch.rand(1, 5)}, r"key_bias has shape \(1, 5\), expected \[B, N, T\] with B = 1, T = 5"),
        ({"key_bias": None}, r"key_bias is NoneType, expected a tensor \[B, N, T\]"),
    ],
    importance: [*BAD_GROUPS, *BAD_COUNTS, ({"score": torch.rand(3)}, r"score has shape \(3,\), expected \[B, E\]")],
    mixture: [
        *BAD_GROUPS,
        *BAD_COUNTS,
        ({"masks": torch.rand(2, 3)}, r"masks has shape \(2, 3\), expected \[B, E, T\]"),
        ({"log_masks": torch.rand(2, 3, 5)}, r"log_masks has shape \(2, 3, 5\), expected \[B, E, T\] with .*T = 4"),
        ({"importance": torch.rand(1, 3)}, r"importance has shape \(1, 3\), expected \[B, E\] with B = 2, E = 3"),
    ],
    mixture_exponent: [
        *BAD_GROUPS,
        *BAD_COUNTS,
        ({"exponents": torch.rand(2, 3)}, r"exponents has shape \(2, 3\), expected \[B, E, T\]"),
        ({"importance": torch.rand(1, 3)}, r"importance has shape \(1, 3\), expected \[B, E\] with B = 2, E = 3"),
    ],
    peak_mixture: [*BAD_GROUPS, *BAD_COUNTS, ({"masks": torch.rand(3, 4)}, r"masks has shape \(3, 4\), expected")],
    boundaries: [
        *BAD_GROUPS,
        *BAD_COUNTS,
        ({"width": torch.rand(1, 3)}, r"width has shape \(1, 3\), expected \[B, E\] with B = 2, E = 3"),
        ({"importance": torch.rand(2, 3, 1)}, r"importance has shape \(2, 3, 1\), expected \[B, E\]"),
    ],
    **dict.fromkeys(
        (pull_distant, pull_middle, pull_all),
        [*BAD_GROUPS, *BAD_COUNTS, ({"center": torch.rand(3)}, r"center has shape \(3,\), expected \[B, E\]")],
    ),
    push: [*BAD_GROUPS, ({"masks": torch.rand(3, 4)}, r"masks has shape \(3, 4\), expected \[B, n, T\]")],
    reconstruction_nll: [
        ({"logits": torch.rand(2, 4, 5)}, r"logits has shape \(2, 4, 5\), expected \[B, N, L, V\]"),
        ({"targets": torch.zeros(2, 4).int()}, "targets is torch.int32, expected torch.int64"),
        ({"targets": torch.zeros(2, 3).long()}, r"targets has shape \(2, 3\), expected \[B, L\] with B = 2, L = 4"),
        ({"targets": torch.zeros(2, 4, device="meta").long()}, "targets is on meta, logits on cpu"),
        ({"is_target": torch.ones(2, 4)}, "is_target is torch.float32, expected torch.bool"),
        ({"is_target": torch.ones(4).bool()}, r"is_target has shape \(4,\), expected \[B, L\]"),
    ],
    contrastive_loss: [
        ({"best_nll": torch.rand(2)}, r"best_nll has shape \(2,\), expected \[B, n\]"),
        ({"whole_video_nll": torch.rand(3)}, r"whole_video_nll has shape \(3,\), expected \[B\] with B = 2"),
        (
            {"negative_nll": torch.rand(2, 2, 1)},
            r"negative_nll has shape \(2, 2, 1\), expected \[B, n, J\] with .*n = 3",
        ),
        ({"best_nll": torch.ones(2, 3).long()}, "best_nll is torch.int64, expected a floating dtype"),
    ],
    residual_norm: [
        ({"x": torch.rand(3, 4)}, r"x has shape \(3, 4\), expected \[G, n, D\]"),
        ({"branch": torch.rand(2, 3, 5)}, r"branch has shape \(2, 3, 5\), expected \[G, n, D\] with .*D = 4"),
        ({"weight": torch.rand(3)}, r"weight has shape \(3,\), expected \[D\] with D = 4"),
        ({"dropout_key": torch.zeros(2, dtype=torch.int64)}, "dropout_key is torch.int64, expected torch.int32"),
        (
            {"dropout_key": torch.zeros(3, dtype=torch.int32)},
            r"dropout_key has shape \(3,\), expected \[G\] with G = 2",
        ),
        ({"dropout_key": torch.zeros(2, dtype=torch.int32, device="meta")}, "dropout_key is on meta, x on cpu"),
        ({"first_row": torch.zeros(2)}, "first_row is torch.float32, expected an integer dtype"),
        ({"first_row": torch.zeros(3).long()}, r"first_row has shape \(3,\), expected \[G\] with G = 2"),
        (
            {
                **_rand("x", "branch", shape=(2, 3, 5)),
                **_rand("weight", "bias", shape=(5,)),
                "first_row": torch.zeros(2, dtype=torch.int64),
            },
            "x has rows of 5 values; with first_row expected an even number",
        ),
    ],
    mask_reward: [
        ({"masks": torch.rand(3, 5)}, r"masks has shape \(3, 5\), expected \[B, n, T\]"),
        ({"curve": torch.rand(5)}, r"curve has shape \(5,\), expected \[B, T\] with B = 1, T = 5"),
        ({"curve": torch.rand(1, 4)}, r"curve has shape \(1, 4\), expected \[B, T\] with B = 1, T = 5"),
        ({"curve": torch.ones(1, 5).long()}, "curve is torch.int64, expected a floating dtype"),
        ({"frame_valid": torch.ones(1, 5)}, "frame_valid is torch.float32, expected torch.bool"),
        ({"frame_valid": VALID.to("meta")}, "frame_valid is on meta, masks on cpu; expected one device"),
    ],
    clip_adam: [
        (
            {"buffers": _buffers(gradients=torch.rand(4).double())},
            r"buffers\[0\].gradients is torch.float64 .*expected one dtype and size",
        ),
        (
            {"buffers": _buffers(gradients=torch.rand(5))},
            r"buffers\[0\].gradients is torch.float32 of shape \(5,\), parameters torch.float32 of shape \(4,\)",
        ),
        (
            {"buffers": _buffers(first=torch.rand(2, 2))},
            r"buffers\[0\].first is torch.float32 of shape \(2, 2\); expected contiguous \[n\]",
        ),
        (
            {"buffers": _buffers(second=torch.rand(8)[::2])},
            r"buffers\[0\].second is torch.float32 of shape \(4,\), not contiguous; expected",
        ),
        (
            {"buffers": _buffers(second=torch.rand(4, device="meta"))},
            r"buffers\[0\].second is on meta, rate on cpu; expected one device",
        ),
        (
            {"buffers": _buffers(rounded=torch.rand(3).half())},
            r"buffers\[0\].rounded is torch.float16 of shape \(3,\), parameters .*expected one size",
        ),
        ({"buffers": []}, "there are no buffers; expected one at least"),
        ({"loss": torch.rand(1)}, r"loss has shape \(1,\), expected \[\]"),
        ({"rate": torch.tensor(0.1)}, "rate is torch.float32, expected torch.float64"),
        ({"update": torch.zeros(1).double()}, r"update has shape \(1,\), expected \[\]"),
        ({"is_finite": torch.tensor(1)}, "is_finite is torch.int64, expected torch.bool"),
        ({"is_finite": torch.tensor(True, device="meta")}, "is_finite is on meta, rate on cpu"),
    ],
}


def test_every_op_is_tried() -> None:
    assert set(GOOD) == set(BAD) == {*ALL_OPS, clip_adam}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("op", "changes", "sentence"),
    [pytest.param(op, *row, id=f"{op.name}-{row[1]}") for op, rows in BAD.items() for row in rows],
)
def test_every_backend_refuses_in_the_same_words(op: Op, changes: dict[str, Any], sentence: str, backend: str) -> None:
    assert op.reasons(**GOOD[op]) == []
    with pytest.raises(ValueError, match=f"^{op.name}: {sentence}"):
        op(**GOOD[op] | changes, backend=backend)


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
def test_the_equation_goes_on_taking_what_only_the_kernel_refuses(op: Op) -> None:
    """Double precision and no samples."""
    tensors = {name: x for name, x in GOOD[op].items() if isinstance(x, Tensor)}
    wide = {name: x.double() if x.is_floating_point() else x for name, x in tensors.items()}
    no_samples = {name: x[:0] if name not in ("group", "weight", "bias") else x for name, x in tensors.items()}
    for changes in (wide, no_samples):
        inputs = GOOD[op] | changes
        assert op.reasons(**inputs)
        results = op(**inputs)
        for result in results if isinstance(results, tuple) else (results,):
            assert isinstance(result, Tensor)


def test_a_check_reads_no_value_and_no_memory() -> None:
    contract = {"x": floats("B E"), "group": integers("E"), "valid": booleans("B"), "num": at_least(1)}
    with FakeTensorMode():
        inputs = {"x": torch.rand(2, 3), "group": torch.zeros(3).long(), "valid": torch.ones(2).bool(), "num": 1}
        check("op", contract, frozenset(), inputs)
        with pytest.raises(ValueError, match=r"op: valid has shape \(3,\), expected \[B\] with B = 2"):
            check("op", contract, frozenset(), inputs | {"valid": torch.ones(3).bool()})


@pytest.mark.parametrize(("value", "is_fine"), [(None, False), (torch.ones(()).double(), True), (1.0, False)])
def test_a_number_in_a_tensor_is_no_plain_number(value: Any, is_fine: bool) -> None:
    contract = {"rate": exactly(torch.float64)}
    if is_fine:
        check("op", contract, frozenset(), {"rate": value})
        return
    with pytest.raises(ValueError, match=r"op: rate is \w+, expected a tensor \[\]"):
        check("op", contract, frozenset(), {"rate": value})


def test_only_an_argument_with_the_default_none_may_be_none() -> None:
    check("op", {"x": floats("n")}, frozenset({"x"}), {"x": None})
    check("op", {"x": floats("n")}, frozenset(), {})
    with pytest.raises(ValueError, match="x is NoneType"):
        check("op", {"x": floats("n")}, frozenset(), {"x": None})
