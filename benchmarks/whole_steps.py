"""Whole training steps of ours and of baselines, in one process, on one batch, from the same weights.

Two stages of the GPU report: `steps`, and `compiled` for those whose compiler takes minutes. Every variant makes two
steps before it is timed; its two losses must be those of our equations in fp32 (the second sees gradient, clipping and
Adam), or it is not timed. Our dropout follows from counters, so that every form of our model is compared with it on;
the published formulation draws its own, and is compared with dropout off.

Columns of a row: preset, precision, implementation; losses and reference, of those two steps; seconds_median, _q20,
_q80, host_seconds, wall_seconds, repetitions (see `timing.timed_steps`); peak_memory_gib, beyond what was held before
it was built; launches, what the host starts in a step, and kernels, what the device then runs (in a CUDA graph its
nodes), copies included; matmul_gflop and minimal_gb, the arithmetic of the shared plan's products and the bytes of
weights, gradients' moments and batch, the same for all; share, the least time by these and the measured ceilings over
the time taken; compile_seconds, of the two steps that compile.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.attention import AttentionName, attention
from benchmarks.count_step import matmul_gflop
from benchmarks.counts import Work
from benchmarks.parity import is_alive
from benchmarks.published_baseline import build_published_step, hidden_positions, load_live_weights, published_total
from benchmarks.report import Report
from benchmarks.rows import Row, short, table
from benchmarks.step import BATCH_SIZE, SIZES, build_step, random_batch, runner
from benchmarks.timing import OutOfTime, matmul_precision, time_limit, timed_steps
from pps_fast.config import PPSConfig, Precision, ReconstructorSchedule
from pps_fast.config_tree import override
from pps_fast.ops.dispatch import use_backend
from pps_fast.presets import PRESETS
from pps_fast.published.weights import export_released
from pps_fast.types import Batch, FeatureSizes

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32", "tf32")
# largest relative difference of the first and of the second loss from the reference
AGREEMENT: dict[Precision, tuple[float, float]] = {"fp32": (1e-4, 2e-3), "tf32": (1e-3, 5e-3), "bf16": (2e-2, 2e-2)}
# how the warning of a capture that failed begins
RUNS_EAGERLY = "training steps run eagerly"
# without warm-up the preset's rate makes the second loss larger, and another one with every rounding
STEADY = {"train.learning_rate": 4e-5}
# a model of one layer, for dry runs
TINY_STEP = {"encoder.hidden_dim": 16, "generator.num_layers": 1, "reconstructor.num_layers": 1}
_SECONDS = 0.6


@dataclass(frozen=True)
class Variant:
    """One way to do a training step.

    Attributes:
        name: in the rows; those that begin with "ours" are this project's product.
        plan, backend, attention: of our model.
        is_captured: replayed as a CUDA graph.
        compile_mode: torch.compile's mode for the model, or None.
        is_published: the published formulation instead of ours.
    """

    name: str
    plan: ReconstructorSchedule = "shared"
    backend: str = "auto"
    attention: AttentionName = "ours"
    is_captured: bool = False
    compile_mode: str | None = None
    is_published: bool = False


STEPS = (
    Variant("published", is_published=True),
    Variant("ours_captured", is_captured=True),
    Variant("ours_eager"),
    Variant("sdpa_captured", attention="sdpa", is_captured=True),
    Variant("sdpa_eager", attention="sdpa"),
    # the ladder: one more saving at a time
    Variant("plain_equations", plan="plain", backend="torch"),
    Variant("plain_kernels", plan="plain"),
    Variant("shared_equations", backend="torch"),
    Variant("shared_equations_captured", backend="torch", is_captured=True),
)
# of the equations, which a compiler can fuse
COMPILED = (
    Variant("compile_default", backend="torch", compile_mode="default"),
    Variant("flex_eager", attention="flex"),
    Variant("compile_reduce-overhead", backend="torch", compile_mode="reduce-overhead"),
    Variant("compile_max-autotune", backend="torch", compile_mode="max-autotune"),
)


@dataclass(frozen=True)
class Setting:
    """What all variants of a table share.

    Attributes:
        preset: its name; always one that the published formulation can compute.
        config: without a precision yet.
        references: losses of two steps of our equations in fp32, by whether dropout was on.
        work: the least arithmetic and bytes of a step.
    """

    preset: str
    config: PPSConfig
    sizes: FeatureSizes
    batch: Batch
    references: dict[bool, tuple[float, float]]
    work: Work


def steps(report: Report) -> None:
    """The stage of everything that needs no compiler of its own: bf16 of both data sets first."""
    for precision in PRECISIONS[:2] if report.is_dry else PRECISIONS:
        for setting in settings(report):
            # a dry run has seen everything once with one precision
            for variant in STEPS[:2] if report.is_dry and precision == PRECISIONS[0] else STEPS:
                _add(report, "steps", variant, setting, precision)


def compiled(report: Report) -> None:
    """The stage of torch.compile and FlexAttention; each may take what is left of the stage's time."""
    precisions: tuple[Precision, ...] = ("fp32",) if report.is_dry else ("bf16", "fp32")
    # a dry run traces one; the others differ in what the compiler does with the trace
    for variant in COMPILED[:2] if report.is_dry else COMPILED:
        for precision in precisions:
            for setting in settings(report):
                _add(report, "compiled", variant, setting, precision)


_settings: dict[tuple[str, torch.device], Setting] = {}


def settings(report: Report) -> Iterator[Setting]:
    """Yields both data sets' settings, one tiny one in a dry run; each is made once."""
    for dataset in ("charades",) if report.is_dry else ("charades", "activitynet"):
        name = (f"{dataset}_released", report.device)
        if name not in _settings:
            _settings[name] = _setting(dataset, report.device, report.is_dry)
        yield _settings[name]


def _setting(dataset: str, device: torch.device, is_dry: bool) -> Setting:
    (sizes, lengths), config = SIZES[dataset], override(PRESETS[f"{dataset}_released"], STEADY)
    if is_dry:
        sizes = FeatureSizes(frame_dim=8, word_dim=6, vocab_size=23, num_segments=16)
        config = override(config, {**TINY_STEP, "proposals.num_proposals": 2})
    batch = random_batch(sizes, lengths, 2 if is_dry else BATCH_SIZE, device)
    # the profiler sees the inside only of graphs that were captured after its first use
    launches_of(lambda: torch.ones(1, device=device), device)
    references: dict[bool, tuple[float, float]] = {}
    with use_backend("torch"):
        for has_dropout in (True, False):
            step = build_step(config, sizes, device)
            step.model.train(has_dropout)
            references[has_dropout] = tuple(step(batch).loss.total.item() for _ in range(2))  # type: ignore[assignment]
        flops = int(1e9 * matmul_gflop(lambda: step(batch)))
    values = sum(p.numel() for p in step.model.parameters())
    batch_bytes = sum(x.numel() * x.element_size() for x in batch.tensors().values())
    # weights and two moments, read and written, in fp32; the batch, read
    return Setting(f"{dataset}_released", config, sizes, batch, references, Work(6 * 4 * values + batch_bytes, flops))


def _add(report: Report, stage: str, variant: Variant, setting: Setting, precision: Precision) -> None:
    """Adds the row of a variant, whatever becomes of it."""
    about = {"preset": setting.preset, "precision": precision, "implementation": variant.name}
    about |= {"batch_size": len(setting.batch.frames), "plan": variant.plan, "captured": variant.is_captured}
    is_ours = variant.name.startswith("ours")
    if report.left() <= 0:
        why = "the stage's share of the budget is spent"
        report.add(stage, "not run" if is_ours else "left out", **about, why=why)
        return
    if variant.attention == "flex" and report.device.type == "cpu":
        report.add(stage, "refused", **about, why="FlexAttention has no backward pass on a CPU")
        return
    try:
        with time_limit(report.left()):
            status, figures = "ok", measure(report, variant, setting, precision)
    except OutOfTime as error:
        status, figures = "not run" if is_ours else "left out", {"why": str(error)}
    # what does not run, does not fit or does not agree is a result too
    except Exception as error:
        status, figures = "failed", {"why": f"{type(error).__name__}: {error}"[:2000]}
    report.add(stage, status, **about, **figures)
    if variant.compile_mode or variant.attention == "flex":
        torch._dynamo.reset()
    gc.collect()
    if report.device.type == "cuda" and is_alive(report.device):
        torch.cuda.empty_cache()


class Disagrees(RuntimeError):
    """A variant's losses are not those of the reference."""


def measure(report: Report, variant: Variant, setting: Setting, precision: Precision) -> Row:
    """Builds, checks and times a variant; returns the columns of its row.

    Raises:
        Disagrees: where its first two losses are not the reference's.
    """
    device, is_cuda = report.device, report.device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if is_cuda else 0
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    config = override(setting.config, {"train.precision": precision, "reconstructor.schedule": variant.plan})
    with _surroundings(variant, precision):
        begin = time.perf_counter()
        make = _published if variant.is_published else _ours
        run, losses = make(variant, config, setting)
        first = time.perf_counter() - begin
        reference = setting.references[not variant.is_published]
        row = {"losses": losses, "reference": reference}
        differences = [abs(loss - exact) / abs(exact) for loss, exact in zip(losses, reference, strict=True)]
        # a NaN is not below it
        if not all(error <= limit for error, limit in zip(differences, AGREEMENT[precision], strict=True)):
            raise Disagrees(f"losses {losses}, reference {reference}: at most {AGREEMENT[precision]} is timed")
        shortened = {"repetitions": 1, "warm_up": 0} if report.is_dry else {}
        times = timed_steps(run, device, _SECONDS, **shortened)
        # reading a CPU's profile takes seconds: a dry run does it twice
        row |= launches_of(run, device) if not report.is_dry or precision == "bf16" else {}
    row |= {"matmul_gflop": round(setting.work.flops / 1e9, 1), "minimal_gb": round(setting.work.bytes / 1e9, 4)}
    if is_cuda:
        row["peak_memory_gib"] = round((torch.cuda.max_memory_allocated(device) - before) / 2**30, 2)
    share, bound = report.ceilings.share(setting.work, times["seconds_median"], precision)
    times |= {"share": short(share, 3), "bound": bound}
    if variant.compile_mode or variant.attention == "flex":
        times["compile_seconds"] = round(first, 1)
    return {**row, **report.measured(**times)}


@contextmanager
def _surroundings(variant: Variant, precision: Precision) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(use_backend(variant.backend))
        stack.enter_context(attention(variant.attention))
        if variant.is_published and precision == "tf32":
            stack.enter_context(matmul_precision("high"))
        if variant.compile_mode or variant.attention == "flex":
            # one graph for every shape of attention in a step
            stack.enter_context(torch._dynamo.config.patch(recompile_limit=64))
        # a step that cannot be captured warns and runs eagerly, which is another variant
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("error", message=RUNS_EAGERLY)
        yield


Built = tuple[Callable[[], Any], list[float]]


def _published(variant: Variant, config: PPSConfig, setting: Setting) -> Built:
    """The published step with our weights: compared without dropout and with our hidden words, timed with its own."""
    device, batch = setting.batch.frames.device, setting.batch
    step = build_published_step(config, setting.sizes, device)
    load_live_weights(step.model, export_released(build_step(config, setting.sizes, device).model))
    hidden = hidden_positions(batch, config.reconstructor.hidden_words_divisor)
    step.model.eval()
    losses = [published_total(step(batch, hidden)) for _ in range(2)]
    step.model.train()
    return lambda: step(batch), losses


def _ours(variant: Variant, config: PPSConfig, setting: Setting) -> Built:
    step = build_step(config, setting.sizes, setting.batch.frames.device)
    if variant.compile_mode:
        # gradients must not lie in the memory of the compiler's graphs, which are replayed over it
        for parameter in step.parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # a CPU is for dry runs, which have no time to compile
        disabled = setting.batch.frames.device.type == "cpu"
        step.model = torch.compile(step.model, dynamic=False, mode=variant.compile_mode, disable=disabled)
    run_step = runner(step, setting.batch, variant.is_captured and setting.batch.frames.is_cuda)

    def run() -> Any:
        if variant.compile_mode:
            torch.compiler.cudagraph_mark_step_begin()
        return run_step()

    return run, [run().loss.total.item() for _ in range(2)]


def launches_of(run: Callable[[], Any], device: torch.device) -> Row:
    """Counts what one call starts, and what the device runs; on a CPU the operators that are called.

    Returns:
        launches and kernels on a GPU, operators on a CPU; without them where the profiler does not work.
    """
    is_cuda = device.type == "cuda"
    try:
        with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as profiled:
            run()
            if is_cuda:
                torch.cuda.synchronize()
        events = profiled.events()
    except RuntimeError as error:
        return {"why_no_launches": str(error).splitlines()[0]}
    if not is_cuda:
        return {"operators": sum(event.name.startswith("aten::") for event in events)}
    starts = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    return {"launches": sum(event.name.startswith(starts) for event in events), "kernels": len(on_device)}


def step_table(rows: list[Row]) -> list[str]:
    """Returns the rows of both stages as a Markdown table."""
    names = ("preset", "precision", "implementation", "ms per step: median (20 %, 80 %)", "ms until the host returns")
    header = (*names, "times as fast as published", "peak memory, GiB", "launches", "kernels", "share of the ceiling")
    published = [row for row in rows if row["implementation"] == "published" and "seconds_median" in row]
    base = {(row["preset"], row["precision"]): row["seconds_median"] for row in published}
    lines: list[tuple[Any, ...]] = []
    for row in rows:
        start = (row["preset"], row["precision"], row["implementation"])
        if "seconds_median" not in row:
            lines.append((*start, "not measured" if row["status"] == "ok" else row["status"]))
            continue
        times = [f"{1e3 * row[f'seconds_{name}']:.4g}" for name in ("median", "q20", "q80")]
        slowest = base.get(start[:2])
        ratio = f"{slowest / row['seconds_median']:.2f}" if slowest else "-"
        counted = [row.get(name, "-") for name in ("peak_memory_gib", "launches", "kernels")]
        share = f"{100 * row['share']:.3g} % of {row['bound']}"
        host = f"{1e3 * row['host_seconds']:.4g}"
        lines.append((*start, f"{times[0]} ({times[1]}, {times[2]})", host, ratio, *counted, share))
    return [*table(header, lines), "", "More times as fast and a larger share are better, less of everything else."]
