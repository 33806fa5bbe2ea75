"""What a data set is known by: its content, and nothing about where it came from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pps_fast.data.identity import PARTS, describe_data, differing_parts
from tests.support.prepared_data import small

# field -> another value and the part that it belongs to
CHANGES = {
    "features": (-small().features, "features"),
    "words": (["<pad>", "café", "door"], "words"),
    "word_vectors": (2 * small().word_vectors, "words"),
    "hide_prob": (np.array([[1, 0], [0.5, 0.5], [1, 0]], dtype=np.float32), "words"),
    "sentences": (["door", "door", "door"], "sentences"),
    "sample_video": (np.array([0, 1, 0]), "sentences"),
    "sentence_vectors": (np.zeros((3, 2), np.float32), "sentences"),
    "window_s": (small().window_s + 0.5, "windows"),
    "window_sample": (np.array([0, 0, 2]), "windows"),
    "duration_s": (np.array([10.0, 4.5]), "windows"),
    "split": (np.array(["train", "test", "train"]), "splits"),
    "fold": (np.array([1, -1, 1]), "splits"),
    "video_ids": (["a", "c"], "splits"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_that_decides_a_result_is_in_one_part_of_the_identity(name):
    value, part = CHANGES[name]
    data, other = describe_data(small()), describe_data(replace(small(), **{name: value}))
    assert differing_parts(data, other) == [part] and data["sha256"] != other["sha256"]
    assert set(data["content"]) == set(PARTS)


@pytest.mark.parametrize(
    "changes",
    [{"provenance": {"name": "moved", "sources": {}}}, {"query_id": [1, 2, 3]}, {"kind": np.array(["a", "b", "a"])}],
)
def test_origin_and_names_of_queries_are_not_identity_but_are_verified(changes):
    other = replace(small(), **changes)
    assert differing_parts(describe_data(small()), describe_data(other)) == []
    assert small().content["record"] != other.content["record"]


def test_identity_is_of_values_and_not_of_memory():
    data = small()
    other = replace(data, features=np.asfortranarray(data.features), word_ids=data.word_ids[:, ::-1][:, ::-1])
    assert describe_data(other) == describe_data(data)


def test_a_checkpoint_of_an_older_version_is_compared_by_what_it_has():
    data = describe_data(small())
    old = {"name": "small", "sha256": data["origin_sha256"]}
    assert differing_parts(old, data) == []
    assert differing_parts(old, describe_data(replace(small(), words=["<pad>", "x", "y"]))) == ["data"]
