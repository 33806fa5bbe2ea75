"""Kernels carry the name of the launcher that runs them, and with it their op's, so that a profile can be read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
# no launcher and no kernel
_SHARED_FILES = ("launch", "tiles")
FILES = sorted(path for path in KERNELS.glob("*.py") if path.stem not in _SHARED_FILES)


def _is_jit(function: ast.FunctionDef) -> bool:
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def _kernels_and_launchers(source: str) -> tuple[list[str], list[str], list[str]]:
    """Returns the jit functions that host code uses, those that only other jit functions call, and the launchers."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    jit_functions = {function.name for function in functions if _is_jit(function)}
    host = [function for function in functions if not _is_jit(function)]
    read = {node.id for function in host for node in ast.walk(function) if isinstance(node, ast.Name)}
    launchers = [function.name for function in host if not function.name.startswith("_")]
    return sorted(jit_functions & read), sorted(jit_functions - read), launchers


def _name_faults(source: str, op: str) -> list[str]:
    kernels, device_functions, functions = _kernels_and_launchers(source)
    launchers = [name for name in functions if name.endswith(("_fwd", "_bwd")) or name == op]
    faults = [f"{name} is launched by nothing and has no underscore" for name in device_functions if name[0] != "_"]
    for name in kernels:
        is_of_launcher = any(name.startswith(f"{launcher}_") for launcher in launchers)
        if not (is_of_launcher and name.endswith("_kernel")):
            faults.append(f"{name} is a kernel; call it LAUNCHER_kernel or LAUNCHER_SUFFIX_kernel, of {launchers}")
    return faults


def launched_kernels() -> list[str]:
    """Returns the names of all kernels."""
    return [name for path in FILES for name in _kernels_and_launchers(path.read_text(encoding="utf-8"))[0]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_kernel_has_the_name_of_its_launcher(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert _kernels_and_launchers(source)[0], "no kernel"
    faults = _name_faults(source, path.stem)
    assert not faults, "\n".join(faults)


def test_no_two_kernels_have_one_name() -> None:
    names = launched_kernels()
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kernel", "num_faults"),
    [("x_fwd_kernel", 0), ("x_fwd_mean_kernel", 0), ("_fwd_kernel", 1), ("y_fwd_kernel", 1), ("x_fwd", 1), ("fwd", 1)],
)
def test_the_rule_sees_a_wrong_name(kernel: str, num_faults: int) -> None:
    launcher = f"def x_fwd(x):\n    _launch({kernel}, x)" if kernel != "x_fwd" else "def x_bwd(x):\n    x_fwd[1](x)"
    assert len(_name_faults(f"@triton.jit\ndef {kernel}(p):\n    pass\n{launcher}\n", "x")) == num_faults


def test_the_rule_sees_a_public_device_function() -> None:
    source = "@triton.jit\ndef half(b):\n    return b / 2\n\ndef x_fwd(x):\n    return x\n"
    assert len(_name_faults(source, "x")) == 1
