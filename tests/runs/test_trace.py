"""trace.jsonl: true numbers of the model, training unchanged by it, and every line once after any resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.runs.checkpoint import load_model
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.runs.trace import NUM_SAMPLES, TRACE_FILE, Trace, read_trace
from tests.support.train_runs import run_small, small_config, small_input, weights

# dropout on, so that a forgotten mode would show
TRACED = {"train__trace_every": 2, "encoder__dropout": 0.1}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    run = tmp_path_factory.mktemp("traced") / "run"
    run_small(small_config(train__max_steps=9, **TRACED), run)
    return run


def _without_times(run):
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "samples_per_s")}
        for line in read_metrics(run)
    ]


def test_training_is_the_same_bit_for_bit_with_and_without(traced, tmp_path):
    run_small(small_config(train__max_steps=9, **{**TRACED, "train__trace_every": 0}), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(traced)
    assert _without_times(tmp_path / "run") == _without_times(traced)
    assert not (tmp_path / "run" / TRACE_FILE).exists()


def test_first_samples_are_written_before_during_and_at_the_end(traced):
    lines, config = read_trace(traced), small_config()
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 8, 9]
    _, splits = small_input(config)
    for line in lines:
        assert line["samples"] == splits.train[:NUM_SAMPLES].tolist()
        # K = 3 proposals of 1, 2 and 3 components
        for name, size in (("center", 6), ("width", 6), ("importance", 6), ("start", 3), ("end", 3), ("nll", 3)):
            assert np.shape(line[name]) == (NUM_SAMPLES, size)
    assert lines[0]["center"] != lines[1]["center"]


def test_last_line_is_what_the_saved_model_says_in_evaluation(traced):
    model, config, _ = load_model(traced)
    store, splits = small_input(config)
    with torch.no_grad():
        output = model(store.batch(splits.train[:NUM_SAMPLES], seed=config.inference.seed), with_negatives=False)
    last = read_trace(traced)[-1]
    proposals, components = output.proposals, output.proposals.components
    expected = {"center": components.center, "width": components.width, "importance": proposals.importance}
    expected |= {"start": proposals.start, "end": proposals.end, "nll": output.positive_nll}
    assert {name: last[name] for name in expected} == {name: value.tolist() for name, value in expected.items()}


def test_resumed_run_has_every_line_once(traced, tmp_path):
    run = tmp_path / "run"
    for number, steps in enumerate((4, 8, 9)):
        run_small(small_config(train__max_steps=steps, **TRACED), run, resume=number > 0)
        if steps == 4:
            # as after a kill: two lines that no checkpoint reached, one of them torn
            with open(run / TRACE_FILE, "a", encoding="utf-8") as file:
                file.write('{"step": 6}\n{"step": 8')
    assert (run / TRACE_FILE).read_bytes() == (traced / TRACE_FILE).read_bytes()


def test_run_that_starts_over_has_its_first_line_once(tmp_path):
    config = small_config(train__max_steps=1, **TRACED)
    store, splits = small_input(config)
    (tmp_path / TRACE_FILE).write_text('{"step": 0}\n')
    with Trace(tmp_path, config, store, splits.train) as trace:
        assert trace.is_due(0) and not trace.is_due(1) and trace.is_due(1, is_last=True)
    assert read_trace(tmp_path) == []


def test_trace_may_be_turned_on_and_off_on_resume(tmp_path):
    for number, (steps, every) in enumerate(((2, 0), (4, 1), (6, 0))):
        config = small_config(train__max_steps=steps, train__trace_every=every)
        run_small(config, tmp_path / "run", resume=number > 0)
    assert [line["step"] for line in read_trace(tmp_path / "run")] == [3, 4]


def test_run_without_a_trace_is_refused_with_the_option(tmp_path):
    with pytest.raises(ValueError, match=r"no trace.jsonl; train with --train.trace-every 10"):
        read_trace(tmp_path)
