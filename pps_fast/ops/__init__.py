"""Every public op of the model, by the file that holds it; `clip_adam`, which updates the model, stands beside them."""

from __future__ import annotations

from pps_fast.ops import (
    attentive_pooling,
    boundaries,
    gaussian_mask,
    masked_attention,
    pull_push,
    reconstruction_nll,
    residual_norm,
    shared_attention,
)
from pps_fast.ops.dispatch import Op

# modules, not ops, are imported above: an op of its module's name would hide the module
OPS: dict[str, tuple[Op, ...]] = {
    "gaussian_mask": (gaussian_mask.gaussian_mask, gaussian_mask.gaussian_peak_mask, gaussian_mask.laplace_mask),
    "masked_attention": (masked_attention.masked_attention,),
    "shared_attention": (shared_attention.shared_attention,),
    "attentive_pooling": (
        attentive_pooling.importance,
        attentive_pooling.mixture,
        attentive_pooling.peak_mixture,
    ),
    "boundaries": (boundaries.boundaries,),
    "pull_push": (pull_push.pull_distant, pull_push.pull_middle, pull_push.pull_all, pull_push.push),
    "reconstruction_nll": (reconstruction_nll.reconstruction_nll,),
    "residual_norm": (residual_norm.residual_norm,),
}
ALL_OPS: tuple[Op, ...] = tuple(op for ops in OPS.values() for op in ops)
