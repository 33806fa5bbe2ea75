"""The mask kernels compile for GPUs that are not there. What they compute is tested in tests/ops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SHARED_LIMIT = 48 * 1024


def test_kernels_compile_without_fp64_local_memory_or_much_shared_memory() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "aot.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    # three shapes, forward and backward, three architectures
    assert len({(row["kernel"], row["sm"]) for row in rows}) == 18
    for row in rows:
        assert not row["has_fp64"] and not row["has_local_memory"], row
        assert row["shared_bytes"] <= SHARED_LIMIT, row
