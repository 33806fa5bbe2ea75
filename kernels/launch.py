"""Helpers of all launchers: allocation, current device, and whether kernels are compiled or interpreted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor


@triton.jit
def _probe():
    pass


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors; decided when they are imported."""
    return not isinstance(_probe, triton.JITFunction)


def empty(like: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocates an uninitialized result on the device of `like`; no launcher allocates otherwise."""
    return torch.empty(shape, dtype=dtype, device=like.device)


def device_of(x: Tensor) -> AbstractContextManager:
    """Makes the device of `x` current, because Triton launches on the current device whatever its arguments' device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
