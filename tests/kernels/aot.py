"""Compiles kernels ahead of time, for GPUs that are not there: python tests/kernels/aot.py [--quick | --update]

Prints a JSON line per kernel, variant and architecture: those of this file and of every aot_*.py beside it, each of
which has a function `variants()` like the one here. --update keeps the lines in resources.json. --quick compiles every
variant for one architecture, and for the others only what has changed since resources.json was written; the rest it
takes from there, because what is compiled is a function of the key that stands in each line.
A process of its own, because the tests run Triton's interpreter, which is chosen when triton is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

ARCHITECTURES = (80, 86, 90, 100, 120)
# bytes of shared memory one program may have
SHARED_LIMIT = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
WARP_SIZE = 32
GOLDEN = HERE / "resources.json"
# what the tensor cores' instructions begin with in PTX: up to Ada, Hopper, Blackwell
_TENSOR_CORE = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")


class Variant(NamedTuple):
    """A kernel as it is shipped; `variants()` may yield plain tuples of the same order.

    Attributes:
        name: unique among all kernels.
        kernel: the jit function.
        signature: type of each argument that is not a constant, "*fp32", "*bf16", "i32", ...
        constants: value of each constexpr argument.
        num_warps: as it is launched with.
        num_stages: as it is launched with.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3


def _source(kernel: Any, signature: dict[str, str], constants: dict[str, Any]) -> Any:
    """What triton compiles; pointers are taken to be aligned."""
    from triton.compiler import ASTSource

    types = {**signature, **dict.fromkeys(constants, "constexpr")}
    ordered = {argument: types[argument] for argument in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(ordered.values()) if kind.startswith("*")}
    return ASTSource(kernel, ordered, constants, aligned)


def key_of(variant: Variant, sm: int) -> str:
    """Changes with the kernel's source and everything else that decides what is compiled."""
    import triton

    source = _source(variant.kernel, variant.signature, variant.constants).hash()
    decides = (source, sm, variant.num_warps, variant.num_stages, triton.__version__)
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:16]


def compile_variant(
    name: str,
    kernel: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    sm: int,
    num_warps: int = 4,
    num_stages: int = 3,
) -> dict[str, Any]:
    """Compiles for one architecture and returns what the kernel needs of it."""
    import triton
    from triton.backends.compiler import GPUTarget

    compiled = triton.compile(
        _source(kernel, signature, constants),
        target=GPUTarget("cuda", sm, WARP_SIZE),
        options={"num_warps": num_warps, "num_stages": num_stages},
    )
    ptx = compiled.asm["ptx"]
    usage = _resource_usage(compiled.asm["cubin"])
    return {
        "kernel": name,
        "sm": sm,
        "registers": usage["REG"],
        "shared_bytes": compiled.metadata.shared,
        # where ptxas puts what does not fit into registers, and arrays indexed at run time
        "spill_bytes": usage["STACK"] + usage["LOCAL"],
        "has_fp64": ".f64" in ptx,
        "has_local_memory": ".local " in ptx,
        "has_tensor_core": any(instruction in ptx for instruction in _TENSOR_CORE),
    }


def _resource_usage(cubin: bytes) -> dict[str, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", done.stdout)}
    if found.keys() != {"REG", "STACK", "LOCAL"}:
        raise ValueError(f"{tool}: expected REG, STACK and LOCAL of one kernel, got {done.stdout!r}")
    return found


def variants() -> Iterator[Variant]:
    """Yields the mask kernels as they are shipped."""
    from pps_fast.kernels import gaussian_mask

    forward = ("p_center", "p_width", "p_mask", "p_log")
    backward = ("p_center", "p_width", "p_grad", "p_grad_log", "p_grad_center", "p_grad_width")
    for shape, inverse in (("gaussian", False), ("gaussian_peak", False), ("laplace", False), ("gaussian_peak", True)):
        index = gaussian_mask.SHAPES.index(shape)
        constants = {"SIGMA": 9.0, "WIDTH_FLOOR": 0.01, "SHAPE": index, "INVERSE": inverse, "T": 50}
        constants |= gaussian_mask._blocks(50)
        for direction, kernel, pointers in (
            ("fwd", gaussian_mask._fwd_kernel, forward),
            ("bwd", gaussian_mask._bwd_kernel, backward),
        ):
            signature = {**dict.fromkeys(pointers, "*fp32"), "num_rows": "i32"}
            yield Variant(f"{shape}_mask_{'inverse_' * inverse}{direction}", kernel, signature, constants)


def all_variants() -> Iterator[Variant]:
    """Yields the variants of this file and of every aot_*.py beside it."""
    yield from variants()
    for path in sorted(HERE.glob("aot_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        for variant in module.variants():
            yield Variant(*variant)


def _compile_some(task: tuple[int, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Compiles the variant at a position; a kernel cannot be sent to another process, its position can."""
    index, architectures = task
    variant = list(all_variants())[index]
    name, kernel, signature, constants, num_warps, num_stages = variant
    return [
        {
            **compile_variant(name, kernel, signature, constants, sm, num_warps, num_stages),
            "key": key_of(variant, sm),
        }
        for sm in architectures
    ]


def kept_rows() -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the lines of resources.json by kernel and architecture."""
    if not GOLDEN.is_file():
        return {}
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))["rows"]
    return {(row["kernel"], row["sm"]): row for row in rows}


def _tasks(found: list[Variant], is_quick: bool) -> tuple[list[tuple[int, tuple[int, ...]]], list[dict[str, Any]]]:
    """What to compile, and the rows that are known."""
    if not is_quick:
        return [(index, ARCHITECTURES) for index in range(len(found))], []
    kept, tasks, known = kept_rows(), [], []
    for index, variant in enumerate(found):
        # every architecture has its turn
        chosen = [ARCHITECTURES[index % len(ARCHITECTURES)]]
        for sm in ARCHITECTURES:
            row = kept.get((variant.name, sm), {"key": None})
            if row["key"] != key_of(variant, sm):
                chosen.append(sm)
            elif sm not in chosen:
                known.append(row)
        tasks.append((index, tuple(sorted(set(chosen)))))
    return tasks, known


def _write(rows: list[dict[str, Any]]) -> None:
    import triton

    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: (row["kernel"], row["sm"])))
    GOLDEN.write_text(f'{{"triton": "{triton.__version__}", "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Compiles every variant for every architecture."""
    argv = sys.argv[1:] if argv is None else argv
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("error: TRITON_INTERPRET=1 interprets kernels, unset it to compile them")
    found = list(all_variants())
    names = [variant.name for variant in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two variants have one name: {sorted({name for name in names if names.count(name) > 1})}")
    tasks, rows = _tasks(found, "--quick" in argv)
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), 2)) as pool:
        for compiled in pool.map(_compile_some, tasks):
            rows += compiled
    for row in rows:
        print(json.dumps(row))
    if "--update" in argv:
        _write(rows)


if __name__ == "__main__":
    main()
