"""Moments read from masks, against dense sampling and by property."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.proposals.readings import READINGS, Mixed
from pps_fast.types import Components
from tests.support.compare import assert_agree

# center, width of each component, and its proposal: one alone, one at the edge, and two far apart
CENTER = torch.tensor([[0.4, 0.02, 0.2, 0.7]], dtype=torch.float64)
WIDTH = torch.tensor([[0.3, 0.3, 0.2, 0.2]], dtype=torch.float64)
GROUP = torch.tensor([0, 1, 2, 2])
WEIGHT = torch.tensor([[1.0, 1.0, 0.5, 0.5]], dtype=torch.float64)
# center -+ width / 2 is e^-2 of a single mask
SIGMA = math.sqrt(8)


def _mixed(num_positions: int = 201, sigma: float = SIGMA, shrink: float = 0.0) -> Mixed:
    masks, log_masks = equations.gaussian_mask(CENTER, WIDTH, sigma, num_positions)
    mixture, _ = equations.mixture(masks, log_masks, WEIGHT, GROUP, 3)
    components = Components(center=CENTER, width=WIDTH, masks=masks, log_masks=log_masks)
    return Mixed(components=components, importance=WEIGHT, masks=mixture, group=GROUP, shrink=shrink)


def _read(name: str, mixed: Mixed) -> tuple[Tensor, Tensor]:
    return READINGS[name](mixed, "torch")


def test_the_level_of_a_single_mask_is_two_standard_deviations_whatever_the_grid() -> None:
    for num_positions in (21, 201):
        start, end = _read("mask_level", _mixed(num_positions))
        assert_agree("start", start[0, 0], torch.tensor(0.25, dtype=torch.float64), atol=1e-3 * 200 / num_positions)
        assert_agree("end", end[0, 0], torch.tensor(0.55, dtype=torch.float64), atol=1e-3 * 200 / num_positions)


def test_with_sigma_root_8_level_and_width_are_one_for_a_single_component() -> None:
    level, width = _read("mask_level", _mixed()), _read("center_width", _mixed())
    for first, second in zip(level, width, strict=True):
        assert_agree("single", first[0, :2], second[0, :2], atol=1e-3)


def test_of_a_mixture_the_level_covers_all_components_and_the_width_lies_between_them() -> None:
    level, width = ([side[0, 2].item() for side in _read(name, _mixed())] for name in ("mask_level", "center_width"))
    assert level == pytest.approx([0.1, 0.8], abs=2e-3)
    assert width == pytest.approx([0.35, 0.55], abs=1e-9)


def test_a_mask_that_is_cut_by_the_end_of_the_video_begins_there() -> None:
    assert _read("mask_level", _mixed())[0][0, 1].item() == 0


def test_the_paper_reads_the_trained_mask_at_the_rounding_of_nothing() -> None:
    mixed = _mixed(sigma=9.0)
    start, _ = _read("center_width", mixed)
    masks, _ = equations.gaussian_mask(CENTER, WIDTH, 9.0, 201)
    at_start = masks[0, 0, round(start[0, 0].item() * 200)].item()
    assert math.log(at_start) == pytest.approx(-20.25, abs=1e-6)


def test_the_mass_agrees_with_dense_sampling() -> None:
    mixed = _mixed(31)
    start, end = _read("mass", mixed)
    grid = np.linspace(0, 1, 200_001)
    for k in range(3):
        values = np.interp(grid, np.linspace(0, 1, 31), mixed.masks[0, k].numpy())
        # a trapezoid's mass is spread evenly between its positions
        trapezoids = np.add.reduceat(values[:-1], np.arange(0, 200_000, 200_000 // 30)[:30])
        running = np.interp(grid, np.linspace(0, 1, 31), np.append(0, np.cumsum(trapezoids)))
        expected = [grid[np.searchsorted(running, share * running[-1])] for share in (0.1, 0.9)]
        assert [start[0, k].item(), end[0, k].item()] == pytest.approx(expected, abs=2e-3)


def test_the_mean_lies_between_width_and_mass() -> None:
    mixed = _mixed(shrink=0.2)
    parts = [_read(name, mixed) for name in ("center_width", "mass", "mean")]
    for width, mass, mean in zip(*parts, strict=True):
        assert_agree("mean", mean, (width + mass) / 2, atol=1e-15)


# the mean is one of two that are shrunk
@pytest.mark.parametrize("name", sorted(READINGS.keys() - {"mean"}))
def test_every_reading_is_shrunk_by_the_share_of_its_length(name: str) -> None:
    (start, end), (left, right) = (_read(name, _mixed(shrink=shrink)) for shrink in (0.0, 0.3))
    # not the one that is cut by the end of the video before it is shrunk
    chosen = [0, 2]
    assert_agree("start", left[0, chosen], (start + 0.15 * (end - start))[0, chosen], atol=1e-12)
    assert_agree("end", right[0, chosen], (end - 0.15 * (end - start))[0, chosen], atol=1e-12)


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("masks", ["zeros", "ones", "one position"])
def test_moments_are_ordered_and_inside_the_video_for_any_mask(name: str, masks: str) -> None:
    mixed = _mixed(5)
    values = {"zeros": torch.zeros(1, 3, 5), "ones": torch.ones(1, 3, 5), "one position": torch.eye(5)[None, [0, 2, 4]]}
    start, end = _read(name, Mixed(**{**vars(mixed), "masks": values[masks].double()}))
    assert (start >= 0).all() and (end <= 1).all() and (start < end).all()
    if masks != "one position" and name == "mask_level":
        assert start.tolist() == [[0.0] * 3] and end.tolist() == [[1.0] * 3]
