"""Runs that round differently make no common table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pps_fast.config_tree import override
from pps_fast.lab.numerics import common_numerics, numerics_of
from pps_fast.lab.results import FinishedRun
from pps_fast.lab.tables import build_table
from tests.support.lab_results import DESIGN, FULL, result, table

MACHINE = "Some CPU @ 2.0GHz, 23.5 GiB, 2 thread(s)"


def _run(seed: int = 1, config: Any = FULL, **fields: Any) -> FinishedRun:
    run = result((seed, 0), [0.5] * 4, config)
    return result((seed, 0), [0.5] * 4, config, record={**run.record, "machine": MACHINE, **fields})


@pytest.mark.parametrize(
    ("fields", "processor", "threads"),
    [
        ({"processor": "Some CPU", "threads": 3}, "Some CPU", 3),
        # results from before the fields existed
        ({}, "Some CPU @ 2.0GHz", 2),
        ({"machine": "NVIDIA H100, 79.1 GiB"}, "NVIDIA H100", None),
        ({"machine": "unknown"}, "unknown", None),
    ],
)
def test_numerics_are_recorded_or_read_from_the_machine(fields: dict, processor: str, threads: int | None) -> None:
    expected = {"device": "cpu", "processor": processor, "threads": threads, "precision": "fp32", "torch": "2.13.0"}
    assert numerics_of(_run(**fields)) == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"machine": MACHINE.replace("2 thread", "1 thread")}, "threads 2 and 1"),
        ({"machine": MACHINE.replace("Some", "Other")}, "processor Some CPU @ 2.0GHz and Other CPU @ 2.0GHz"),
        ({"torch": "2.14.0"}, "torch 2.13.0 and 2.14.0"),
        ({"device": "cuda"}, "device cpu and cuda"),
        ({"config": override(FULL, {"train.precision": "bf16"})}, "precision fp32 and bf16"),
    ],
)
def test_what_differs_is_named_in_one_sentence(changes: dict, named: str) -> None:
    assert common_numerics([_run(), _run(2)]) == numerics_of(_run())
    with pytest.raises(ValueError, match=rf"runs run1_0 and run2_0 round differently \({named}\), so that") as raised:
        common_numerics([_run(), _run(2, **changes)])
    assert "\n" not in str(raised.value)


def test_a_table_refuses_them() -> None:
    rows = table().rows
    other = rows[1].runs[1, 0]
    moved = replace(other, record={**other.record, "torch": "2.14.0"})
    rows[1] = replace(rows[1], runs={(1, 0): moved})
    with pytest.raises(ValueError, match="torch 2.13.0 and 2.14.0"):
        build_table(table(rows=rows), DESIGN)
