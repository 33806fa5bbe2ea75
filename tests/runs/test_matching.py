"""A model meets a data set: the same content, the same sentences made otherwise, or another data set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pps_fast.data.identity import describe_data
from pps_fast.data.record import PreparedData
from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.matching import match_data
from tests.support.model_folders import as_older_version, reseal
from tests.support.train_runs import run_small, small_config, small_input

CONFIG = small_config(train__max_steps=1)
DATA: PreparedData = small_input(CONFIG)[0].data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_small(CONFIG, tmp_path)
    return find_checkpoint(tmp_path)


def permuted(data: PreparedData) -> PreparedData:
    """The same words and sentences with other classes."""
    order = np.concatenate([[0], np.arange(len(data.words) - 1, 0, -1)])
    return replace(
        data,
        words=[data.words[index] for index in order],
        word_vectors=data.word_vectors[order],
        word_ids=np.argsort(order)[data.word_ids],
    )


def of_others(data: PreparedData) -> PreparedData:
    """Another data set of the same words: half of the samples."""
    kept = np.arange(0, data.num_samples, 2)
    names = ("sample_video", "word_ids", "num_words", "hide_prob", "split", "fold")
    return replace(
        data,
        sentences=[data.sentences[index] for index in kept],
        window_s=data.window_s[kept],
        window_sample=np.arange(len(kept)),
        kind=None,
        **{name: getattr(data, name)[kept] for name in names},
    )


@pytest.mark.parametrize("is_chosen", [True, False])
def test_same_content_of_another_origin_is_taken_without_a_word(is_chosen, folder):
    moved = replace(DATA, provenance={"name": "renamed"})
    data, note = match_data(folder, moved, is_chosen)
    assert data is moved and note is None


@pytest.mark.parametrize("is_chosen", [True, False])
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"features": -DATA.features}, "features"),
        ({"fold": DATA.fold + 1}, "splits"),
        ({"word_vectors": -DATA.word_vectors}, "words"),
        ({"features": -DATA.features, "window_s": DATA.window_s / 2}, "features, windows"),
    ],
)
def test_the_same_sentences_with_other_content_are_refused_by_name(changes, part, is_chosen, folder):
    with pytest.raises(ValueError, match=f"other {part}; evaluate with the file as it was"):
        match_data(folder, replace(DATA, **changes), is_chosen)


def test_permuted_classes_are_refused(folder):
    with pytest.raises(ValueError, match="other words; "):
        match_data(folder, permuted(DATA), is_chosen=True)


def test_other_windows_are_noted_if_chosen_and_else_refused(folder):
    data = replace(DATA, window_s=DATA.window_s / 2)
    assert "the windows are others" in str(match_data(folder, data, is_chosen=True)[1])
    with pytest.raises(ValueError, match="the file it was trained on has since got other windows"):
        match_data(folder, data, is_chosen=False)


def test_words_of_another_data_set_are_mapped_by_name(folder):
    other = of_others(DATA)
    mapped, note = match_data(folder, permuted(other), is_chosen=True)
    assert note is not None and "another data set ('planted')" in note and "matched by name" in note
    np.testing.assert_array_equal(mapped.word_ids, other.word_ids)
    np.testing.assert_array_equal(mapped.word_vectors, DATA.word_vectors)
    assert mapped.words == DATA.words
    with pytest.raises(ValueError, match="since got other"):
        match_data(folder, other, is_chosen=False)


def test_words_that_the_model_does_not_know_are_refused_by_name(folder):
    other = of_others(DATA)
    strange = replace(other, words=[word.replace("door", "dragon") for word in other.words])
    with pytest.raises(ValueError, match="the model does not know 1 word of this data set, among them dragon"):
        match_data(folder, strange, is_chosen=True)


def test_a_model_of_an_older_version_notes_what_it_cannot_tell(folder):
    as_older_version(folder, describe_data(DATA))
    data, note = match_data(folder, DATA, is_chosen=False)
    assert data is DATA and note is None
    _, note = match_data(folder, permuted(DATA), is_chosen=True)
    assert note is not None and "its word classes must mean the same words" in note


def test_a_model_of_unknown_data_goes_by_its_words(folder):
    path = folder / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["data"] = {"name": "not recorded", "sha256": "0" * 64}
    path.write_text(json.dumps(values), encoding="utf-8")
    reseal(folder)
    for is_chosen in (True, False):
        mapped, note = match_data(folder, permuted(DATA), is_chosen)
        assert note is not None and "matched by name" in note
        np.testing.assert_array_equal(mapped.word_ids, DATA.word_ids)
