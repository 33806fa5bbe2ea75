"""Vocabulary readers: ranks, vectors, and pickles that must not run."""

from __future__ import annotations

import collections
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pps_fast.prepare.readers.vocabulary as vocabulary_module
from pps_fast.prepare.readers.encoders import SentenceEncoder
from pps_fast.prepare.readers.vocabulary import (
    VOCABULARY_READERS,
    detect_vocabulary_format,
    load_published_pickle,
    read_vocabulary,
)
from tests.support.shared import shared_path

VECTORS = {"door": [1.0, 2.0], "person": [3.0, 4.0], "the": [5.0, 6.0], "cat": [7.0, 8.0]}
FILES = sorted(VOCABULARY_READERS.keys() - {"encoder"})
TOKENS = Counter({"the": 1, "door": 3, "person": 3, "zzz": 9})


def store(folder: Path, file_format: str, counts: dict[str, int] | None = None) -> Path:
    """Writes VECTORS in a format."""
    if file_format == "published_pickle":
        content = {
            "w2id": {"<PAD>": 0, **{word: row for row, word in enumerate(VECTORS, start=1)}},
            "id2vec": [np.zeros(2, np.float32), *(np.array(row, np.float32) for row in VECTORS.values())],
            "counter": Counter(counts or TOKENS & Counter(dict.fromkeys(VECTORS, 99))),
        }
        (folder / "v.pkl").write_bytes(pickle.dumps(content, protocol=3))
        return folder / "v.pkl"
    if file_format == "glove_text":
        lines = [f"{word} {a} {b}\n" for word, (a, b) in VECTORS.items()]
        (folder / "v.txt").write_text("".join(lines))
        return folder / "v.txt"
    extra = {} if counts is None else {"counts": np.array([counts[word] for word in VECTORS])}
    np.savez(folder / "v.npz", words=np.array(list(VECTORS)), vectors=np.array(list(VECTORS.values())), **extra)
    return folder / "v.npz"


@pytest.mark.parametrize("file_format", FILES)
def test_every_form_ranks_words_by_count_then_by_appearance(file_format, tmp_path):
    vocabulary = read_vocabulary(store(tmp_path, file_format), token_counts=TOKENS)
    assert vocabulary.words == ["<pad>", "door", "person", "the"]
    np.testing.assert_array_equal(vocabulary.vectors, [[0, 0], [1, 2], [3, 4], [5, 6]])
    assert vocabulary.vectors.dtype == np.float32
    assert vocabulary.num_available == 3


@pytest.mark.parametrize("file_format", FILES)
def test_vocab_size_cuts_the_least_frequent(file_format, tmp_path):
    vocabulary = read_vocabulary(store(tmp_path, file_format), token_counts=TOKENS, vocab_size=2)
    assert vocabulary.words == ["<pad>", "door", "person"] and vocabulary.num_available == 3


@pytest.mark.parametrize("file_format", ["published_pickle", "npz"])
def test_counts_of_the_file_win_over_those_of_the_annotations(file_format, tmp_path):
    counts = {"door": 1, "person": 2, "the": 5, "cat": 9}
    vocabulary = read_vocabulary(store(tmp_path, file_format, counts), token_counts=TOKENS)
    assert vocabulary.words == ["<pad>", "cat", "the", "person", "door"]
    assert vocabulary.counts_from == "file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a published vocabulary"),
        ({"w2id": {}, "id2vec": []}, "not a published vocabulary"),
        ({"w2id": {}, "id2vec": [], "counter": {"door": 1}}, "a counted word has no vector"),
        ({"w2id": {"door": 1}, "id2vec": [], "counter": {"door": 1}}, "a counted word has no vector"),
        ({"w2id": {"door": 0}, "id2vec": [[1.0]], "counter": {"door": "many"}}, "does not count words"),
        (
            {"w2id": {"a": 0, "b": 1}, "id2vec": [[1.0], [1.0, 2.0]], "counter": {"a": 1, "b": 1}},
            "vectors have the shapes",
        ),
        ({"w2id": {"a": 0}, "id2vec": [[np.nan]], "counter": {"a": 1}}, "'a' has NaN"),
    ],
)
def test_pickles_of_another_form_are_refused(content, message, tmp_path):
    (tmp_path / "glove.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path / "glove.pkl", token_counts=TOKENS)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"words": np.array(["a"])}, "expected words, vectors and optionally counts"),
        ({"words": np.array(["a"]), "vectors": np.zeros((2, 3))}, "do not fit together"),
        ({"words": np.array(["a"]), "vectors": np.zeros(1)}, "do not fit together"),
        ({"words": np.array(["a", "a"]), "vectors": np.zeros((2, 3))}, "'a' occurs twice"),
        ({"words": np.arange(2), "vectors": np.zeros((2, 3))}, "words are int64"),
        ({"words": np.array(["a"]), "vectors": np.zeros((1, 3)), "counts": np.array([np.nan])}, "not all finite"),
        ({"words": np.array(["a"], dtype=object), "vectors": np.zeros((1, 3))}, "v.npz: holds Python objects"),
    ],
)
def test_npz_files_of_another_form_are_refused(entries, message, tmp_path):
    np.savez(tmp_path / "v.npz", **entries)
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path / "v.npz", token_counts=TOKENS)


def test_an_unknown_extension_asks_for_the_format(tmp_path):
    with pytest.raises(ValueError, match="name it with --vocabulary-format: published_pickle, glove_text, npz"):
        read_vocabulary(tmp_path / "v.bin", token_counts=TOKENS)
    named = store(tmp_path, "glove_text").rename(tmp_path / "v.bin")
    assert len(read_vocabulary(named, token_counts=TOKENS, file_format="glove_text").words) == 4


def test_the_published_pickle_gives_the_published_classes():
    path = shared_path("data/glove/charades_glove.pkl")
    vocabulary = read_vocabulary(path, token_counts=Counter(), vocab_size=1111)
    assert vocabulary.vectors.shape == (1112, 300) and vocabulary.num_available == 1145
    assert vocabulary.words[:3] == ["<pad>", ".", "person"]
    np.testing.assert_array_equal(
        vocabulary.vectors[vocabulary.words.index("the"), :3], np.array([0.04656, 0.21318, -0.0074364], np.float32)
    )
    assert type(load_published_pickle(path)["counter"]) is collections.Counter


@pytest.mark.parametrize("file_format", FILES)
def test_capitals_are_matched_in_lower_case_and_told(file_format, tmp_path, monkeypatch):
    stored = {"DOOR": [1.0, 2.0], "Door": [9.0, 9.0], "Person": [0.0, 1.0], "person": [3.0, 4.0], "É": [5.0, 6.0]}
    monkeypatch.setitem(globals(), "VECTORS", stored)
    counts = dict.fromkeys(stored, 2)
    path = store(tmp_path, file_format, counts)
    vocabulary = read_vocabulary(path, token_counts=Counter({"door": 3, "person": 2, "é": 1}))
    assert vocabulary.words == ["<pad>", "door", "person", "é"]
    np.testing.assert_array_equal(vocabulary.vectors[1:], [[1, 2], [3, 4], [5, 6]])
    assert len(vocabulary.notes) == 1 and "matched in lower case" in vocabulary.notes[0]


def test_an_encoder_encodes_each_word_of_the_annotations_alone(tmp_path, monkeypatch):
    asked = []

    def run(sentences):
        asked.append(sentences)
        return np.array([[len(word), 1.0] for word in sentences], dtype=np.float32)

    encoder = SentenceEncoder(name="E@1", width=2, pooling="mean", run=run)
    monkeypatch.setattr(vocabulary_module, "open_encoder", lambda named: encoder)
    (tmp_path / "config.json").write_text("{}")
    assert detect_vocabulary_format(tmp_path) == "encoder"
    vocabulary = read_vocabulary(tmp_path, token_counts=TOKENS, vocab_size=3)
    assert asked == [list(TOKENS)]
    assert vocabulary.words == ["<pad>", "zzz", "door", "person"] and vocabulary.encoder == "E@1"
    np.testing.assert_array_equal(vocabulary.vectors, [[0, 0], [3, 1], [4, 1], [6, 1]])
    assert vocabulary.counts_from == "annotations" and vocabulary.num_available == 4
    named = read_vocabulary(Path("some/name"), token_counts=TOKENS, file_format="encoder")
    assert named.words == ["<pad>", "zzz", "door", "person", "the"]


@pytest.mark.parametrize("kind", ["npz", "pickle of Python 2"])
def test_words_stored_as_bytes_are_read(kind, tmp_path):
    if kind == "npz":
        path = tmp_path / "v.npz"
        np.savez(path, words=np.array([b"door", "é".encode()]), vectors=np.ones((2, 3)))
    else:
        path = tmp_path / "v.pkl"
        # a dict of texts of Python 2, with id2vec a list of lists
        path.write_bytes(
            b"(dp0\nS'w2id'\np1\n(dp2\nS'door'\np3\nI0\nsU\x02\xc3\xa9p4\nI1\nssS'id2vec'\np5\n"
            b"(lp6\n(lp7\nF1.0\naa(lp8\nF2.0\naasS'counter'\np9\n(dp10\ng3\nI5\nsg4\nI4\nss."
        )
    assert read_vocabulary(path, token_counts=Counter({"door": 2, "é": 1})).words == ["<pad>", "door", "é"]


def test_shared_lists_cannot_multiply_and_tables_beyond_the_memory_are_refused(tmp_path, monkeypatch):
    nested: list = [1.0]
    for _ in range(40):
        nested = [nested, nested]
    content = {"w2id": {"a": 0}, "id2vec": [nested], "counter": {"a": 1}}
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="a counted word has no vector"):
        read_vocabulary(tmp_path / "bomb.pkl", token_counts=TOKENS)
    path = store(tmp_path, "published_pickle")
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: path.stat().st_size * 8 + 1)
    shared = [0.0] * 300
    content = {
        "w2id": dict.fromkeys(map(str, range(900)), 0),
        "id2vec": [shared],
        "counter": Counter(map(str, range(900))),
    }
    path.write_bytes(pickle.dumps(content))
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: 1 << 20)
    with pytest.raises(ValueError, match="its vectors needs 2.1 MiB of memory"):
        read_vocabulary(path, token_counts=TOKENS)
