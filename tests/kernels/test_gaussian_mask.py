"""Every kernel compiles for GPUs that are not there, and needs no more of them than it did.

What the kernels compute is tested in tests/ops. Masks and all others: see aot.py beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pps_fast import equations
from pps_fast.kernels import gaussian_mask
from tests.kernels.aot import ARCHITECTURES, GOLDEN, SHARED_LIMIT, kept_rows

ROOT = Path(__file__).resolve().parents[2]
# growth and shrinking that a compiler's patch release or a changed comment may bring
TOLERANCE = 0.1
UPDATE = "if that is meant, run: python tests/kernels/aot.py --update"


def test_the_floor_under_masks_is_that_of_the_equation() -> None:
    assert gaussian_mask.MASK_FLOOR.value == equations.MASK_FLOOR


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """A row per kernel and architecture, compiled in a process without the interpreter, or before (see aot.py)."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "aot.py"
    done = subprocess.run([sys.executable, str(script), "--quick"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_is_compiled_once_for_every_architecture(rows: list[dict[str, Any]]) -> None:
    compiled = [(row["kernel"], row["sm"]) for row in rows]
    assert len(set(compiled)) == len(compiled)
    assert {sm for _, sm in compiled} == set(ARCHITECTURES) == set(SHARED_LIMIT)
    names = {name for name, _ in compiled}
    assert {f"gaussian_peak_mask_inverse_{way}" for way in ("fwd", "bwd")} <= names
    assert {f"{shape}_mask_{way}" for shape in ("gaussian", "laplace") for way in ("fwd", "bwd")} <= names
    for path in sorted((ROOT / "kernels").glob("*.py")):
        # the masks' variants stand in aot.py itself
        if path.stem not in ("launch", "gaussian_mask"):
            assert (Path(__file__).parent / f"aot_{path.stem}.py").is_file(), f"kernels/{path.name} has no variants"


def test_no_kernel_spills_computes_in_fp64_or_exceeds_the_shared_memory(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["spill_bytes"] == 0 and not row["has_local_memory"], row
        # one program's few scalars
        assert row["has_fp64"] == (row["kernel"] == "clip_adam_decide"), row
        assert row["shared_bytes"] <= SHARED_LIMIT[row["sm"]], row


@pytest.mark.parametrize(("dtype", "has_tensor_core"), [("bf16", True), ("tf32", True), ("fp32", False)])
def test_dots_run_on_tensor_cores_unless_products_are_exact(
    rows: list[dict[str, Any]], dtype: str, has_tensor_core: bool
) -> None:
    # other kernels' dots have no bf16 operands, and are exact
    dots = [row for row in rows if row["kernel"].startswith("masked_attention") and row["kernel"].endswith(dtype)]
    assert dots and all(row["has_tensor_core"] == has_tensor_core for row in dots)


def test_exact_products_of_fp32_stay_off_tensor_cores(rows: list[dict[str, Any]]) -> None:
    # for sm_100, Triton 3.7 takes "ieee" for "tf32" in some tiles
    exact = [row for row in rows if "attention" in row["kernel"] and row["kernel"].endswith("_fp32")]
    assert exact and not any(row["has_tensor_core"] for row in exact)


def test_registers_and_shared_memory_are_what_they_were(rows: list[dict[str, Any]]) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if golden["triton"] != version("triton"):
        pytest.skip(f"{GOLDEN.name} is of triton {golden['triton']}, this is {version('triton')}")
    before = kept_rows()
    assert set(before) == {(row["kernel"], row["sm"]) for row in rows}, UPDATE
    faults = []
    for row in rows:
        for name in ("registers", "shared_bytes"):
            was = before[row["kernel"], row["sm"]][name]
            if abs(row[name] - was) > TOLERANCE * was:
                faults.append(f"{row['kernel']} on sm_{row['sm']}: {name} was {was}, is {row[name]}")
    assert not faults, "\n".join([*faults, UPDATE])


def test_a_kernel_that_needs_more_registers_than_there_are_is_seen(tmp_path: Path) -> None:
    """The measure of spills is not blind: a kernel that loads too much for one warp has them."""
    script = tmp_path / "spilling.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import triton, triton.language as tl
from pps_fast import equations
from pps_fast.kernels import gaussian_mask
from tests.kernels.aot import compile_variant

@triton.jit
def kernel(p, N: tl.constexpr):
    b = tl.load(p + tl.arange(0, N))
    tl.store(p + tl.arange(0, N), tl.exp(b) / tl.sum(b) + b * tl.max(b))

row = compile_variant("spilling", kernel, {{"p": "*fp32"}}, {{"N": 4096}}, sm=90, num_warps=1)
raise SystemExit(0 if row["spill_bytes"] > 0 else str(row))
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
