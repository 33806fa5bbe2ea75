"""`from pps_fast.ops import X` is the op X, whatever was imported before, and every op is listed once."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pps_fast.ops
from pps_fast.ops import ALL_OPS, OPS, Op, clip_adam

ROOT = Path(__file__).resolve().parents[2]
FILES = {op.name: file for file, ops in OPS.items() for op in ops} | {"clip_adam": "clip_adam"}


_IN_CHILDREN = """
import os, sys, traceback
import torch, torch._dynamo

for script in {scripts!r}:
    child = os.fork()
    if child == 0:
        try:
            exec(script, {{}})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, script
print(len({scripts!r}))
"""


def test_an_op_is_imported_before_and_after_its_file() -> None:
    """In fresh processes: children of one that has loaded torch and nothing of the package."""
    scripts = []
    for file in sorted(set(FILES.values())):
        names = [name for name in FILES if FILES[name] == file]
        of_package = f"from pps_fast.ops import {', '.join(names)}"
        of_file = f"import pps_fast.ops.{file}\nfrom pps_fast.ops.{file} import kernel"
        check = "import pps_fast.ops\nfrom pps_fast.ops.dispatch import Op\n" + "\n".join(
            f"assert isinstance(pps_fast.ops.{name}, Op) and {name} is pps_fast.ops.{name}" for name in names
        )
        scripts += ["\n".join((of_package, of_file, check)), "\n".join((of_file, of_package, check))]
    command = [sys.executable, "-c", _IN_CHILDREN.format(scripts=scripts)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 * len(set(FILES.values()))


def test_every_op_of_every_file_is_listed_once_under_its_file() -> None:
    in_files = {}
    for file in OPS:
        module = importlib.import_module(f"pps_fast.ops.{file}")
        in_files[file] = {value for value in vars(module).values() if isinstance(value, Op)}
    assert in_files == {file: set(ops) for file, ops in OPS.items()}
    assert len({op.name for op in ALL_OPS}) == len(ALL_OPS)


@pytest.mark.parametrize("op", [*ALL_OPS, clip_adam], ids=lambda op: op.name)
def test_an_op_is_public_under_its_name_and_shows_its_parameters(op: Op) -> None:
    assert op.name in pps_fast.ops.__all__ and getattr(pps_fast.ops, op.name) is op
    *parameters, backend = inspect.signature(op).parameters.values()
    assert parameters == list(inspect.signature(op.__wrapped__, eval_str=True).parameters.values())
    assert (backend.name, backend.default, backend.annotation) == ("backend", "auto", str)
    assert op.__doc__ is not None and op.__doc__.startswith(f"{op.name}(")
