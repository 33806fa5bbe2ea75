"""The kernel of the boundaries against the published code's numbers.

What it computes is tested in tests/ops, that it compiles in test_aot.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pps_fast.ops.boundaries import boundaries
from tests.support.compare import assert_agree
from tests.support.golden_model import Golden


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(Path(__file__).parents[1] / "golden" / "kernels_f64.npz")


def test_boundaries_of_the_published_code(golden: Golden, poisoned_empty: None) -> None:
    prefixes = sorted({"/".join(name.split("/")[:2]) for name in golden.arrays if name.startswith("bounds/")})
    assert prefixes
    for prefix in prefixes:
        center, width, weights = (
            golden.tensor(f"{prefix}/{x}", torch.float32) for x in ("center", "width", "attention")
        )
        group, shrink = torch.zeros(center.shape[1], dtype=torch.int64), float(golden[f"{prefix}/pred_gamma"])
        width = width.unsqueeze(1).expand_as(center)
        start, end = boundaries(center, width, weights, group, 1, shrink, backend="triton")
        # relative to the largest value; measured in fp32: 6e-8
        assert_agree(f"{prefix}/left", start.squeeze(1), golden[f"{prefix}/left"], rtol=5e-7)
        assert_agree(f"{prefix}/right", end.squeeze(1), golden[f"{prefix}/right"], rtol=5e-7)
