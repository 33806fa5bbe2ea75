"""Compiles kernels ahead of time, for GPUs that are not there: python tests/kernels/aot.py

Prints a JSON line per kernel, variant and architecture. A process of its own, because the tests run Triton's
interpreter, which is chosen when triton is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from pps_fast.kernels import gaussian_mask  # noqa: E402

ARCHITECTURES = (80, 90, 100)
WARP_SIZE = 32


def variants() -> Iterator[tuple[str, Any, list[str], dict[str, Any]]]:
    """Yields name, kernel, pointer arguments and constants of what is shipped."""
    forward = ["p_center", "p_width", "p_mask"]
    backward = [*forward, "p_grad", "p_grad_center", "p_grad_width"]
    for index, shape in enumerate(gaussian_mask.SHAPES):
        constants = {"SIGMA": 9.0, "WIDTH_FLOOR": 0.01, "SHAPE": index, "T": 50, **gaussian_mask._blocks(50)}
        yield f"{shape}_fwd", gaussian_mask._fwd_kernel, forward, constants
        yield f"{shape}_bwd", gaussian_mask._bwd_kernel, backward, constants


def main() -> None:
    """Compiles every variant for every architecture."""
    for name, kernel, pointers, constants in variants():
        signature = {**dict.fromkeys(pointers, "*fp32"), "num_rows": "i32", **dict.fromkeys(constants, "constexpr")}
        for architecture in ARCHITECTURES:
            source = ASTSource(kernel, signature, constants)
            compiled = triton.compile(source, target=GPUTarget("cuda", architecture, WARP_SIZE))
            row = {
                "kernel": name,
                "sm": architecture,
                "shared_bytes": compiled.metadata.shared,
                "has_fp64": ".f64" in compiled.asm["ptx"],
                "has_local_memory": ".local " in compiled.asm["ptx"],
            }
            print(json.dumps(row))


if __name__ == "__main__":
    main()
