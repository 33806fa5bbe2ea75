"""What a comparison with a golden file yields: one `Check` per compared array, and the tolerances by group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

# largest error allowed in float64: absolute on outputs and losses, relative to the tensor's largest value on gradients;
# what evaluation counts must be equal (order, choice, recall). In fp32 losses are relative, differences to what was
# subtracted, because they are as uncertain as that, on another CPU too
TOLERANCE = {
    "outputs": 1e-9,
    "losses": 1e-9,
    "gradients": 1e-8,
    "evaluation": 0.0,
    "kernels": 1e-9,
    "kernel gradients": 1e-8,
    "outputs fp32": 1e-4,
    "losses fp32": 1e-5,
    "gradients fp32": 1e-3,
}
# a tensor of zeros is compared absolutely
_SMALLEST_SCALE = 1e-12
_RELATIVE = ("gradients", "kernel gradients", "losses fp32", "gradients fp32")


@dataclass(frozen=True)
class Check:
    """One compared array.

    Attributes:
        group: key of TOLERANCE.
        name: of the array in the file.
        error: largest difference, relative in the relative groups: to the largest expected value, or to a given scale.
    """

    group: str
    name: str
    error: float

    @property
    def is_ok(self) -> bool:
        """Whether the error is within the group's tolerance; NaN is not."""
        return self.error <= TOLERANCE[self.group]


def compare(
    group: str, name: str, got: Tensor | np.ndarray | float, expected: np.ndarray, scale: float | None = None
) -> Check:
    """Compares one array; a different shape is an infinite error, and so is a NaN on one side only.

    Args:
        scale: for a difference, the size of what was subtracted; relative errors are relative to it.
    """
    got = np.asarray(got.detach().cpu() if isinstance(got, Tensor) else got)
    expected = np.asarray(expected)
    if got.shape != expected.shape:
        return Check(group, name, float("inf"))
    if got.size == 0:
        return Check(group, name, 0.0)
    error = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    if group in _RELATIVE:
        error = error / max(np.abs(expected).max() if scale is None else scale, _SMALLEST_SCALE)
    return Check(group, name, float(error) if np.isfinite(error) else float("inf"))
