"""Gradients of a linear layer, accumulated where the update reads them.

No equation of the paper: with g [R, C] the gradient of y = x W^T + b, dW += g^T x and db += sum over rows of g.

Letters: R rows of all sequences, C columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import launcher_of, load_kernel, register
from pps_fast.ops.weights import gradient_of

kernel = load_kernel("linear_gradient")


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> None:
    """Adds the gradient of a linear layer's weight, or of one for each of H heads, to `weight`.

    The product accumulates in fp32 and is never rounded to the dtype of its operands.

    Args:
        grad: [R, C] gradient of the layer's result, or [H, R, C].
        x: [R, D] the layer's input, or [H, R, D], in grad's dtype.
        weight: [C, D], or [H, C, D], fp32, added to in place.
    """
    add = torch.addmm if grad.dim() == 2 else torch.baddbmm
    if grad.dtype == weight.dtype:
        add(weight, grad.mT, x, out=weight)
    elif grad.is_cuda:
        add(weight, grad.mT, x, out_dtype=weight.dtype, out=weight)
    else:
        add(weight, grad.mT.to(weight.dtype), x.to(weight.dtype), out=weight)


def _fake_weight(grad: Tensor, x: Tensor, weight: Tensor) -> None:
    return None


def _fake(grad: Tensor, result: Tensor | None, bias: Tensor) -> None:
    return None


register(weight_gradient, _fake_weight, mutates=("weight",), has_kernel=False)
register(launcher_of(kernel, "linear_gradient"), _fake, mutates=("grad", "bias"))


class GradientSums:
    """Buffers, fp32, that an autograd function adds the gradients of its parameters to.

    A buffer is the optimizer's where it lends one, and autograd is then given no gradient; else it is made here. There
    is none for a parameter whose gradient nobody asked for.

    Args:
        ctx: of the function, whose first inputs are `ctx.parameters`.
    """

    def __init__(self, ctx: Any) -> None:
        self.buffers: list[Tensor | None] = []
        self._results: list[Tensor | None] = []
        for parameter, is_needed, (node, _) in zip(
            ctx.parameters, ctx.needs_input_grad, ctx.next_functions, strict=False
        ):
            buffer = gradient_of(parameter) if is_needed else None
            result = None
            if buffer is not None:
                # false for parameters that `backward(inputs=...)` leaves out
                buffer = buffer if torch._C._will_engine_execute_node(node) else None
            elif is_needed:
                buffer = result = torch.zeros_like(parameter, dtype=torch.float32)
            self.buffers.append(buffer)
            self._results.append(result)
        self._parameters = ctx.parameters

    def add_weight(self, index: int, grad: Tensor, x: Tensor, rows: slice = slice(None)) -> None:
        """Adds the gradient of (rows of) a weight from grad [R, C] and the layer's input x [R, D].

        With grad [H, R, C] and x [H, R, D], the weight's rows are those of H heads, [H * C, D].
        """
        buffer = self.buffers[index]
        if buffer is not None:
            of_heads = (*grad.shape[:-2], grad.shape[-1], x.shape[-1])
            torch.ops.pps_fast.weight_gradient(grad, x, buffer[rows].view(of_heads))

    def add_bias(self, index: int, grad: Tensor) -> None:
        """Adds the gradient of a bias from grad [R, C]."""
        buffer = self.buffers[index]
        if buffer is not None:
            torch.ops.pps_fast.linear_gradient(grad, None, buffer)

    def add_biases(self, index: int, grad: Tensor, parts: slice) -> None:
        """Adds the gradient of parts of a packed projection's bias, [3 * D], from grad [R, number of parts * D]."""
        buffer = self.buffers[index]
        if buffer is not None:
            torch.ops.pps_fast.linear_gradient(grad, None, buffer.view(3, -1)[parts])

    def scratch(self, index: int) -> Tensor:
        """Returns a buffer that can be added to, whether or not the gradient is wanted."""
        buffer = self.buffers[index]
        return torch.zeros_like(self._parameters[index], dtype=torch.float32) if buffer is None else buffer

    def results(self) -> tuple[Tensor | None, ...]:
        """What autograd is given for the parameters."""
        pairs = zip(self._results, self._parameters, strict=True)
        return tuple(None if result is None else result.to(parameter.dtype) for result, parameter in pairs)
