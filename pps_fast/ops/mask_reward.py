"""Rewards of masks against the curve of their sentence along the video."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.alignment import equations
from pps_fast.ops.contract import booleans, floats
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register, size_reasons

kernel = load_kernel("mask_reward")

# one program holds all positions of a sample
_MAX_POSITIONS = 4096


def _fake_fwd(masks: Tensor, curve: Tensor, power: float, frame_valid: Tensor | None) -> Tensor:
    return masks.new_empty(masks.shape[:2], dtype=torch.float32)


def _fake_bwd(grad: Tensor, masks: Tensor, curve: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return masks.new_empty(masks.shape, dtype=torch.float32), masks.new_empty(curve.shape, dtype=torch.float32)


register(launcher_of(kernel, "mask_reward_fwd"), _fake_fwd)
register(launcher_of(kernel, "mask_reward_bwd"), _fake_bwd)


class _FusedReward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, curve: Tensor, power: float, frame_valid: Tensor | None) -> Tensor:
        reward = torch.ops.pps_fast.mask_reward_fwd(masks, curve, power, frame_valid)
        ctx.save_for_backward(masks, curve, reward, frame_valid)
        ctx.power = power
        return reward

    @staticmethod
    @first_order_only("mask_reward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        masks, curve, reward, frame_valid = ctx.saved_tensors
        grads = torch.ops.pps_fast.mask_reward_bwd(grad, masks, curve, reward, ctx.power, frame_valid)
        return grads[0].to(masks.dtype), grads[1].to(curve.dtype), None, None


def _limits(masks: Tensor, **_: Any) -> list[str]:
    """Says which sizes the kernel does not take."""
    return size_reasons("masks", "positions", masks.shape[2], _MAX_POSITIONS)


def _fused(masks: Tensor, curve: Tensor, power: float = 0.25, frame_valid: Tensor | None = None) -> Tensor:
    return _FusedReward.apply(masks, curve, float(power), frame_valid)


mask_reward = fused_op(
    equations.mask_reward,
    _fused,
    {"masks": floats("B n T"), "curve": floats("B T"), "frame_valid": booleans("B T")},
    _limits,
)
