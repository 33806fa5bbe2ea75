"""Every public op of the model by the file that holds it, and `clip_adam`, which updates the model.

Each file is imported here before its ops are bound, so that `from pps_fast.ops import masked_attention` is the op and
never the file of that name, whatever was imported before. Other names of a file are imported from the file:
`from pps_fast.ops.masked_attention import allows_tf32`.
"""

from __future__ import annotations

from typing import Any

from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.boundaries import boundaries
from pps_fast.ops.clip_adam import clip_adam
from pps_fast.ops.contrastive_loss import contrastive_loss
from pps_fast.ops.dispatch import BackendError, Op, use_backend
from pps_fast.ops.gaussian_mask import gaussian_exponent, gaussian_mask, gaussian_peak_mask, laplace_mask
from pps_fast.ops.mask_reward import mask_reward
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.mixture_exponent import mixture_exponent
from pps_fast.ops.pull_push import pull_all, pull_distant, pull_middle, push
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.ops.shared_attention import shared_attention

OPS: dict[str, tuple[Op[..., Any], ...]] = {
    "gaussian_mask": (gaussian_mask, gaussian_peak_mask, laplace_mask, gaussian_exponent),
    "masked_attention": (masked_attention,),
    "shared_attention": (shared_attention,),
    "attentive_pooling": (importance, mixture, peak_mixture),
    "mixture_exponent": (mixture_exponent,),
    "boundaries": (boundaries,),
    "pull_push": (pull_distant, pull_middle, pull_all, push),
    "reconstruction_nll": (reconstruction_nll,),
    "contrastive_loss": (contrastive_loss,),
    "residual_norm": (residual_norm,),
    "mask_reward": (mask_reward,),
}
ALL_OPS: tuple[Op[..., Any], ...] = tuple(op for ops in OPS.values() for op in ops)

__all__ = [
    "ALL_OPS",
    "OPS",
    "BackendError",
    "Op",
    "boundaries",
    "clip_adam",
    "contrastive_loss",
    "gaussian_exponent",
    "gaussian_mask",
    "gaussian_peak_mask",
    "importance",
    "laplace_mask",
    "mask_reward",
    "masked_attention",
    "mixture",
    "mixture_exponent",
    "peak_mixture",
    "pull_all",
    "pull_distant",
    "pull_middle",
    "push",
    "reconstruction_nll",
    "residual_norm",
    "shared_attention",
    "use_backend",
]
