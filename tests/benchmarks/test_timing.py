"""One stopwatch for steps, ops and comparisons, and the memory of a call."""

from __future__ import annotations

import pytest
import torch

from benchmarks.memory import peak_gib, process_peak_gib
from benchmarks.timing import StepTimer, in_turn, quantiles, spread, timed, timed_steps

CPU = torch.device("cpu")


def test_steps_are_timed_in_turn_in_another_order_each_round_after_warm_up() -> None:
    done: list[str] = []

    def make(name: str) -> object:
        return lambda: done.append(name)

    seconds = in_turn(["a", "b", "c"], make, CPU, rounds=6, warm_up_rounds=1)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 6, "b": 6, "c": 6}
    rounds = ["".join(done[first : first + 3]) for first in range(0, len(done), 3)]
    assert len(rounds) == 7 and all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1


def test_calls_that_are_timed_together_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(StepTimer, "seconds", property(lambda timer: [10.0]))
    assert in_turn(["x"], lambda name: lambda: calls.append(1), CPU, rounds=1, calls=50) == {"x": [0.2]}
    # as many warm up
    assert len(calls) == 100


def test_the_clock_is_the_process_s_only_where_there_is_one_thread() -> None:
    before = torch.get_num_threads()
    try:
        for threads, clock in ((1, "process_time"), (2, "perf_counter")):
            torch.set_num_threads(threads)
            assert StepTimer(CPU).clock == clock
    finally:
        torch.set_num_threads(before)


def test_as_many_steps_are_timed_as_asked_for() -> None:
    calls: list[int] = []
    row = timed_steps(lambda: calls.append(1), CPU, repetitions=7)
    assert row["repetitions"] == 7 and len(calls) == 3 + 7
    assert timed_steps(lambda: calls.append(1), CPU, repetitions=1, warm_up=0)["repetitions"] == 1 and len(calls) == 11


def test_times_are_taken_of_every_input_set_in_turn() -> None:
    done: list[int] = []
    calls = [lambda index=index: done.append(index) for index in range(3)]
    times = timed(calls, CPU, 0.0)
    # each once to warm up, one to see how long it takes, then at least five
    assert done == [0, 1, 2, 0, 0, 1, 2, 0, 1] and len(times.seconds) == 5
    assert set(times.values()) == {"seconds_median", "seconds_q20", "seconds_q80", "repetitions", "method"}


def test_quantiles_are_of_fifths() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx({"median": 3.0, "q20": 1.2, "q80": 4.8})
    assert quantiles([1.0, 2.0, 3.0, 4.0]) == {"seconds_median": 2.5, "seconds_q20": 1.0, "seconds_q80": 4.0}
    assert quantiles([7.0]) == {"seconds_median": 7.0, "seconds_q20": 7.0, "seconds_q80": 7.0}


def test_the_peak_is_what_a_call_takes() -> None:
    peak = peak_gib(lambda: torch.ones(2**27), CPU)
    assert peak is None or 0.4 < peak < 0.7
    assert process_peak_gib(CPU) > 0.1
