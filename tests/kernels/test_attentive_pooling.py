"""The kernels of the pooling against the published code's numbers, and the blocks they are launched with.

What they compute is tested in tests/ops, that they compile in test_aot.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.kernels import attentive_pooling as kernel
from pps_fast.kernels.attentive_pooling import _bwd_blocks, _fwd_blocks
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.gaussian_mask import gaussian_peak_mask
from tests.support.compare import assert_agree
from tests.support.golden_model import Golden

# relative to the largest value; measured in fp32, through fp32 masks: values 9.6e-7, gradients 4.1e-6
TOLERANCE = {"value": 5e-6, "gradient": 2e-5}


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(Path(__file__).parents[1] / "golden" / "kernels_f64.npz")


def _leaves(golden: Golden, prefix: str, *names: str) -> dict[str, Tensor]:
    return {name: golden.tensor(f"{prefix}/{name}", torch.float32).requires_grad_() for name in names}


def _assert_golden(golden: Golden, prefix: str, values: dict[str, Tensor], leaves: dict[str, Tensor]) -> None:
    (values["proposal"] * golden.tensor(f"{prefix}/upstream", torch.float32)).sum().backward()
    for name, value in values.items():
        assert_agree(name, value, golden[f"{prefix}/{name}"], rtol=TOLERANCE["value"])
    for name, leaf in leaves.items():
        assert_agree(f"grad_{name}", leaf.grad, golden[f"{prefix}/grad_{name}"], rtol=TOLERANCE["gradient"])


@pytest.mark.parametrize("number", range(4))
def test_mixture_of_the_published_code(golden: Golden, number: int, poisoned_empty: None) -> None:
    prefix = f"mixture/{number}"
    leaves = _leaves(golden, prefix, "center", "width", "logit")
    center, width = leaves["center"], leaves["width"].unsqueeze(1).expand_as(leaves["center"])
    group = torch.zeros(center.shape[1], dtype=torch.int64)
    shape = (float(golden[f"{prefix}/sigma"]), int(golden[f"{prefix}/n"]))
    masks, logs = gaussian_peak_mask(center, width, *shape, backend="triton")
    weights = importance(leaves["logit"], group, 1, backend="triton")
    proposal = mixture(masks, logs, weights, group, 1, backend="triton")[0].squeeze(1)
    _assert_golden(golden, prefix, {"attention": weights, "each_mask": masks, "proposal": proposal}, leaves)


@pytest.mark.parametrize("number", range(4))
def test_peak_mixture_of_the_published_code(golden: Golden, number: int, poisoned_empty: None) -> None:
    prefix = f"sum_max/{number}"
    leaves = _leaves(golden, prefix, "center", "width")
    shape = (float(golden[f"{prefix}/sigma"]), int(golden[f"{prefix}/n"]))
    masks, _ = gaussian_peak_mask(leaves["center"], leaves["width"], *shape, backend="triton")
    group = torch.zeros(masks.shape[1], dtype=torch.int64)
    proposal = peak_mixture(masks, group, 1, backend="triton")[0].squeeze(1)
    _assert_golden(golden, prefix, {"proposal": proposal}, leaves)


def test_the_floor_under_masks_is_that_of_the_equation() -> None:
    assert kernel.MASK_FLOOR.value == equations.MASK_FLOOR


@pytest.mark.parametrize("components", [1, 28, 64])
@pytest.mark.parametrize("num_positions", [2, 50, 200, 512])
def test_blocks_hold_all_positions_and_fit_the_registers(components: int, num_positions: int) -> None:
    forward, backward = _fwd_blocks(components, num_positions), _bwd_blocks(num_positions)
    assert forward["BLOCK_T"] == backward["BLOCK_T"] >= num_positions
    assert 1 <= forward["BLOCK_E"] * forward["BLOCK_T"] <= 2048
    assert 1 <= backward["BLOCK_R"] * backward["BLOCK_T"] <= 1024
