"""Shapes of masks share one signature and are what their names say."""

from __future__ import annotations

import math

import pytest
import torch

from pps_fast.proposals.shapes import MASK_SHAPES
from tests.support.compare import assert_agree


@pytest.mark.parametrize("name", sorted(MASK_SHAPES))
def test_every_shape_draws_fractions_and_decays_from_its_center(name: str) -> None:
    center, width = torch.tensor([[0.25, 0.5]]).double(), torch.tensor([[0.9, 0.3]]).double()
    got, log = MASK_SHAPES[name](center, width, 4.0, 9, 0.01, backend="torch")
    assert got.shape == (1, 2, 9)
    assert_agree("log", log, torch.log(got + 1e-10), atol=1e-14)
    assert ((got > 0) & (got <= 1)).all()
    assert got.argmax(-1).tolist() == [[2, 4]]
    assert (got[0, :, 4:].diff(dim=-1) < 0).all()


@pytest.mark.parametrize(("name", "expected"), [("gaussian", -1.0), ("gaussian_peak", -0.5), ("laplace", -1.0)])
def test_one_deviation_from_the_center_the_shapes_differ_as_named(name: str, expected: float) -> None:
    # width 1 over sigma 4 is one position of five
    got = MASK_SHAPES[name](torch.zeros(1).double(), torch.ones(1).double(), 4.0, 5, 0.01)[0][0]
    squared = 4 if name != "laplace" else 2
    deviations = torch.tensor([math.exp(expected), math.exp(expected * squared)], dtype=torch.float64)
    assert_agree("deviations", got[1:3], deviations, atol=1e-12)
