"""Seconds of a call, and what the machine can do at best: medians and 20 / 80 % quantiles after warm-up."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.cases import PRECISIONS

Calls = Sequence[Callable[[], Any]]

# below this many seconds a launch from Python costs more than what it starts, and calls are replayed from a graph
GRAPH_BELOW = 50e-6
LAUNCHES_PER_GRAPH = 20
# a call that takes so long as launched from Python is not short as replayed from a graph either
_GRAPH_WORTH = 2e-3
_FEWEST, _MOST = 5, 200


@dataclass(frozen=True)
class Times:
    """Seconds of one call.

    Attributes:
        method: perf_counter, events, or graph (of LAUNCHES_PER_GRAPH calls, divided by their number).
        seconds: of each repetition.
        found: "seconds_launched": the median as launched from Python, beside a graph's; "why_no_graph".
    """

    method: str
    seconds: Sequence[float]
    found: dict[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Columns of a row."""
        return {**quantiles(self.seconds), "repetitions": len(self.seconds), "method": self.method, **self.found}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the median and the 20 % and 80 % quantiles, to four digits."""
    fifths = statistics.quantiles(seconds, n=5) if len(seconds) > 1 else list(seconds) * 4
    found = {"median": statistics.median(seconds), "q20": fifths[0], "q80": fifths[-1]}
    return {f"seconds_{name}": float(f"{value:.4g}") for name, value in found.items()}


def timed(calls: Calls, device: torch.device, seconds: float) -> Times:
    """Times calls that do the same on different inputs, in turn.

    Args:
        seconds: to spend on it, about.
    """
    return _timed_on_gpu(calls, seconds) if device.type == "cuda" else _timed_on_cpu(calls, seconds)


def _num_repetitions(one: float, seconds: float) -> int:
    return int(min(max(seconds / max(one, 1e-9), _FEWEST), _MOST))


def _timed_on_cpu(calls: Calls, seconds: float) -> Times:
    for call in calls:
        call()
    begin = time.perf_counter()
    calls[0]()
    found = []
    for index in range(_num_repetitions(time.perf_counter() - begin, seconds)):
        begin = time.perf_counter()
        calls[index % len(calls)]()
        found.append(time.perf_counter() - begin)
    return Times("perf_counter", found)


def _timed_on_gpu(calls: Calls, seconds: float) -> Times:
    """Call within the stream that the calls' inputs were made in, which is not the default one."""
    for call in (*calls, *calls, *calls):
        call()
    first = _events(calls, _FEWEST)
    launched = _events(calls, _num_repetitions(statistics.median(first), seconds))
    if statistics.median(launched) > _GRAPH_WORTH:
        return Times("events", launched)
    try:
        replayed = _replayed(calls, seconds)
    # whatever cannot be captured was timed as launched
    except RuntimeError as error:
        torch.cuda.synchronize()
        return Times("events", launched, {"why_no_graph": str(error).splitlines()[0]})
    median = float(f"{statistics.median(launched):.4g}")
    if statistics.median(replayed) < GRAPH_BELOW:
        return Times("graph", replayed, {"seconds_launched": median})
    return Times("events", launched, {"seconds_in_graph": quantiles(replayed)["seconds_median"]})


def _events(calls: Calls, repetitions: int) -> list[float]:
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions)]
    for index, (begin, end) in enumerate(pairs):
        begin.record()
        calls[index % len(calls)]()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]


def _replayed(calls: Calls, seconds: float) -> list[float]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for index in range(LAUNCHES_PER_GRAPH):
            calls[index % len(calls)]()
    for _ in range(3):
        graph.replay()
    one = statistics.median(_events([graph.replay], _FEWEST))
    return [found / LAUNCHES_PER_GRAPH for found in _events([graph.replay], _num_repetitions(one, seconds))]


def timed_steps(run: Callable[[], Any], device: torch.device, seconds: float) -> dict[str, Any]:
    """Times whole training steps, one after the other, after three others.

    Args:
        seconds: to spend on it, about.
    Returns:
        Columns of a row: seconds_median, _q20, _q80 between CUDA events around each step, on a CPU by the clock;
        host_seconds, the median until the call returns; wall_seconds, of the host from the first to the end of the
        last, per step; repetitions. Where host_seconds come near the others, the device waits for the host.
    """
    is_cuda = device.type == "cuda"
    for _ in range(3):
        run()
    begin = _now(is_cuda)
    run()
    repetitions = _num_repetitions(_now(is_cuda) - begin, seconds)
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions)] if is_cuda else []
    hosts, begin = [], _now(is_cuda)
    for index in range(repetitions):
        if is_cuda:
            pairs[index][0].record()
        called = time.perf_counter()
        run()
        hosts.append(time.perf_counter() - called)
        if is_cuda:
            pairs[index][1].record()
    wall = (_now(is_cuda) - begin) / repetitions
    found = [first.elapsed_time(last) / 1e3 for first, last in pairs] if is_cuda else hosts
    host = {"host_seconds": statistics.median(hosts), "wall_seconds": wall}
    return {
        **quantiles(found),
        **{name: float(f"{value:.4g}") for name, value in host.items()},
        "repetitions": repetitions,
    }


def _now(is_cuda: bool) -> float:
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


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
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield
    torch.cuda.synchronize(device)


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
