"""Counts what one step asks of a device, which need not be there: python -m benchmarks.count_step --preset charades

The whole training step (forward, losses, backward, update), or with --evaluation the evaluation step, runs on fake
tensors, which have shapes and no values, at the real sizes. Every operator call is counted that would launch
something: views and allocations are not. Bytes are those of the distinct elements that a call reads and writes, without
any cache. GFLOP are those of matrix products, a multiply-add as two; attention kernels count as their equations do, two
products forward and four backward over all pairs of query and key (they compute one more in place of storing it).

--path gpu is the path of a GPU: our kernels, all masks at once. --path cpu is that of a CPU: equations, queries
absorbed where that multiplies less, few masks at a time. --savings compares the products of the shared plan on both
paths with those of the plain plan and of the published formulation, which is counted on real tensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

if __name__ == "__main__":
    # read by triton when it is imported: kernels then accept CPU tensors, and fake ones
    os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
import tyro  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from benchmarks.published_baseline import build_published_step  # noqa: E402
from benchmarks.published_step import published_predictions  # noqa: E402
from benchmarks.rows import Row, append, commit, table  # noqa: E402
from benchmarks.step import BATCH_SIZE, build_step, evaluation_of, random_batch, sizes_of, step_of  # noqa: E402
from pps_fast import randomness  # noqa: E402
from pps_fast.config import PPSConfig, Precision, ReconstructorSchedule  # noqa: E402
from pps_fast.config_tree import override  # noqa: E402
from pps_fast.presets import PRESETS  # noqa: E402
from pps_fast.reconstructor import shared  # noqa: E402
from pps_fast.types import Batch  # noqa: E402

Preset = Literal["charades", "activitynet", "charades_released", "activitynet_released"]
DevicePath = Literal["gpu", "cpu"]
# calls that launch nothing although they return no view: allocations, and questions of the host
_ALLOCATIONS = ("empty", "new_empty", "resize_", "set_", "_unsafe_view", "lift_fresh")
_FREE = (*_ALLOCATIONS, "_local_scalar_dense", "is_same_size", "promote_types")
# torch's operators and ours; not questions such as prim::device
_SPACES = ("aten", "pps_fast")
# an operator of ours that is no kernel but torch's product, with the sum it is added to
PRODUCT = "weight_gradient"
_CPU = torch.device("cpu")
_NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class Arguments:
    """What to count."""

    preset: Preset = "charades"
    """config, and whose sizes; --savings takes its data set's *_released form, which the published code computes"""
    precision: Precision = "bf16"
    """of training; evaluation is fp32 everywhere but with bf16"""
    plan: ReconstructorSchedule = "shared"
    """how the reconstructor's passes are computed"""
    path: DevicePath = "gpu"
    """whose path through the code is counted"""
    evaluation: bool = False
    """the evaluation step instead of the training step"""
    batch_size: int = BATCH_SIZE
    """samples per step"""
    most: int = 12
    """operators that are listed, those that move most bytes first"""
    savings: bool = False
    """instead: products of the shared plan against the plain plan and the published formulation"""
    out: Path | None = None
    """append JSON lines here"""


def distinct_bytes(x: Tensor) -> int:
    """Returns the bytes of the elements that a tensor has in memory; broadcast dimensions count once."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride != 0 or size == 1 else 1
    return count * x.element_size()


def our_flop(name: str, arguments: dict[str, Any]) -> int:
    """Returns the arithmetic of the products of an operator of ours, by its equation.

    Args:
        name: of the operator; _fwd or _bwd is in an attention's.
        arguments: of an attention, query [G, H, Q, h] and key [G, H, T, h], and of shared_attention key_bias [G, N, T],
            or query, key and value together as `projected`, and of row_attention query [H, G, D] and memory [G, T, D];
            of weight_gradient, grad [..., R, C] and x [..., R, D]; of heads, g_cls [B, D] and their parameters, or in
            the backward pass the weights; of importance scores, x [B, N, D].
    """
    if name == PRODUCT:
        return 2 * arguments["grad"].numel() * arguments["x"].shape[-1]
    if name.startswith("importance_score"):
        return (4 if "_bwd" in name else 2) * arguments["x"].numel()
    if name.startswith("component_heads"):
        product = 2 * len(arguments["g_cls"])
        if "weights" in arguments:
            return 2 * product * sum(weight.numel() for weight in arguments["weights"])
        return product * sum(weight.numel() for weight in arguments["parameters"][::2])
    if "attention" not in name:
        return 0
    is_backward = "_bwd" in name
    if name.startswith("row"):
        # ragged memory holds all samples; a sentence is as long as the longest, as which keys are valid is told
        of_keys = arguments["memory" if arguments.get("start") is None else "key_valid"]
        return 2 * arguments["query"].numel() * of_keys.shape[1] * (4 if is_backward else 2)
    query, key, _ = arguments.get("projected") or (arguments["query"], arguments["key"], None)
    is_causal = arguments["causal"] if "causal" in arguments else arguments.get("flags", (False,))[0]
    num_keys = key.shape[2]
    if arguments.get("start") is not None and is_causal:
        # sentences of ragged rows, as long as the longest
        num_keys = arguments["longest"] if "longest" in arguments else arguments["results"][2].shape[2]
    product = 2 * query.numel() * num_keys
    if name.startswith("shared"):
        num_masks = arguments["key_bias"].shape[1]
        # scores once for all masks, and their two gradients; the rest once per mask
        return product * (2 + 2 * num_masks if is_backward else 1 + num_masks)
    return product * (4 if is_backward else 2)


class Counter(TorchDispatchMode):
    """Adds a row for every operator that is called inside it and would launch something.

    Attributes:
        rows: op, phase, bytes, flop of each call, and values, the elements of its largest result.
        phase: of the calls to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.phase = "forward"

    @property
    def gflop(self) -> float:
        """Arithmetic of all matrix products so far, in 1e9."""
        return sum(row["flop"] for row in self.rows) / 1e9

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and counts it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        space, _, name = func._schema.name.partition("::")
        is_view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if is_view or space not in _SPACES or name.startswith(_FREE):
            return result
        if space == "pps_fast":
            names = [argument.name for argument in func._schema.arguments]
            flop = our_flop(name, {**dict(zip(names, args, strict=False)), **kwargs})
        else:
            # torch has no formulas for a product with a ReLU behind it, and for one that is added in place
            counted = torch.ops.aten.addmm if name in ("_addmm_activation", "addmm_") else func.overloadpacket
            formula = flop_registry.get(counted)
            flop = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        moved = sum(map(distinct_bytes, tensors))
        values = max((x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)), default=0)
        row = {"op": f"{space}::{name}", "phase": self.phase, "bytes": moved, "flop": flop, "values": values}
        self.rows.append(row)
        return result


def matmul_gflop(run: Callable[[], Any]) -> float:
    """Returns the arithmetic of one call's matrix products in 1e9.

    torch's own `FlopCounterMode` also follows modules, and stumbles over a pass without gradients inside another.
    """
    with Counter() as counter:
        run()
    return counter.gflop


@contextmanager
def _path(path: DevicePath) -> Iterator[None]:
    """Inside the block, what a CPU does in chunks is done at once, as on a GPU."""
    with ExitStack() as stack:
        if path == "gpu":
            stack.enter_context(patch.object(shared, "masks_at_once", lambda frames: _NO_LIMIT))
            stack.enter_context(patch.object(randomness, "_CHUNK", _NO_LIMIT))
        yield


def _make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    for name, value in list(module._parameters.items()):
        if value is not None:
            module._parameters[name] = nn.Parameter(mode.from_tensor(value.detach()))
    for name, value in list(module._buffers.items()):
        module._buffers[name] = mode.from_tensor(value)


def config_of(arguments: Arguments) -> PPSConfig:
    """Returns the config whose step is counted."""
    changes = {"train.precision": arguments.precision, "reconstructor.schedule": arguments.plan}
    changes["backend"] = "triton" if arguments.path == "gpu" else "torch"
    return override(PRESETS[arguments.preset], changes)


def count(arguments: Arguments) -> list[Row]:
    """Returns a row for every call of our step.

    Raises:
        BackendError: on the path of a GPU, where Triton is absent or was imported without its interpreter.
    """
    config, (sizes, lengths) = config_of(arguments), sizes_of(arguments.preset)
    built = build_step(config, sizes, _CPU)
    batch = random_batch(sizes, lengths, arguments.batch_size, _CPU)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in (built.model, built.objective):
        module.apply(lambda each: _make_fake(each, mode))
    batch = replace(batch, **{name: mode.from_tensor(value) for name, value in batch.tensors().items()})
    with mode, _path(arguments.path):
        if arguments.evaluation:
            evaluate = evaluation_of(built.model, batch, arguments.precision == "bf16")
            # the first call rounds the weights
            evaluate()
            with Counter() as counter:
                evaluate()
            return counter.rows
        return _count_training(config, built.model, built.objective, batch)


def _count_training(config: PPSConfig, model: nn.Module, objective: nn.Module, batch: Batch) -> list[Row]:
    step = step_of(config, model, objective)
    # the first update moves parameters into flat buffers, the step after it rounds them once
    step(batch)
    step(batch)
    counter = Counter()

    def lost(output: Any) -> Any:
        counter.phase = "losses"
        loss = objective(output)
        counter.phase = "backward"
        return loss

    step.objective = lost
    before = step._update

    def update(*others: Any) -> Any:
        counter.phase = "update"
        return before(*others)

    step._update = update
    with counter:
        step(batch)
    return counter.rows


def published_gflop(preset: Preset, is_evaluation: bool, batch_size: int = BATCH_SIZE) -> float:
    """Returns the arithmetic of the published formulation's products for a batch, on real tensors.

    Its sentences are cut to the longest of the batch; a sample costs the same in any batch with that longest sentence,
    so that one stands for all.
    """
    sizes, lengths = sizes_of(preset)
    batch = random_batch(sizes, lengths, batch_size, _CPU)
    longest = int(batch.num_words.argmax())
    one = Batch(**{name: value[longest : longest + 1] for name, value in batch.tensors().items()})
    step = build_published_step(PRESETS[preset], sizes, _CPU)
    if not is_evaluation:
        return batch_size * matmul_gflop(lambda: step(one))
    return batch_size * matmul_gflop(lambda: published_predictions(step.model.eval(), one))


def savings(preset: Preset, is_evaluation: bool) -> Row:
    """Returns products of a step in GFLOP by formulation, and the shares that the shared plan saves on each path."""

    def gflop(plan: ReconstructorSchedule, path: DevicePath) -> float:
        # the precision changes no product
        arguments = Arguments(preset=preset, precision="fp32", plan=plan, path=path, evaluation=is_evaluation)
        return sum(row["flop"] for row in count(arguments)) / 1e9

    counted = {"published": published_gflop(preset, is_evaluation)}
    counted |= {f"{plan}_{path}": gflop(plan, path) for plan in ("plain", "shared") for path in ("gpu", "cpu")}
    row = {"what": f"products of {_step_name(is_evaluation)}", "preset": preset, "batch_size": BATCH_SIZE}
    row |= {f"gflop_{name}": round(value, 1) for name, value in counted.items()}
    for path in ("gpu", "cpu"):
        for other in ("published", f"plain_{path}"):
            saved = 1 - counted[f"shared_{path}"] / counted[other]
            row[f"percent_saved_{path}_against_{other.removesuffix(f'_{path}')}"] = round(100 * saved, 1)
    return row


def _step_name(is_evaluation: bool) -> str:
    return "an evaluation step" if is_evaluation else "a training step"


def summary_rows(rows: Sequence[Row], by: str) -> list[Row]:
    """Returns calls, bytes and flop of the rows by phase or by op, and how many calls are of our kernels."""
    groups: dict[str, Row] = {}
    for row in rows:
        empty = {by: row[by], "calls": 0, "kernels": 0, "bytes": 0, "flop": 0}
        group = groups.setdefault(row[by], empty)
        group["calls"] += 1
        group["kernels"] += row["op"].startswith("pps_fast::") and not row["op"].endswith(PRODUCT)
        group["bytes"] += row["bytes"]
        group["flop"] += row["flop"]
    return list(groups.values())


def report(rows: Sequence[Row], most: int) -> str:
    """Returns the tables of a step: by phase, and the operators that move most bytes; less is better everywhere."""
    total = {"phase": "whole step", **{k: sum(r[k] for r in summary_rows(rows, "phase")) for k in _AMOUNTS}}
    operators = sorted(summary_rows(rows, "op"), key=lambda row: -row["bytes"])[:most]
    header = ("calls", "of our kernels", "GB read and written", "GFLOP of products")
    lines = table(("phase", *header), [_cells(row) for row in (*summary_rows(rows, "phase"), total)])
    lines += ["", *table(("operator", *header), [_cells(row) for row in operators])]
    return "\n".join([*lines, "", "Less is better in every column. Nothing was timed."])


_AMOUNTS = ("calls", "kernels", "bytes", "flop")


def _cells(row: Row) -> list[str]:
    name, calls, kernels, moved, flop = row.values()
    return [name, f"{calls:,}", f"{kernels:,}", f"{moved / 1e9:.3f}", f"{flop / 1e9:.1f}"]


def savings_table(rows: Sequence[Row]) -> str:
    """Returns savings as a table."""
    header = ("step", "path", "published GFLOP", "plain GFLOP", "shared GFLOP", "saved against published, %")
    lines = []
    for row in rows:
        for path in ("gpu", "cpu"):
            saved = [row[f"percent_saved_{path}_against_{other}"] for other in ("published", "plain")]
            counted = [row["gflop_published"], row[f"gflop_plain_{path}"], row[f"gflop_shared_{path}"]]
            lines.append([f"{row['preset']}, {row['what']}", path, *counted, *saved])
    return "\n".join(
        [
            *table((*header, "saved against plain, %"), lines),
            "",
            "Fewer GFLOP are better, more saved is. Nothing was timed.",
        ]
    )


def main(arguments: Arguments) -> None:
    """Counts, prints and writes."""
    about = {"torch": torch.__version__, "commit": commit()}
    if arguments.savings:
        preset = f"{arguments.preset.removesuffix('_released')}_released"
        rows = [{**savings(preset, is_evaluation), **about} for is_evaluation in (False, True)]
        print(savings_table(rows))
        append(arguments.out, rows)
        return
    rows = count(arguments)
    names = ("preset", "precision", "plan", "path", "batch_size")
    settings = {"what": _step_name(arguments.evaluation), **{name: getattr(arguments, name) for name in names}}
    print(", ".join(f"{name} {value}" for name, value in settings.items()) + "\n\n" + report(rows, arguments.most))
    summaries = [{**settings, **row, **about} for by in ("phase", "op") for row in summary_rows(rows, by)]
    append(arguments.out, summaries)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
