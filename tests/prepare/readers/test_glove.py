"""Word vectors as text: streamed, whatever divides and surrounds them."""

from __future__ import annotations

import codecs
from collections import Counter

import numpy as np
import pytest

from pps_fast.prepare.readers.glove import read_glove_text
from pps_fast.prepare.readers.vocabulary import read_vocabulary

TOKENS = Counter({"the": 1, "door": 3, "person": 3, "zzz": 9})


def test_a_number_beyond_float32_becomes_infinite_without_a_warning(tmp_path):
    (tmp_path / "glove.txt").write_text("door 1 1e300\n")
    assert np.isinf(read_glove_text(tmp_path / "glove.txt", Counter(["door"]))["door"]).tolist() == [False, True]


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


def test_editors_marks_tabs_line_ends_and_blank_lines_do_not_matter(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(codecs.BOM_UTF8 + b"door\t1\t2\r\nperson 3 4 \r\n\r\n")
    vectors = read_glove_text(path, TOKENS)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {"door": [1, 2], "person": [3, 4]}


REFUSED = {
    "UTF-16": ("door 1".encode("utf-16"), "v.txt: is text in UTF-16; save it as UTF-8"),
    "no line ends": (b"a " * (1 << 21), "v.txt: line 1 is longer than 4,194,304 bytes"),
    "header of a giant": (b"1 99999999999999\ndoor 1\n", "line 1: vectors of width 9999999999"),
    "a word alone": (b"door\n", "line 1: expected a word and its numbers"),
    "long number": (b"door " + b"x" * 9000, "line 1: could not convert string to float: .*not GloVe text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_of_vectors_is_told_why(name, tmp_path):
    content, words = REFUSED[name]
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_glove_text(tmp_path / "v.txt", TOKENS)
    assert len(str(caught.value)) <= 1000
