"""Seconds of a call, and what the machine can do at best: medians and 20 / 80 % quantiles after warm-up."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Row, short

Calls = Sequence[Callable[[], Any]]

# type of the activations, and what torch may round products of fp32 matrices to
PRECISIONS: dict[str, tuple[torch.dtype, str]] = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bf16": (torch.bfloat16, "highest"),
}
# below this many seconds a launch from Python costs more than what it starts, and calls are replayed from a graph
GRAPH_BELOW = 50e-6
LAUNCHES_PER_GRAPH = 20
# a call that takes so long as launched from Python is not short as replayed from a graph either
_GRAPH_WORTH = 2e-3
_FEWEST, _MOST = 5, 200


class StepTimer:
    """The stopwatch of all benchmarks: between CUDA events on a GPU, of the clock on a CPU.

    With one thread on a CPU it is the process's clock, which other programs disturb less.

    Attributes:
        clock: name of the clock.
        host: seconds until each call returned, which on a GPU is before it ends.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.host = device, list[float]()
        is_alone = torch.get_num_threads() == 1
        self.clock = "events" if device.type == "cuda" else "process_time" if is_alone else "perf_counter"
        self._now = time.perf_counter if device.type == "cuda" else getattr(time, self.clock)
        self._ends: list[tuple[torch.cuda.Event, ...]] = []

    def __call__(self, run: Callable[[], Any], calls: int = 1) -> None:
        """Runs and times `calls` calls together; on a GPU without waiting for them."""
        if self.device.type == "cuda":
            self._ends.append(tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)))
            self._ends[-1][0].record()
        begin = self._now()
        for _ in range(calls):
            run()
        self.host.append(self._now() - begin)
        if self.device.type == "cuda":
            self._ends[-1][1].record()

    @property
    def seconds(self) -> list[float]:
        """Seconds of each timing so far; waits for a GPU."""
        wait(self.device)
        return [first.elapsed_time(last) / 1e3 for first, last in self._ends] or list(self.host)


def wait(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    names: Sequence[Any],
    make: Callable[[Any], Callable[[], Any]],
    device: torch.device,
    rounds: int,
    warm_up_rounds: int = 0,
    calls: int = 1,
) -> dict[Any, list[float]]:
    """Times steps that are to be compared, in turn, so that a machine whose speed drifts slows all of them alike.

    Args:
        names: of the steps; each round has another order.
        make: returns the function to be timed, anew for every round, outside of what is timed.
        calls: timed together, for steps that are short; as many others come first if there are several.
    Returns:
        Seconds of a call in each round, by name.
    """
    timers = {name: StepTimer(device) for name in names}
    order = np.random.default_rng(0)
    for number in range(-warm_up_rounds, rounds):
        for index in order.permutation(len(names)):
            run = make(names[index])
            for _ in range(calls if number < 0 or calls > 1 else 0):
                run()
            wait(device)
            if number >= 0:
                timers[names[index]](run, calls)
    return {name: [value / calls for value in timer.seconds] for name, timer in timers.items()}


@dataclass(frozen=True)
class Times:
    """Seconds of one call.

    Attributes:
        method: the timer's clock, or graph (of LAUNCHES_PER_GRAPH calls, divided by their number).
        seconds: of each repetition.
        others: "seconds_launched": the median as launched from Python, beside a graph's; "why_no_graph".
    """

    method: str
    seconds: Sequence[float]
    others: Row = field(default_factory=dict)

    def values(self) -> Row:
        """Columns of a row."""
        return {**quantiles(self.seconds), "repetitions": len(self.seconds), "method": self.method, **self.others}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, 20 % and 80 % quantile."""
    fifths = statistics.quantiles(values, n=5) if len(values) > 1 else list(values) * 4
    return {"median": statistics.median(values), "q20": fifths[0], "q80": fifths[-1]}


def quantiles(seconds: Sequence[float]) -> Row:
    """Returns the columns seconds_median, _q20 and _q80, to four digits."""
    return {f"seconds_{name}": short(value) for name, value in spread(seconds).items()}


def timed(calls: Calls, device: torch.device, seconds: float) -> Times:
    """Times calls that do the same on different inputs, in turn.

    On a GPU, call it within the stream that the inputs were made in, which is not the default one.

    Args:
        seconds: to spend on it, about.
    """
    is_cuda = device.type == "cuda"
    for call in calls * 3 if is_cuda else calls:
        call()
    one = statistics.median(_repeated(calls, device, _FEWEST if is_cuda else 1).seconds)
    timer = _repeated(calls, device, _num_repetitions(one, seconds))
    launched = Times(timer.clock, timer.seconds)
    median = quantiles(launched.seconds)["seconds_median"]
    if not is_cuda or median > _GRAPH_WORTH:
        return launched
    try:
        replayed = _replayed(calls, device, seconds)
    # whatever cannot be captured was timed as launched
    except RuntimeError as error:
        wait(device)
        return Times("events", launched.seconds, {"why_no_graph": str(error).splitlines()[0]})
    if statistics.median(replayed) < GRAPH_BELOW:
        return Times("graph", replayed, {"seconds_launched": median})
    return Times("events", launched.seconds, {"seconds_in_graph": quantiles(replayed)["seconds_median"]})


def _num_repetitions(one: float, seconds: float) -> int:
    return int(min(max(seconds / max(one, 1e-9), _FEWEST), _MOST))


def _repeated(calls: Calls, device: torch.device, repetitions: int) -> StepTimer:
    timer = StepTimer(device)
    for index in range(repetitions):
        timer(calls[index % len(calls)])
    return timer


def _replayed(calls: Calls, device: torch.device, seconds: float) -> list[float]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for index in range(LAUNCHES_PER_GRAPH):
            calls[index % len(calls)]()
    for _ in range(3):
        graph.replay()
    one = statistics.median(_repeated([graph.replay], device, _FEWEST).seconds)
    replays = _repeated([graph.replay], device, _num_repetitions(one, seconds)).seconds
    return [value / LAUNCHES_PER_GRAPH for value in replays]


def timed_steps(
    run: Callable[[], Any],
    device: torch.device,
    seconds: float = 0.0,
    repetitions: int | None = None,
    warm_up: int = 3,
) -> Row:
    """Times whole steps, one after the other, after `warm_up` others.

    Args:
        seconds: to spend on it, about, unless `repetitions` says how many are timed.
    Returns:
        Columns of a row: seconds_median, _q20, _q80 of a `StepTimer`; host_seconds, the median until the call returns;
        wall_seconds, of the host from the first to the end of the last, per step; repetitions. Where host_seconds come
        near the others, the device waits for the host.
    """
    for _ in range(warm_up):
        run()
    if repetitions is None:
        repetitions = _num_repetitions(_repeated([run], device, 1).seconds[0], seconds)
    wait(device)
    begin = time.perf_counter()
    timer = _repeated([run], device, repetitions)
    wait(device)
    wall = (time.perf_counter() - begin) / repetitions
    host = {"host_seconds": short(statistics.median(timer.host)), "wall_seconds": short(wall)}
    return {**quantiles(timer.seconds), **host, "repetitions": repetitions}


class OutOfTime(BaseException):
    """A `time_limit` has passed; not an Exception, so that what is interrupted does not take it for its own failure."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime inside the block when it has taken that long; only in the main thread of a Unix process.

    One inside another may only end earlier: the outer one waits for it.
    """

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime(f"not finished within {seconds:.0f} s")

    begin, before = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    # again and again: the first may be lost in a destructor or a callback
    outer, repeat = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begin), 1e-3), repeat)


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """A stream whose work can be captured in a graph: what is timed is made and run within."""
    wait(device)
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        yield
    wait(device)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """What torch may round products of fp32 matrices to, inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Ceilings:
    """What was measured on the device: bytes per second of a copy, operations per second of products by precision."""

    bytes_per_s: float
    flops_per_s: dict[str, float]

    def share(self, work: Any, seconds: float, dtype: str) -> tuple[float, str]:
        """Returns the least time of `work` over `seconds`, and what bounds it."""
        memory, compute = work.bytes / self.bytes_per_s, work.flops / self.flops_per_s[dtype]
        return max(memory, compute) / seconds, "memory" if memory >= compute else "compute"

    def values(self) -> dict[str, float]:
        """Columns of a row."""
        rates = {f"tflop_per_s_{name}": round(rate / 1e12, 4) for name, rate in self.flops_per_s.items()}
        return {"gb_per_s": round(self.bytes_per_s / 1e9, 2), **rates}


def ceilings(device: torch.device, dtypes: Sequence[str], is_small: bool = False) -> Ceilings:
    """Measures a copy of at least 1 GB and products of 8192 x 8192 matrices; less on a CPU, least if `is_small`."""
    is_cuda = device.type == "cuda"
    num_values = 2**28 if is_cuda else 2**18 if is_small else 2**26
    size = 8192 if is_cuda else 64 if is_small else 1024
    with side_stream(device):
        source = torch.ones(num_values, device=device)
        target = torch.empty_like(source)
        copied = statistics.median(timed([lambda: target.copy_(source)], device, 0.2).seconds)
        rates = {dtype: _product_rate(size, dtype, device) for dtype in dict.fromkeys(("fp32", *dtypes))}
    return Ceilings(2 * source.numel() * source.element_size() / copied, rates)


def _product_rate(size: int, dtype: str, device: torch.device) -> float:
    kind, precision = PRECISIONS[dtype]
    # a CPU without instructions for bf16 is many times slower with it
    size = min(size, 256) if device.type != "cuda" and dtype == "bf16" else size
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    with matmul_precision(precision):
        return 2 * size**3 / statistics.median(timed([lambda: left @ right], device, 0.3).seconds)
