"""The one table of caps: the largest error an op may have whatever its reference's error is.

Errors are relative norms against the float64 oracle, ||x - oracle|| / ||oracle||. A cap changes only with the measured
error beside it and a `numerics:` line in the commit.
"""

from __future__ import annotations

import torch

# what rounding inputs and outputs to the dtype allows, with room for reductions over a few hundred terms
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}

# compiled kernels take exp, log and division from the GPU's approximations, each within 2 units in the last place
# (CUDA's ex2.approx, lg2.approx, div.full), and scale the exponent first, which costs as many units as it has digits:
# 1.4e-6 is the largest error seen on an H200 where the equation's is below 2e-7 (masked_attention, gradient of a bias)
COMPILED = 16 * torch.finfo(torch.float32).eps

CAP: dict[str, dict[torch.dtype, float]] = {
    "gaussian_mask": _ROUNDING,
    "masked_attention": _ROUNDING,
    "shared_attention": _ROUNDING,
    "attentive_pooling": _ROUNDING,
    "mixture_exponent": _ROUNDING,
    "boundaries": _ROUNDING,
    # differences of nearly equal Gram entries and a chain of normalizations
    "pull_push": {**_ROUNDING, torch.float32: 5e-5},
    "reconstruction_nll": _ROUNDING,
    "contrastive_loss": _ROUNDING,
    "residual_norm": _ROUNDING,
    "mask_reward": _ROUNDING,
}
