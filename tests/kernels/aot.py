"""Compiles kernels ahead of time, for architectures whose GPUs need not be present, and keeps a table of results.

    python tests/kernels/aot.py                 compiles the rows that changed and rewrites resources.json
    python tests/kernels/aot.py --all           compiles all rows and rewrites it
    python tests/kernels/aot.py --check         compiles the rows that changed and a sample, and prints them as JSON
    python tests/kernels/aot.py --check --all   compiles all rows and prints them as JSON

A row is a kernel, a variant and an architecture; it changed if its key (see `variant.py`) is not in the table. The
variants come from the `variants()` of every aot_*.py beside this file. This is a process of its own, because tests run
Triton's interpreter, and Triton decides between interpreter and compiler when it is imported.
"""

from __future__ import annotations

import argparse
import functools
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
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FOLDER = Path(__file__).resolve().parent
# run as a script, the tests' folder is on the path and the checkout is not
sys.path.insert(0, str(FOLDER.parents[1]))

from tests.kernels.variant import Variant  # noqa: E402

TABLE = FOLDER / "resources.json"
ARCHITECTURES = (80, 86, 90, 100, 120)
# bytes of shared memory that one program may have
SHARED_LIMIT = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
WARP_SIZE = 32
# rows compiled in every run of the tests: each architecture once, with and without tensor cores
SAMPLE = (
    ("gaussian_mask_bwd_kernel", "gaussian_peak", 80),
    ("masked_attention_fwd_kernel", "words_bf16", 86),
    ("residual_norm_fwd_kernel", "256_dropout", 90),
    ("importance_fwd_kernel", "28", 100),
    ("reconstruction_nll_fwd_word_kernel", "1112_of_1152_bf16", 120),
)
# beginnings of the tensor cores' instructions in PTX: up to Ada, Hopper, Blackwell
_TENSOR_CORE = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")

Row = dict[str, Any]
RowName = tuple[str, str, int]


@triton.jit
def spilling_kernel(p_x, N: tl.constexpr):
    """Needs more registers than one warp has, so that a test can see that spills are counted."""
    b_x = tl.load(p_x + tl.arange(0, N))
    tl.store(p_x + tl.arange(0, N), tl.exp(b_x) / tl.sum(b_x) + b_x * tl.max(b_x))


SPILLING = Variant("4096", spilling_kernel, {"p_x": "*fp32"}, {"N": 4096}, num_warps=1)


def name_of(row: Row) -> RowName:
    """Returns what identifies a row."""
    return row["kernel"], row["variant"], row["sm"]


def compile_variant(variant: Variant, sm: int) -> Row:
    """Compiles for one architecture and returns what the kernel needs there."""
    compiled = triton.compile(
        ASTSource(variant.kernel, variant.types, variant.constants, variant.attributes),
        target=GPUTarget("cuda", sm, WARP_SIZE),
        options={"num_warps": variant.num_warps, "num_stages": variant.num_stages, **variant.options},
    )
    ptx = compiled.asm["ptx"]
    usage = _resource_usage(compiled.asm["cubin"])
    return {
        # the name that a profile shows
        "kernel": compiled.metadata.name,
        "variant": variant.label,
        "sm": sm,
        "registers": usage["REG"],
        "shared_bytes": compiled.metadata.shared,
        # where ptxas puts what does not fit into registers, and arrays indexed at run time
        "spill_bytes": usage["STACK"] + usage["LOCAL"],
        "has_fp64": ".f64" in ptx,
        "has_local_memory": ".local " in ptx,
        "has_tensor_core": any(instruction in ptx for instruction in _TENSOR_CORE),
        "key": variant.digest(sm),
    }


def _resource_usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", done.stdout)}
    if usage.keys() != {"REG", "STACK", "LOCAL"}:
        raise ValueError(f"{tool}: expected REG, STACK and LOCAL of one kernel, got {done.stdout!r}")
    return usage


def all_variants() -> Iterator[Variant]:
    """Yields the variants of every aot_*.py beside this file."""
    for path in sorted(FOLDER.glob("aot_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path}: cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield from module.variants()


@functools.cache
def wanted_rows() -> dict[RowName, tuple[Variant, int]]:
    """Returns variant and architecture of every row that the table should have.

    Raises:
        ValueError: if two variants of a kernel have one label.
    """
    wanted: dict[RowName, tuple[Variant, int]] = {}
    for variant in all_variants():
        for sm in ARCHITECTURES:
            name = (variant.kernel.__name__, variant.label, sm)
            if name in wanted:
                raise ValueError(f"two variants of {name[0]} have the label {name[1]!r}")
            wanted[name] = (variant, sm)
    return wanted


def table_rows() -> dict[RowName, Row]:
    """Returns the rows of resources.json."""
    if not TABLE.is_file():
        return {}
    return {name_of(row): row for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]}


def changed_rows() -> list[RowName]:
    """Returns the rows whose key is not the table's, rows that the table lacks included."""
    table = table_rows()
    rows = wanted_rows().items()
    return [name for name, (variant, sm) in rows if name not in table or table[name]["key"] != variant.digest(sm)]


def _compile_row(name: RowName) -> Row:
    """Compiles a row by its name: a kernel cannot be sent to another process."""
    if name[0] == spilling_kernel.__name__:
        return compile_variant(SPILLING, name[2])
    return compile_variant(*wanted_rows()[name])


def compile_rows(names: list[RowName]) -> list[Row]:
    """Compiles rows, in as many processes as there are processors."""
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(names)) or 1) as pool:
        return list(pool.map(_compile_row, names))


def write_table(rows: list[Row]) -> None:
    """Writes resources.json, one row per line."""
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=name_of))
    TABLE.write_text(f'{{"triton": "{triton.__version__}", "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="compile all rows, not only those that changed")
    parser.add_argument("--check", action="store_true", help="print compiled rows and leave the table as it is")
    options = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("error: TRITON_INTERPRET=1 interprets kernels; unset it to compile them")
    wanted = wanted_rows()
    names = list(wanted) if options.all else changed_rows()
    if options.check:
        names += [name for name in SAMPLE if name not in names] + [(spilling_kernel.__name__, SPILLING.label, 90)]
        for row in compile_rows(names):
            print(json.dumps(row))
    else:
        rows = {name: row for name, row in table_rows().items() if name in wanted}
        rows |= {name_of(row): row for row in compile_rows(names)}
        write_table(list(rows.values()))
        print(f"compiled {len(names)} of {len(rows)} rows and wrote {TABLE}")


if __name__ == "__main__":
    main()
