"""Options of the command: choices equal the registries, impossible combinations are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from pps_fast.prepare.feature_options import FEATURE_FORMATS
from pps_fast.prepare.options import (
    AnnotationFormat,
    PrepareOptions,
    Protocol,
    VocabularyFormat,
    check_options,
)
from pps_fast.prepare.readers.annotations import ANNOTATION_READERS
from pps_fast.prepare.readers.features import FEATURE_READERS
from pps_fast.prepare.readers.protocols import PROTOCOLS
from pps_fast.prepare.readers.vocabulary import VOCABULARY_READERS

GOOD = PrepareOptions(
    out=Path("o.h5"), features=(Path("f.h5"),), vocabulary=Path("v.pkl"), protocol="full", train=Path("t.json")
)


@pytest.mark.parametrize(
    ("choices", "registry"),
    [
        (AnnotationFormat, ANNOTATION_READERS),
        (VocabularyFormat, VOCABULARY_READERS),
        (Protocol, PROTOCOLS),
    ],
)
def test_choices_are_the_registries(choices, registry):
    assert set(get_args(choices)) - {"auto"} == set(registry)


def test_formats_of_features_are_the_registry():
    assert set(FEATURE_FORMATS) == set(FEATURE_READERS)


def test_pool_samples_are_called_train():
    pool = replace(GOOD, train=None, pool=Path("p.json"), folds=5)
    check_options(pool)
    assert pool.annotation_files == {"train": Path("p.json")}
    assert replace(GOOD, test=Path("e.json")).annotation_files == {"train": Path("t.json"), "test": Path("e.json")}


def test_the_word_planted_asks_for_planted_features():
    assert replace(GOOD, features=(Path("planted"),)).is_planted
    assert not replace(GOOD, features=(Path("planted.h5"),)).is_planted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "none given; expected annotations"),
        ({"train": None, "validation": Path("v.json")}, "none given"),
        ({"folds": 5}, "--folds: 5; expected 0 without --pool"),
        ({"pool": Path("p.json"), "folds": 5}, "--pool: given with --train"),
        ({"train": None, "pool": Path("p.json")}, "--folds: 0; expected 2 or more"),
        ({"num_segments": 0}, "--num-segments: 0; expected at least 1"),
        ({"max_num_words": 0}, "--max-num-words"),
        ({"vocab_size": 0}, "--vocab-size"),
        ({"frame_dim": 0}, "--frame-dim"),
        ({"planted_noise": -1.0}, "--planted-noise: -1.0; expected 0 or more"),
        ({"seed": -1}, "--seed"),
        ({"fold_seed": -1}, "--fold-seed"),
        ({"num_segments": 1_000_000_000}, "--num-segments: 1000000000; expected at most 65,536"),
        ({"max_num_words": 10**9}, "--max-num-words"),
        ({"frame_dim": 10**12}, "--frame-dim"),
        ({"planted_dim": 10**9}, "--planted-dim"),
        ({"planted_noise": float("inf")}, "--planted-noise: inf; expected at most"),
        ({"sentence_key": "vectors"}, "--sentence-key: vectors; expected --sentence-vectors beside it"),
        ({"planted_noise": float("nan")}, "--planted-noise: nan; expected 0 or more"),
        ({"features": (Path("a"), Path("b/a"))}, "--features: two sources are named .a."),
    ],
)
def test_impossible_options_are_refused_by_name(changes, message):
    check_options(GOOD)
    with pytest.raises(ValueError, match=message):
        check_options(replace(GOOD, **changes))
