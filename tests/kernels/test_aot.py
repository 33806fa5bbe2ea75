"""Every kernel compiles for every architecture and stays within its limits, by the table that `aot.py` keeps.

Each run compiles a sample and the rows whose key changed; `pytest --aot-all` compiles the whole table.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.kernels.aot import (
    ARCHITECTURES,
    SAMPLE,
    SHARED_LIMIT,
    TABLE,
    Row,
    changed_rows,
    name_of,
    spilling_kernel,
    table_rows,
    wanted_rows,
)
from tests.kernels.test_names import launched_kernels
from tests.kernels.variant import Variant, sources

# what a comment, which moves line numbers, or another patch release of the compiler may change
TOLERANCE = 0.1
UPDATE = "if the change is meant, run: python tests/kernels/aot.py"
TABLE_ROWS = list(table_rows().values())


def _limit_faults(row: Row) -> list[str]:
    """Returns what is wrong with a kernel's use of an architecture."""
    is_wrong = {
        "spills registers": row["spill_bytes"] > 0 or row["has_local_memory"],
        # one program's few scalars
        "computes in fp64": row["has_fp64"] != (row["kernel"] == "clip_adam_decide_kernel"),
        "exceeds the shared memory": row["shared_bytes"] > SHARED_LIMIT[row["sm"]],
    }
    return [f"{name_of(row)} {fault}: {row}" for fault, holds in is_wrong.items() if holds]


def _differences(row: Row) -> list[str]:
    """Returns how a compiled row differs from the table's."""
    kept = table_rows().get(name_of(row))
    if kept is None:
        return [f"{name_of(row)} is not in {TABLE.name}"]
    faults = [] if kept["has_tensor_core"] == row["has_tensor_core"] else [f"{name_of(row)}: tensor cores differ"]
    for name in ("registers", "shared_bytes"):
        if abs(row[name] - kept[name]) > TOLERANCE * kept[name]:
            faults.append(f"{name_of(row)}: {name} was {kept[name]}, is {row[name]}")
    return faults


def _require_triton_of_the_table() -> None:
    written_by = json.loads(TABLE.read_text(encoding="utf-8"))["triton"]
    if written_by != version("triton"):
        pytest.skip(f"{TABLE.name} was written by triton {written_by}, this is {version('triton')}")


def _compiled(*options: str) -> tuple[list[Row], Row]:
    """Compiles in a process without the interpreter; returns the rows, and the kernel that spills apart."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).parent / "aot.py"), "--check", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    (spilling,) = [row for row in rows if row["kernel"] == spilling_kernel.__name__]
    return [row for row in rows if row is not spilling], spilling


def test_the_table_is_of_these_kernels() -> None:
    _require_triton_of_the_table()
    removed = sorted(table_rows().keys() - wanted_rows().keys())
    assert not removed, f"{TABLE.name} has rows that no variant asks for: {removed}; {UPDATE}"
    changed = changed_rows()
    assert not changed, f"{len(changed)} rows changed since {TABLE.name} was written: {changed[:5]} ...; {UPDATE}"


def test_every_kernel_is_compiled_for_every_architecture() -> None:
    assert set(ARCHITECTURES) == set(SHARED_LIMIT)
    for kernel in launched_kernels():
        assert {row["sm"] for row in TABLE_ROWS if row["kernel"] == kernel} == set(ARCHITECTURES), kernel


def test_no_kernel_spills_computes_in_fp64_or_exceeds_the_shared_memory() -> None:
    faults = [fault for row in TABLE_ROWS for fault in _limit_faults(row)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("dtype", "has_tensor_core"), [("bf16", True), ("tf32", True), ("fp32", False)])
def test_dots_run_on_tensor_cores_unless_products_are_exact(dtype: str, has_tensor_core: bool) -> None:
    # other kernels' dots have no bf16 operands, and are exact
    attention = [row for row in TABLE_ROWS if row["kernel"].startswith("masked_attention")]
    dots = [row for row in attention if row["variant"].endswith(dtype)]
    assert dots and all(row["has_tensor_core"] == has_tensor_core for row in dots)


def test_exact_products_of_fp32_stay_off_tensor_cores() -> None:
    # for sm_100, Triton 3.7 takes "ieee" for "tf32" in some tiles
    exact = [row for row in TABLE_ROWS if "attention" in row["kernel"] and row["variant"].endswith("_fp32")]
    assert exact and not any(row["has_tensor_core"] for row in exact)


def test_a_sample_and_every_changed_row_compile_to_what_the_table_says() -> None:
    rows, spilling = _compiled()
    assert set(SAMPLE) <= {name_of(row) for row in rows}
    assert {sm for _, _, sm in SAMPLE} == set(ARCHITECTURES)
    # the measure of spills sees a kernel that has them
    assert spilling["spill_bytes"] > 0, spilling
    faults = [fault for row in rows for fault in _limit_faults(row)]
    assert not faults, "\n".join(faults)
    _require_triton_of_the_table()
    differences = [difference for row in rows for difference in _differences(row)]
    assert not differences, "\n".join([*differences, UPDATE])


@pytest.mark.aot
def test_every_row_compiles_to_what_the_table_says() -> None:
    rows, _ = _compiled("--all")
    assert {name_of(row) for row in rows} == wanted_rows().keys()
    faults = [fault for row in rows for fault in _limit_faults(row)]
    assert not faults, "\n".join(faults)
    _require_triton_of_the_table()
    differences = [difference for row in rows for difference in _differences(row)]
    assert not differences, "\n".join([*differences, UPDATE])


_KERNEL = '''
import triton
import triton.language as tl

_SCALE = tl.constexpr(2.0)
_UNUSED = tl.constexpr(1.0)


@triton.jit
def _helper(b_x):
    """Scales."""
    return b_x * _SCALE


@triton.jit
def x_fwd_kernel(p_x, N: tl.constexpr):
    o_x = tl.arange(0, N)
    tl.store(p_x + o_x, _helper(tl.load(p_x + o_x)))
'''


def _module(path: Path, source: str) -> ModuleType:
    path.write_text(source, encoding="utf-8")
    # one name for every version of the file, as in a checkout that is edited
    spec = importlib.util.spec_from_file_location("kernel_of_a_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _variant(path: Path, source: str, **changes: Any) -> Variant:
    variant = Variant("", _module(path, source).x_fwd_kernel, {"p_x": "*fp32"}, {"N": 16})
    return variant._replace(**changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_helper(tl.load", "-_helper(tl.load"),
        ("return b_x * _SCALE", "return _SCALE / b_x"),
        ("constexpr(2.0)", "constexpr(3.0)"),
        ("@triton.jit\ndef _helper", "@triton.jit(noinline=True)\ndef _helper"),
    ],
    ids=[
        "the kernel",
        "a device function",
        "a constant that a device function reads",
        "an option of a device function",
    ],
)
def test_the_key_changes_with(old: str, new: str, tmp_path: Path) -> None:
    assert _KERNEL.count(old) == 1
    before = _variant(tmp_path / "before.py", _KERNEL).digest(90)
    assert _variant(tmp_path / "after.py", _KERNEL.replace(old, new)).digest(90) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Scales."""', '"""Multiplies."""'),
        ("_UNUSED = tl.constexpr(1.0)", "# a comment\n\n_UNUSED = tl.constexpr(1.5)"),
        ("def x_fwd_kernel(p_x, N: tl.constexpr):", "def x_fwd_kernel(\n    p_x,\n    N: tl.constexpr,\n):"),
    ],
    ids=["a docstring", "a comment and a constant that is not read", "formatting"],
)
def test_the_key_does_not_change_with(old: str, new: str, tmp_path: Path) -> None:
    assert _KERNEL.count(old) == 1
    before = _variant(tmp_path / "before.py", _KERNEL).digest(90)
    assert _variant(tmp_path / "after.py", _KERNEL.replace(old, new)).digest(90) == before


def test_the_key_changes_with_everything_a_variant_says(tmp_path: Path) -> None:
    variant = _variant(tmp_path / "kernel.py", _KERNEL)
    changed = [{"signature": {"p_x": "*bf16"}}, {"constants": {"N": 32}}, {"num_warps": 8}, {"num_stages": 1}]
    keys = [variant.digest(sm) for sm in ARCHITECTURES] + [variant._replace(**change).digest(90) for change in changed]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_change_with_a_global_that_a_parameter_hides(tmp_path: Path) -> None:
    variant = _variant(tmp_path / "before.py", _KERNEL)
    polluted = _variant(tmp_path / "after.py", _KERNEL)
    # as Triton's interpreter leaves them
    polluted.kernel.fn.__globals__.update(N=object(), o_x=object())
    assert polluted.digest(90) == variant.digest(90)


def test_what_the_key_cannot_cover_is_refused(tmp_path: Path) -> None:
    source = _KERNEL.replace("import triton\n", "import os\nimport triton\n", 1).replace("_SCALE\n", "len(os.name)\n")
    with pytest.raises(ValueError, match="reads the module os, which the key does not cover"):
        sources(_module(tmp_path / "module.py", source).x_fwd_kernel.fn)
    source = _KERNEL.replace("tl.constexpr(2.0)", "[2.0]")
    with pytest.raises(ValueError, match="reads _SCALE, a list, which the key does not cover"):
        sources(_module(tmp_path / "value.py", source).x_fwd_kernel.fn)
