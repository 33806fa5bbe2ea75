"""The kernels of the sentence's cross-entropy against the published code's numbers, and the blocks they are launched
with.

What they compute is tested in tests/ops, that they compile in test_aot.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pps_fast.kernels import reconstruction_nll as kernel
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from tests.support.compare import assert_agree
from tests.support.golden_model import Golden

# relative to the largest value; measured in fp32: C 5.6e-8, gradient 1.6e-7
TOLERANCE = {"nll": 1e-6, "gradient": 1e-6}


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(Path(__file__).parents[1] / "golden" / "kernels_f64.npz")


@pytest.mark.parametrize("num_masks", [1, 3])
def test_nll_of_the_published_code(golden: Golden, num_masks: int, poisoned_empty: None) -> None:
    logits = golden.tensor("c_loss/logits", torch.float32).requires_grad_()
    repeated = logits.unsqueeze(1).expand(-1, num_masks, -1, -1)
    is_target = golden.tensor("c_loss/mask").bool()
    nll = reconstruction_nll(repeated, golden.tensor("c_loss/ids"), is_target, 0.1, backend="triton")
    (nll.mean(1) * golden.tensor("c_loss/upstream", torch.float32)).sum().backward()
    for mask in range(num_masks):
        assert_agree("C", nll[:, mask], golden["c_loss/C"], rtol=TOLERANCE["nll"])
    assert_agree("gradient", logits.grad, golden["c_loss/grad_logits"], rtol=TOLERANCE["gradient"])


@pytest.mark.parametrize(
    ("num_columns", "num_classes", "words", "classes"),
    [
        # in bf16 a warp for each word; 5 times 256 classes for 1112 instead of 2 times 1024
        (20, 1112, 4, 256),
        (1, 1112, 1, 256),
        # no block leaves fewer lanes idle, and the widest takes fewest turns
        (20, 8001, 1, 1024),
        (20, 1024, 1, 1024),
        (9, 23, 16, 32),
        (1, 1, 1, 1),
    ],
)
def test_blocks_waste_few_lanes_and_hold_no_more_than_the_registers(
    num_columns: int, num_classes: int, words: int, classes: int
) -> None:
    assert kernel.blocks(num_columns, num_classes) == {"BLOCK_L": words, "BLOCK_V": classes}


@pytest.mark.parametrize("num_classes", [*range(1, 130), 255, 257, 1111, 1112, 1535, 8000, 8001])
def test_blocks_hold_no_more_than_the_registers(num_classes: int) -> None:
    for num_columns in (1, 7, 20, 1024):
        tile = kernel.blocks(num_columns, num_classes)
        assert tile["BLOCK_L"] * tile["BLOCK_V"] <= kernel._BLOCK_ELEMENTS


@pytest.mark.parametrize("elements", [16, 64, 256, 4096])
def test_the_result_does_not_depend_on_the_blocks(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [torch.randn(2, 2, 3, 65), torch.randint(65, (2, 3)), torch.ones(2, 3, dtype=torch.bool), 0.1]
    grad = torch.rand(2, 2)
    expected, *stats = kernel.reconstruction_nll_fwd(*inputs)
    expected_grad = kernel.reconstruction_nll_bwd(grad, *inputs, *stats)
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", elements)
    assert kernel.blocks(3, 65)["BLOCK_V"] == min(elements, 128)
    nll, *stats = kernel.reconstruction_nll_fwd(*inputs)
    assert_agree("nll", nll, expected, rtol=1e-6)
    assert_agree("gradient", kernel.reconstruction_nll_bwd(grad, *inputs, *stats), expected_grad, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "columns", "expected"),
    [
        ((2, 3, 20, 1112), 20, 8),
        ((2, 3, 20, 1112), 13, 8),
        ((2, 3, 20, 8001), 20, 1),
        ((2, 3, 4, 6), 4, 2),
        # the stride of an axis of one entry moves nothing
        ((1, 1, 1, 7), 1, 8),
    ],
)
def test_rows_begin_where_the_compiler_is_told_they_do(
    shape: tuple[int, int, int, int], columns: int, expected: int
) -> None:
    x = torch.empty(shape)[:, :, :columns]
    assert kernel.alignment(x) == expected
    assert all(size == 1 or stride % expected == 0 for size, stride in zip(x.shape[:3], x.stride()[:3], strict=True))
