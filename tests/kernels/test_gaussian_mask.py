"""What the mask kernels share with the equation.

What they compute is tested in tests/ops, that they compile in test_aot.py.
"""

from __future__ import annotations

from pps_fast import equations
from pps_fast.kernels import gaussian_mask


def test_the_floor_under_masks_is_that_of_the_equation() -> None:
    assert gaussian_mask.MASK_FLOOR.value == equations.MASK_FLOOR
