"""Times of every op in pytest-benchmark: pytest benchmarks

Not part of the test suite, which lies in tests/. Equations run on a CPU, with few samples; our kernels on a GPU, with
the training batch, and are skipped where there is none. Each result must agree with the float64 equation before it is
timed. The cases are those of `benchmarks.ops`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.baselines import Implementation, implementations_of
from benchmarks.cases import BATCH_SIZE, OpCase, cases_of
from benchmarks.counts import MODES, count
from benchmarks.ops import AGREEMENT, CPU_BATCH_SIZE, call_of, error_of, exact_of
from pps_fast.ops import ALL_OPS

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra 'test')")

# one data set: the other differs in sizes only
EQUATIONS = cases_of(("charades",), ("fp32",), CPU_BATCH_SIZE)
# the same calls; each of them takes time to list
KERNELS = cases_of(("charades",), ("fp32", "bf16"), BATCH_SIZE) if torch.cuda.is_available() else {}


def _params(cases: dict[str, list[OpCase]]) -> list[Any]:
    return [
        pytest.param(op, case, id=f"{op.name}-{case.name}-{case.dtype}")
        for op in ALL_OPS
        for case in cases.get(op.name, [])
    ]


def _time(benchmark: Any, name: str, op: Any, case: OpCase, mode: str, device: str) -> None:
    inputs = case.inputs(device, requires_grad=True)
    (implementation,) = [each for each in implementations_of(op, inputs, False) if each.name == name]
    if implementation.why_not is not None:
        pytest.skip(implementation.why_not)
    assert error_of(implementation, inputs, exact_of(case, inputs)) <= AGREEMENT[case.dtype]
    work = count(op.name, inputs)[mode]
    benchmark.group = f"{op.name} {case.name} {case.dtype} {mode}"
    benchmark.extra_info.update(batch_size=case.batch_size, bytes=work.bytes, flops=work.flops)
    benchmark.pedantic(_waiting(implementation, inputs, mode), rounds=5, warmup_rounds=1)


def _waiting(implementation: Implementation, inputs: dict[str, Any], mode: str) -> Any:
    """The call, which on a GPU ends when its work has ended."""
    call = call_of(implementation, inputs, mode)
    if not torch.cuda.is_available():
        return call
    return lambda: (call(), torch.cuda.synchronize())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "case"), _params(EQUATIONS))
def test_time_of_the_equation(benchmark: Any, op: Any, case: OpCase, mode: str) -> None:
    _time(benchmark, "equation", op, case, mode, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "case"), _params(KERNELS))
def test_time_of_the_kernel(benchmark: Any, op: Any, case: OpCase, mode: str) -> None:
    _time(benchmark, "triton", op, case, mode, "cuda")
