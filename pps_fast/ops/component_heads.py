"""Heads that turn g_cls into centers and widths of components (Eqs. 1, 2), in one launch forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pps_fast import equations
from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.registration import first_order_only, launcher_of, load_kernel, register, runs_kernels

kernel = load_kernel("component_heads")

_NUM_PARAMETERS = 4


def _fake_fwd(
    g_cls: Tensor, parameters: list[Tensor], indices: list[Tensor], max_width: float
) -> tuple[Tensor, Tensor]:
    center, width = (g_cls.new_empty((len(g_cls), len(index)), dtype=torch.float32) for index in indices)
    return center, width


def _fake_bwd(sums: list[Tensor], grads: list[Tensor], g_cls: Tensor, *others: Any) -> Tensor:
    return g_cls.new_empty(g_cls.shape)


register(launcher_of(kernel, "component_heads_fwd"), _fake_fwd)
register(launcher_of(kernel, "component_heads_bwd"), _fake_bwd, mutates=("sums",))


class _FusedHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        ctx.parameters, (g_cls, *indices, ctx.max_width) = inputs[:_NUM_PARAMETERS], inputs[_NUM_PARAMETERS:]
        center, width = torch.ops.pps_fast.component_heads_fwd(g_cls, list(ctx.parameters), indices, ctx.max_width)
        ctx.save_for_backward(g_cls, *indices, center, width)
        return center, width

    @staticmethod
    @first_order_only("heads of centers and widths")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_cls, *others = ctx.saved_tensors
        gradients = GradientSums(ctx)
        sums, weights = [gradients.scratch(index) for index in range(_NUM_PARAMETERS)], list(ctx.parameters[::2])
        grad_g_cls = torch.ops.pps_fast.component_heads_bwd(
            sums, list(grads), g_cls, weights, others[:2], others[2:], ctx.max_width
        )
        return *gradients.results(), grad_g_cls, None, None, None


def component_heads(
    g_cls: Tensor,
    center_head: nn.Linear,
    width_head: nn.Linear,
    center_index: Tensor,
    width_index: Tensor,
    max_width: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Eqs. (1) and (2) of all components.

    Args:
        g_cls: [B, D].
        center_head, width_head: from D to the n values of each.
        center_index, width_index: [E] int64, row of the head that each component reads.
        max_width: widths stay below it.
        backend: which implementation computes it.
    Returns:
        center [B, E] in (0, 1) and width [B, E] in (0, max_width), fp32 at least.
    """
    of_center, of_width = ((head.weight, head.bias) for head in (center_head, width_head))
    if runs_kernels(g_cls, backend):
        return _FusedHeads.apply(*of_center, *of_width, g_cls, center_index, width_index, max_width)
    center, width = equations.centers(g_cls, *of_center), max_width * equations.widths(g_cls, *of_width)
    return center[:, center_index], width[:, width_index]
