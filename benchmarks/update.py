"""Seconds of clipping and Adam for a model's parameters: python -m benchmarks.update --preset charades

Times the flat update (`pps_fast.train.optimizer`) and the list of parameters that it replaced (one torch operator over
all of them for every term, `ForeachAdam`), in turn in one process, from the same gradients.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks.cases import DATASETS
from benchmarks.rows import Row, about_machine, append, short, table
from benchmarks.step import operator_events
from benchmarks.timing import in_turn
from pps_fast.data.load import load_data
from pps_fast.devices import Device, choose_device, keep_freed_memory, set_threads
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.train.optimizer import Adam

# passes over a buffer of n values that are read or written. Flat: the gradient twice and its zeros, p, m and v each in
# and out. List: norm 1, scaling 2, refusal 2, m 2 + 3, v 2 + 3, sqrt 2, eps 2, quotient 3, rate 2, p 3, zeros 1
PASSES = {"list": 28, "flat": 9}


class ForeachAdam:
    """Clipping and Adam by torch's operators over lists: what `Adam.clip_and_step` must equal, up to the norm's order.

    Args:
        parameters: those without gradient are left alone.
        lr, betas, eps, weight_decay: as for `Adam`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        wide = {"dtype": torch.float64, "device": self.parameters[0].device}
        self.rate, self.update = torch.tensor(lr, **wide), torch.zeros((), **wide)
        self.moments: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def clip_and_step(self, clip_norm: float, is_finite: Tensor) -> Tensor:
        """As `Adam.clip_and_step`."""
        norm = nn.utils.clip_grad_norm_(self.parameters, clip_norm, foreach=True)
        is_finite.logical_and_(torch.isfinite(norm))
        self.update += is_finite
        parameters = [p for p in self.parameters if p.grad is not None]
        for parameter in parameters:
            self.moments.setdefault(parameter, (torch.zeros_like(parameter), torch.zeros_like(parameter)))
        first, second = map(list, zip(*(self.moments[p] for p in parameters), strict=True))
        gradients = [torch.where(is_finite, p.grad, 0.0) for p in parameters]
        beta1, beta2 = self.betas
        one = torch.ones((), dtype=parameters[0].dtype, device=norm.device)
        torch._foreach_mul_(first, torch.where(is_finite, beta1 * one, one))
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(second, torch.where(is_finite, beta2 * one, one))
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        rate = self.rate * is_finite
        if self.weight_decay:
            torch._foreach_mul_(parameters, (1 - rate * self.weight_decay).to(one.dtype))
        count = self.update.clamp(min=1)
        rate = rate * torch.sqrt(1 - beta2**count) / (1 - beta1**count)
        change = torch._foreach_sqrt(second)
        torch._foreach_add_(change, self.eps)
        change = torch._foreach_div(first, change)
        torch._foreach_mul_(change, rate.to(one.dtype))
        torch._foreach_sub_(parameters, change)
        torch._foreach_zero_([p.grad for p in parameters])
        return norm


@dataclass(frozen=True)
class Arguments:
    """What to time."""

    preset: Literal["demo", "tiny", "charades", "activitynet"] = "charades"
    """config whose parameters are updated"""
    pairs: int = 15
    """updates of each kind, in turn"""
    device: Device = "auto"
    """where"""
    threads: int | None = None
    """CPU threads; torch's choice without one"""
    out: Path | None = None
    """append the JSON lines here"""


def copies_of(preset: str, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the preset's parameters twice, with the same values and without gradients."""
    config = PRESETS[preset]
    sizes = DATASETS[preset][1] if preset in DATASETS else load_data(config.data).sizes
    torch.manual_seed(0)
    values = [parameter.detach().to(device) for parameter in PPS(config, sizes).parameters()]
    return tuple([nn.Parameter(value.clone()) for value in values] for _ in range(2))


def measure(arguments: Arguments) -> list[Row]:
    """Returns a row for each of the two."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    keep_freed_memory()
    parameters = dict(zip(PASSES, copies_of(arguments.preset, device), strict=True))
    optimizers = {"list": ForeachAdam(parameters["list"], 1e-3), "flat": Adam(parameters["flat"], 1e-3)}
    drawn = [torch.randn_like(parameter) for parameter in parameters["list"]]
    is_finite = torch.ones((), dtype=torch.bool, device=device)

    def give(name: str) -> Callable[[], Any]:
        for parameter, gradient in zip(parameters[name], drawn, strict=True):
            # in place, as a backward pass does from the second step on
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.copy_(gradient)
        return lambda: optimizers[name].clip_and_step(10.0, is_finite)

    # the first two make moments and buffers
    seconds = in_turn(list(optimizers), give, device, arguments.pairs, warm_up_rounds=2)
    num_values = sum(value.numel() for value in drawn)
    ratio = statistics.median(b / a for a, b in zip(seconds["flat"], seconds["list"], strict=True))
    return [
        {
            "what": "clipping and Adam",
            "preset": arguments.preset,
            "update": name,
            "values": num_values,
            "tensors": len(drawn),
            "seconds_median": short(statistics.median(seconds[name])),
            "times_list": round(ratio, 3) if name == "flat" else 1.0,
            "bytes": PASSES[name] * sum(value.numel() * value.element_size() for value in drawn),
            "operators": sum(event.count for event in operator_events(give(name))),
            "pairs": arguments.pairs,
            **about_machine(device),
        }
        for name in optimizers
    ]


def report(rows: list[Row]) -> str:
    """Returns rows as a table."""
    first = "clipping and Adam, {preset}, {values:,} values, {hardware}".format(**rows[0])
    header = ("parameters as", "seconds per update", "times as fast as the list", "MB moved", "operators called")
    lines = [
        (row["update"], row["seconds_median"], row["times_list"], f"{row['bytes'] / 1e6:.1f}", row["operators"])
        for row in rows
    ]
    return "\n".join([first, "", *table(header, lines), "", "More times as fast is better; less is better elsewhere."])


def main(arguments: Arguments) -> None:
    """Prints the rows and appends them to --out."""
    rows = measure(arguments)
    print(report(rows))
    append(arguments.out, rows)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
