"""The torch path of every op on a CPU, in pytest-benchmark: python -m pytest benchmarks/bench_ops.py --benchmark-only

Not part of the test suite. The cases are those of ops.py, with few samples; each result must agree with the float64
equation before it is timed.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cases import OpCase, cases_of
from benchmarks.counts import MODES, count
from benchmarks.ops import AGREEMENT, CPU_BATCH_SIZE, Opponent, call_of, error_of, exact_of
from pps_fast.ops import ALL_OPS
from tests.support.op_check import equation_of

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra 'test')")

FOUND = cases_of(dtypes=("fp32",), batch_size=CPU_BATCH_SIZE)
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in ALL_OPS for case in FOUND[op.name]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_time_of_the_equation(benchmark: Any, op: Any, case: OpCase, mode: str) -> None:
    inputs = case.inputs("cpu", requires_grad=True)
    equation = Opponent("equation", equation_of(op))
    assert error_of(equation, inputs, exact_of(case, inputs)) <= AGREEMENT[case.dtype]
    work = count(op.name, inputs)[mode]
    benchmark.group = f"{op.name} {case.name} {mode}"
    benchmark.extra_info.update(batch_size=case.batch_size, bytes=work.bytes, flops=work.flops)
    benchmark.pedantic(call_of(equation, inputs, mode), rounds=5, warmup_rounds=1)
