"""Annotations joined with their words: the record of the origin, and folds by video."""

from __future__ import annotations

import pytest

from pps_fast.prepare.options import PrepareOptions
from tests.support.prepare_inputs import build, make_inputs


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path)


def test_provenance_names_sources_counts_and_protocol_but_no_folder(inputs, tmp_path):
    provenance = build(PrepareOptions(**inputs, name="small")).provenance
    assert provenance["name"] == "small" and provenance["protocol"] == "as_is"
    assert provenance["counts"]["samples"] == {"train": 5, "test": 2}
    assert provenance["counts"]["videos_in_several_splits"] == 0
    assert provenance["counts"]["words_unknown"] == 1 and provenance["counts"]["words_cut"] == 5
    assert provenance["sources"]["features"]["file"] == "features.hdf5"
    assert len(provenance["sources"]["vocabulary"]["sha256"]) == 64
    assert str(tmp_path) not in repr(provenance)


def test_a_pool_is_divided_into_folds_by_video(inputs):
    options = PrepareOptions(**{**inputs, "pool": inputs["train"], "train": None, "test": None, "folds": 2})
    data = build(options)
    assert set(data.split.tolist()) == {"train"} and set(data.fold.tolist()) == {0, 1}
    assert data.fold[0] == data.fold[1]
    assert abs(int((data.fold == 0).sum()) - int((data.fold == 1).sum())) == 1
