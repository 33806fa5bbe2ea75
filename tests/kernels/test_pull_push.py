"""The kernels of the losses against the published code's numbers, and the blocks they are launched with.

What they compute is tested in tests/ops, that they compile in test_aot.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pps_fast.kernels.pull_push import _push_blocks
from pps_fast.ops.pull_push import pull_distant, push
from pps_fast.proposals.layout import MixtureLayout
from tests.support.compare import assert_agree
from tests.support.golden_model import Golden

# relative to the largest value; measured in fp32: losses 1.7e-7, gradients 1.2e-6
TOLERANCE = {"loss": 1e-6, "gradient": 5e-6}


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(Path(__file__).parents[1] / "golden" / "kernels_f64.npz")


def _parts(golden: Golden, prefix: str, letter: str) -> dict[str, Tensor]:
    """The proposals' arrays in order, leaves in fp32."""
    names = [name.split("/")[-1] for name in golden.arrays if name.startswith(f"{prefix}/{letter}")]
    ordered = sorted(names, key=lambda name: int(name[1:] or 0))
    return {name: golden.tensor(f"{prefix}/{name}", torch.float32).requires_grad_() for name in ordered}


def _assert_golden(golden: Golden, prefix: str, loss: Tensor, leaves: dict[str, Tensor]) -> None:
    loss.backward()
    assert_agree("loss", loss, golden[f"{prefix}/loss"], rtol=TOLERANCE["loss"])
    for name, leaf in leaves.items():
        assert_agree(name, leaf.grad, golden[f"{prefix}/grad_{name}"], rtol=TOLERANCE["gradient"])


@pytest.mark.parametrize("number", range(3))
def test_pull_of_the_published_code(golden: Golden, number: int, poisoned_empty: None) -> None:
    leaves = _parts(golden, f"pull/{number}", "c")
    group = torch.tensor(MixtureLayout(tuple(leaf.shape[1] for leaf in leaves.values())).group)
    loss = pull_distant(torch.cat(list(leaves.values()), 1), group, len(leaves), backend="triton")
    _assert_golden(golden, f"pull/{number}", loss, leaves)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kind", ["intra", "inter"])
def test_push_of_the_published_code(golden: Golden, kind: str, number: int, poisoned_empty: None) -> None:
    prefix = f"push_{kind}/{number}"
    leaves = _parts(golden, prefix, "m" if kind == "intra" else "p")
    masks = torch.cat(list(leaves.values()), 1)
    group = torch.tensor(MixtureLayout(tuple(leaf.shape[1] for leaf in leaves.values())).group)
    loss = push(masks, group, float(golden[f"{prefix}/lam"]), backend="triton")
    _assert_golden(golden, prefix, loss, leaves)


@pytest.mark.parametrize("rows", [1, 7, 28, 33, 64])
@pytest.mark.parametrize("num_positions", [2, 50, 200, 512])
def test_blocks_suit_the_dots_and_the_registers(rows: int, num_positions: int) -> None:
    blocks = _push_blocks(rows, num_positions)
    assert blocks["BLOCK_N"] >= max(rows, 16) and blocks["BLOCK_T"] >= 16
    assert blocks["BLOCK_N"] * blocks["BLOCK_T"] <= 1024
