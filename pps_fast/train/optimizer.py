"""Adam as the published code computes it, written so that a step never waits for the device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTS = ("first_moment", "second_moment")
"""names of a parameter's state"""


class Adam(torch.optim.Optimizer):
    """Adam whose eps is added to sqrt(v) before the bias correction, with decoupled weight decay.

    After t updates of a parameter p with gradient g:

        m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
        p = p (1 - rate * weight_decay) - rate * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

    `torch.optim.Adam` corrects v before it adds eps, which is another number wherever |g| is near eps.

    The rate of a group is the 0-d tensor `group["lr"]`, to be filled in place (`set_learning_rate`), and t the 0-d
    fp64 tensor `group["update"]`; both live on the parameters' device, so that `step` reads nothing back.
    A parameter without gradient is left alone. t counts the group's updates, not the parameter's: a parameter that gets
    its first gradient late is bias-corrected as if its earlier gradients had been 0.

    Args:
        parameters: parameters, or dicts of them as for every torch optimiser; one device per group.
        lr: learning rate until the first `set_learning_rate`.
        betas: decay of the two moments, each 0 to below 1.
        eps: added to sqrt(v), > 0.
        weight_decay: decoupled, 0 or more.

    Raises:
        ValueError: for a constant outside its range.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas = {betas}: expected two values from 0 to below 1")
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError(
                f"Adam: lr = {lr}, eps = {eps}, weight_decay = {weight_decay}: expected lr and weight_decay 0 or more, "
                "eps above 0"
            )
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            device = group["params"][0].device
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float64, device=device).clone()
            group["update"] = torch.zeros((), dtype=torch.float64, device=device)

    def set_learning_rate(self, rate: float) -> None:
        """Fills the learning rate of all groups in place."""
        for group in self.param_groups:
            group["lr"].fill_(rate)

    @torch.no_grad()
    def step(self, closure: None = None, *, apply: Tensor | None = None) -> None:
        """Updates the parameters from their `grad`.

        Args:
            closure: not supported; there for the signature of torch's optimisers.
            apply: [] bool on the parameters' device. Where it is False the call changes nothing: no parameter, no
                moment, no count, whatever the gradients hold (NaN included). Without one, the update is always made.

        Raises:
            ValueError: with a closure.
        """
        if closure is not None:
            raise ValueError("Adam.step: closure: expected None; call backward before the step")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update_group(group, parameters, apply)

    def _update_group(self, group: dict, parameters: list[Tensor], apply: Tensor | None) -> None:
        first, second = self._moments(parameters)
        gradients = [p.grad for p in parameters]
        if apply is None:
            apply = torch.ones((), dtype=torch.bool, device=parameters[0].device)
        else:
            # 0 * NaN is NaN, so a refused gradient must be replaced and not scaled
            gradients = [torch.where(apply, g, 0.0) for g in gradients]
        group["update"] += apply
        beta1, beta2 = group["betas"]
        # the fast path of torch._foreach_mul_ wants a factor of the tensors' dtype
        one = torch.ones((), dtype=parameters[0].dtype, device=apply.device)
        torch._foreach_mul_(first, torch.where(apply, beta1 * one, one))
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(second, torch.where(apply, beta2 * one, one))
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)

        rate = group["lr"] * apply
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, (1 - rate * group["weight_decay"]).to(one.dtype))
        # before the first update the correction would be 0/0
        count = group["update"].clamp(min=1)
        rate = rate * torch.sqrt(1 - beta2**count) / (1 - beta1**count)
        change = torch._foreach_sqrt(second)
        torch._foreach_add_(change, group["eps"])
        change = torch._foreach_div(first, change)
        torch._foreach_mul_(change, rate.to(one.dtype))
        torch._foreach_sub_(parameters, change)

    def _moments(self, parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns m and v of the parameters, zero where a parameter has none yet."""
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update({moment: torch.zeros_like(parameter) for moment in MOMENTS})
        first, second = ([self.state[p][moment] for p in parameters] for moment in MOMENTS)
        return first, second
