"""Helpers of all kernels: allocation, current device, absent gradients, and whether kernels are interpreted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
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


def contiguous(x: Tensor | None) -> Tensor | None:
    """Returns a packed tensor of the same values; None for None."""
    return None if x is None else x.contiguous()


def or_unread(x: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a packed tensor of the same values; for None one that no kernel may read, on the device of `like`.

    A pointer that is None would make a compilation of its own; the kernel is told by an integer what to read instead.
    """
    return empty(like, 1, dtype=dtype) if x is None else x.contiguous()


@triton.jit
def incoming(p_grad, o_grad, m_grad):
    """Returns an incoming gradient in fp32; 0 where the mask says so, and where there is no gradient."""
    b_grad = tl.zeros(m_grad.shape, tl.float32)
    if p_grad is not None:
        b_grad += tl.load(p_grad + o_grad, mask=m_grad, other=0.0).to(tl.float32)
    return b_grad
