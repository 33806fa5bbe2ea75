"""Variants of the mask kernels that are shipped, for `aot.py`: every shape and the exponent, with 50 positions."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import gaussian_mask
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    forward = dict.fromkeys(("p_center", "p_width", "p_mask", "p_log"), "*fp32")
    names = ("p_center", "p_width", "p_grad", "p_grad_log", "p_grad_center", "p_grad_width")
    # the logs of easy negatives have no gradient
    backward = dict.fromkeys(names, "*fp32") | {"has_grad": 1, "has_grad_log": 0}
    for shape, inverse in (("gaussian", False), ("gaussian_peak", False), ("laplace", False), ("gaussian_peak", True)):
        index = gaussian_mask.SHAPES.index(shape)
        constants = {"SIGMA": 9.0, "WIDTH_FLOOR": 0.01, "SHAPE": index, "INVERSE": inverse, "T": 50}
        constants |= gaussian_mask._blocks(50)
        label = shape + ("_inverse" if inverse else "")
        for kernel, pointers in (
            (gaussian_mask.gaussian_mask_fwd_kernel, forward),
            (gaussian_mask.gaussian_mask_bwd_kernel, backward),
        ):
            yield Variant(label, kernel, {**pointers, "num_rows": 32 * 28}, constants, options=gaussian_mask.OPTIONS)
    constants = {"SIGMA": 9.0, "WIDTH_FLOOR": 0.01, "T": 50, **gaussian_mask._blocks(50)}
    for kernel, names in (
        (gaussian_mask.gaussian_exponent_fwd_kernel, ("p_center", "p_width", "p_exponent")),
        (
            gaussian_mask.gaussian_exponent_bwd_kernel,
            ("p_center", "p_width", "p_grad", "p_grad_center", "p_grad_width"),
        ),
    ):
        signature = dict.fromkeys(names, "*fp32") | {"num_rows": 32 * 28}
        yield Variant("gaussian", kernel, signature, constants, options=gaussian_mask.OPTIONS)
