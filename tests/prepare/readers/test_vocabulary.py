"""Vocabulary readers: ranks, vectors, and pickles that must not run."""

from __future__ import annotations

import collections
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pps_fast.prepare.readers.vocabulary import VOCABULARY_READERS, load_published_pickle, read_vocabulary
from tests.support.shared import shared_path

VECTORS = {"door": [1.0, 2.0], "person": [3.0, 4.0], "the": [5.0, 6.0], "cat": [7.0, 8.0]}
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


@pytest.mark.parametrize("file_format", VOCABULARY_READERS)
def test_every_form_ranks_words_by_count_then_by_appearance(file_format, tmp_path):
    vocabulary = read_vocabulary(store(tmp_path, file_format), token_counts=TOKENS)
    assert vocabulary.words == ["<pad>", "door", "person", "the"]
    np.testing.assert_array_equal(vocabulary.vectors, [[0, 0], [1, 2], [3, 4], [5, 6]])
    assert vocabulary.vectors.dtype == np.float32
    assert vocabulary.num_available == 3


@pytest.mark.parametrize("file_format", VOCABULARY_READERS)
def test_vocab_size_cuts_the_least_frequent(file_format, tmp_path):
    vocabulary = read_vocabulary(store(tmp_path, file_format), token_counts=TOKENS, vocab_size=2)
    assert vocabulary.words == ["<pad>", "door", "person"] and vocabulary.num_available == 3


@pytest.mark.parametrize("file_format", ["published_pickle", "npz"])
def test_counts_of_the_file_win_over_those_of_the_annotations(file_format, tmp_path):
    counts = {"door": 1, "person": 2, "the": 5, "cat": 9}
    vocabulary = read_vocabulary(store(tmp_path, file_format, counts), token_counts=TOKENS)
    assert vocabulary.words == ["<pad>", "cat", "the", "person", "door"]
    assert vocabulary.counts_from == "file"


def test_glove_text_with_header_phrases_and_repeated_words_is_read(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("4 2\ndoor 1 2\n. . . 9 9\n. 3 4\ndoor 9 9\nñandú 5 6\n", encoding="utf-8")
    vocabulary = read_vocabulary(path, token_counts=Counter({".": 3, "door": 2, "ñandú": 1}))
    assert vocabulary.words == ["<pad>", ".", "door", "ñandú"]
    np.testing.assert_array_equal(vocabulary.vectors[1:], [[3, 4], [1, 2], [5, 6]])


def test_glove_text_is_streamed(tmp_path):
    path = tmp_path / "v.txt"
    # not UTF-8: decoding the whole file would fail, and only the words that occur are decoded
    path.write_bytes(b"door 1 2\n\xff\xfe 3 4\nperson 5 6\n")
    assert read_vocabulary(path, token_counts=TOKENS).words == ["<pad>", "door", "person"]


class Call:
    """Unpickles to the result of a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(target: Path) -> dict[str, bytes]:
    """Pickles that create `target` when an ordinary unpickler reads them."""
    nested = {"w2id": {"a": 1}, "id2vec": [np.zeros(2)], "counter": Call(os.system, f"touch {target}")}
    dotted = b"Counter.__init__.__globals__"
    return {
        "open": pickle.dumps(Call(open, str(target), "w")),
        "system": pickle.dumps(nested),
        "exec": pickle.dumps(Call(exec, f"open({str(target)!r}, 'w').close()")),
        "old protocol": pickle.dumps(Call(os.system, f"touch {target}"), protocol=0),
        # an attribute of a name on the list
        "dotted": b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(dotted)]) + dotted + b"\x93.",
        "other numpy": b"cnumpy\nsave\n(V" + str(target).encode() + b"\nI1\ntR.",
    }


@pytest.mark.parametrize("attack", sorted(hostile(Path("x"))))
def test_a_hostile_pickle_is_refused_and_runs_nothing(attack, tmp_path):
    (tmp_path / "glove.pkl").write_bytes(hostile(tmp_path / "exploited")[attack])
    with pytest.raises(ValueError, match="glove.pkl: refused: it asks for .*could run code"):
        load_published_pickle(tmp_path / "glove.pkl")
    assert not (tmp_path / "exploited").exists()


def test_the_exploit_works_on_an_ordinary_unpickler(tmp_path):
    # else the test above would prove nothing
    pickle.loads(hostile(tmp_path / "exploited")["exec"])
    assert (tmp_path / "exploited").exists()


def test_arrays_of_objects_are_refused(tmp_path):
    (tmp_path / "glove.pkl").write_bytes(pickle.dumps(np.array([{}], dtype=object)))
    with pytest.raises(ValueError, match="refused: it asks for an array of object"):
        load_published_pickle(tmp_path / "glove.pkl")


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
        ({"words": np.array(["a"], dtype=object), "vectors": np.zeros((1, 3))}, "npz file of plain arrays"),
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
