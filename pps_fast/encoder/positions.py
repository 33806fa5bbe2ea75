"""Sinusoidal positions of words. Frames have none: their order shows only through the causal attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def add_positions(x: Tensor) -> Tensor:
    """Adds pe(p) = [sin(p w), cos(p w)], w_i = 10000^(-i / (D/2 - 1)), to position p; pe(0) = 0.

    Args:
        x: [B, n, D], D even.
    Returns:
        [B, n, D].
    """
    half = x.shape[-1] // 2
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    index = torch.arange(half, device=x.device, dtype=dtype)
    frequency = torch.exp(index * (-math.log(10000) / max(half - 1, 1)))
    position = torch.arange(x.shape[1], device=x.device, dtype=dtype)
    angle = position.unsqueeze(1) * frequency  # [n, D/2]
    table = torch.cat((angle.sin(), angle.cos()), -1)
    return x + (table * (position > 0).unsqueeze(1)).to(x.dtype)
