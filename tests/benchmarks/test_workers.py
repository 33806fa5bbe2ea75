"""Tasks in processes of their own: rows arrive, and a process that fails, dies or takes too long is a row."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from benchmarks.rows import Row
from benchmarks.workers import run_tasks


def _counting(number: int) -> Iterator[Row]:
    for value in range(number):
        yield {"status": "ok", "value": value, "process": os.getpid()}


def _ending(how: str) -> Iterator[Row]:
    yield {"status": "ok"}
    if how == "raises":
        raise ValueError("no such kernel")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hangs":
        time.sleep(0.05)


def test_every_task_has_a_process_of_its_own_and_sends_its_rows_in_order() -> None:
    got = list(run_tasks(_counting, [(2,), (0,), (3,)], time.monotonic() + 100, num_workers=2))
    values = {arguments: [row["value"] for called, row in got if called == arguments] for arguments in ((2,), (3,))}
    assert values == {(2,): [0, 1], (3,): [0, 1, 2]} and len(got) == 5
    assert len({row["process"] for _, row in got} | {os.getpid()}) == 3


def test_what_fails_dies_or_hangs_is_a_row_and_the_others_run() -> None:
    tasks = [("raises",), ("dies",), ("ends",)]
    rows: dict[str, list[Row]] = {}
    for (how,), row in run_tasks(_ending, tasks, time.monotonic() + 100, num_workers=1):
        rows.setdefault(how, []).append(row)
    assert rows["raises"][1] == {"status": "failed", "why": "ValueError: no such kernel"}
    assert rows["dies"][1] == {"status": "failed", "why": "its process ended with exit code -9"}
    assert rows["ends"] == [{"status": "ok"}]


def test_at_the_deadline_what_runs_is_ended_and_what_waits_is_told() -> None:
    begin = time.monotonic()
    got = list(run_tasks(_ending, [("hangs",), ("ends",)], begin + 12, num_workers=1))
    assert [(how, row["status"]) for (how,), row in got] == [("hangs", "ok"), ("hangs", "not run"), ("ends", "not run")]
    assert time.monotonic() - begin < 20
