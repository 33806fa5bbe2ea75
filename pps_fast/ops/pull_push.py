"""Pulling and pushing losses (Eqs. 5-7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import Contract, at_least, floats, integers
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register, size_reasons

kernel = load_kernel("pull_push")
_STRATEGIES: tuple[str, ...] = () if kernel is None else kernel.STRATEGIES
_FORMS: tuple[str, ...] = () if kernel is None else kernel.FORMS

# one program holds all pairs of a sample's rows
_MAX_ROWS = 64
_MAX_POSITIONS = 512


def pull_push_bwd(grad: Tensor, unit_grad: Tensor) -> Tensor:
    """Gradient of the batch's mean, from those of the samples' losses and the mean's."""
    return unit_grad * (grad / unit_grad.shape[0])


def _fake_loss(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=torch.float32), x.new_empty(x.shape, dtype=torch.float32)


register(launcher_of(kernel, "push_fwd"), _fake_loss)
register(launcher_of(kernel, "pull_fwd"), _fake_loss)
register(None if kernel is None else pull_push_bwd, lambda grad, unit_grad: torch.empty_like(unit_grad))


class _FusedPush(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Tensor, target: float, form: int) -> Tensor:
        loss, unit_grad = torch.ops.pps_fast.push_fwd(rows, group, target, form, equations.ROW_SUM_FLOOR)
        mean = loss.mean()
        ctx.save_for_backward(unit_grad, mean)
        ctx.dtype = rows.dtype
        return mean

    @staticmethod
    @first_order_only("push")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit_grad, _ = ctx.saved_tensors
        return torch.ops.pps_fast.pull_push_bwd(grad, unit_grad).to(ctx.dtype), None, None, None


class _FusedPull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, center: Tensor, group: Tensor, num_groups: int, strategy: int) -> Tensor:
        loss, unit_grad = torch.ops.pps_fast.pull_fwd(center, group, num_groups, strategy)
        mean = loss.mean()
        ctx.save_for_backward(unit_grad, mean)
        ctx.dtype = center.dtype
        return mean

    @staticmethod
    @first_order_only("pull_distant, pull_middle, pull_all")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit_grad, _ = ctx.saved_tensors
        return torch.ops.pps_fast.pull_push_bwd(grad, unit_grad).to(ctx.dtype), None, None, None


def _push_limits(masks: Tensor, **_: Any) -> list[str]:
    """Says which sizes the kernel of the pushing loss does not take."""
    reasons = size_reasons("masks", "rows", masks.shape[1], _MAX_ROWS)
    return reasons + size_reasons("masks", "positions", masks.shape[2], _MAX_POSITIONS)


def _pull_limits(center: Tensor, **_: Any) -> list[str]:
    """Says which sizes the kernels of the pulling losses do not take."""
    return size_reasons("center", "rows", center.shape[1], _MAX_ROWS)


def _fused_push(
    masks: Tensor, group: Tensor, target: float, normalize: bool = True, exponents: Tensor | None = None
) -> Tensor:
    has_exponents = normalize and exponents is not None
    form = "exponents" if has_exponents else "sums" if normalize else "plain"
    return _FusedPush.apply(exponents if has_exponents else masks, group, float(target), _FORMS.index(form))


def _fused_pull(strategy: str) -> Callable[..., Tensor]:
    """Returns the fused implementation of one strategy, with the equation's signature."""

    def fused(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
        return _FusedPull.apply(center, group, num_groups, _STRATEGIES.index(strategy))

    return fused


_PULLED: Contract = {"center": floats("B E"), "group": integers("E"), "num_groups": at_least(0)}

pull_distant = fused_op(equations.pull_distant, _fused_pull("distant"), _PULLED, _pull_limits)
pull_middle = fused_op(equations.pull_middle, _fused_pull("middle"), _PULLED, _pull_limits)
pull_all = fused_op(equations.pull_all, _fused_pull("all"), _PULLED, _pull_limits)
push = fused_op(
    equations.push,
    _fused_push,
    {"masks": floats("B n T"), "group": integers("n"), "exponents": floats("B n T")},
    _push_limits,
)
