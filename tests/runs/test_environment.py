"""What a run records about where it was computed, and what is said when that has changed."""

from __future__ import annotations

import re

import pytest
import torch

from pps_fast.runs.environment import differences_that_move_bits, environment, source_commit


def test_commit_is_that_of_the_checkout_or_said_to_be_unknown():
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown \(.*\)", source_commit())


def test_environment_tells_versions_commit_cpu_and_threads():
    recorded = environment()
    assert recorded["threads"] == torch.get_num_threads() and recorded["torch"] == str(torch.__version__)
    assert environment(3) == {**recorded, "processes": 3}
    assert recorded["commit"] == source_commit() and recorded["cpu"] and recorded["pps_fast"]


@pytest.mark.parametrize(
    ("name", "is_told"),
    [("processes", True), ("threads", True), ("cpu", True), ("torch", True), ("commit", False), ("pps_fast", False)],
)
def test_only_what_changes_the_order_of_sums_is_told(name, is_told):
    sentence = differences_that_move_bits({**environment(), name: "other"})
    assert (sentence is not None) == is_told
    if sentence is not None:
        assert sentence.startswith(f"{name} was other, is ") and "the bits will differ" in sentence


def test_nothing_is_told_where_nothing_was_recorded_or_changed():
    assert differences_that_move_bits({}) is None and differences_that_move_bits(environment()) is None
