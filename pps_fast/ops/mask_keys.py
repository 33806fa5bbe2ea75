"""Dropout keys of masks in one launch; no equation of the paper, and the numbers of `randomness.mask_keys`."""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast import randomness
from pps_fast.ops.registration import launcher_of, load_kernel, register, runs_kernels

kernel = load_kernel("mask_keys")


def _fake(dropout_key: Tensor, num_masks: int, first: int) -> Tensor:
    return dropout_key.new_empty((len(dropout_key), num_masks))


register(launcher_of(kernel, "mask_keys"), _fake)


def mask_keys(dropout_key: Tensor, num_masks: int, backend: str) -> Tensor:
    """Dropout keys of the sequences that are reconstructed from the masks of each sample.

    Args:
        dropout_key: [B] int32 of the samples.
        num_masks: N, at most len(randomness.MASK_NUMBERS).
        backend: which implementation computes it; both make the same keys.
    Returns:
        [B, N] int32.
    Raises:
        ValueError: for more masks than the stream has counters.
    """
    numbers = randomness.MASK_NUMBERS
    if num_masks > len(numbers):
        raise ValueError(f"mask_keys: {num_masks} masks of a sample: expected at most {len(numbers)}")
    if not runs_kernels(dropout_key, backend):
        return randomness.mask_keys(dropout_key, num_masks)
    return torch.ops.pps_fast.mask_keys(dropout_key, num_masks, numbers.start)
