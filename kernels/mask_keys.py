"""Dropout keys of the sequences that are reconstructed from the masks of each sample (see `pps_fast/randomness.py`).

    key[b, m] = mix(mix(key[b], -n), n),  n = first + m

Letters: B samples, N masks of each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.dropout import _STEP, _hashed
from pps_fast.kernels.launch import device_of, empty

# keys made by one program
_BLOCK_N = 256


@triton.jit(do_not_specialize=["num_keys", "N", "first"])
def mask_keys_kernel(p_dropout_key, p_out, num_keys, N, first, BLOCK_N: tl.constexpr):
    o_key = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_key = o_key < num_keys
    b_step = (first + o_key % N) * _STEP
    b_key = _hashed(tl.load(p_dropout_key + o_key // N, mask=m_key, other=0) ^ -b_step)
    tl.store(p_out + o_key, _hashed(b_key ^ b_step), mask=m_key)


def mask_keys(dropout_key: Tensor, num_masks: int, first: int) -> Tensor:
    """Dropout keys of the masks of each sample.

    Args:
        dropout_key: [B] int32 of the samples.
        num_masks: N.
        first: number of the first mask.
    Returns:
        [B, N] int32.
    """
    out = empty(dropout_key, len(dropout_key), num_masks, dtype=torch.int32)
    with device_of(out):
        mask_keys_kernel[(triton.cdiv(out.numel(), _BLOCK_N),)](
            p_dropout_key=dropout_key.contiguous(), p_out=out, num_keys=out.numel(), N=num_masks, first=first,
            BLOCK_N=_BLOCK_N,
        )  # fmt: skip
    return out
