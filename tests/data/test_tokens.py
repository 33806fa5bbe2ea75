"""Tokens and hiding probabilities: the Treebank rules, and the published counts on the real sentences."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pps_fast.data.tokens import (
    FUNCTION_WORDS,
    count_tokens,
    encode_sentences,
    hiding_probabilities,
    tokenize,
    word_weight,
)
from pps_fast.prepare.readers.vocabulary import load_published_pickle
from tests.support.shared import shared_path


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("Person turns a light on.", "person turns a light on ."),
        ("a man's dog don't sit", "a man 's dog do n't sit"),
        ("it's i'm we'll they've you're he'd CAN'T", "it 's i 'm we 'll they 've you 're he 'd ca n't"),
        ("they cannot go, gonna gimme; wanna gotta", "they can not go , gon na gim me ; wan na got ta"),
        ("the dogs' bowl and 'hello' 'tis", "the dogs ' bowl and ' hello ' ' tis"),
        ('the "cup" said "hi."', "the `` cup '' said `` hi . ''"),
        ("3,000 a,b x: y 10:30 50% $5 #1 a&b", "3,000 a , b x : y 10:30 50 % $ 5 # 1 a & b"),
        ("wow!? -- yes--no... e.g. mr. smith", "wow ! ? -- yes -- no ... e.g. mr. smith"),
        ("and/or well-known u.s. end.", "and/or well-known u.s. end ."),
        ("a person (in red).", "a person ( in red ) ."),
        ("“quoted” the man’s", "“ quoted ” the man ’ s"),
        ("x. y. z.", "x. y. z ."),
        ("wait..", "wait .."),
        (" \n ", ""),
    ],
)
def test_sentences_split_by_the_treebank_rules(sentence, tokens):
    assert tokenize(sentence) == tokens.split()


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (2, "person opens door quickly red is are then how not down where n't again"),
        (1, "a the their they of in to and or that which some two one can will there . , # 2 3,000 '' --"),
    ],
)
def test_content_words_weigh_two_and_closed_classes_numbers_and_marks_one(weight, words):
    assert {word: word_weight(word) for word in words.split()} == dict.fromkeys(words.split(), weight)


def test_hiding_probabilities_are_the_softmax_of_the_weights():
    probabilities = hiding_probabilities(["person", "on", "."])
    total = math.exp(2) + 2 * math.exp(1)
    np.testing.assert_allclose(probabilities, [math.exp(2) / total, math.e / total, math.e / total], rtol=1e-15)


def test_encoding_drops_unknown_words_then_cuts_then_takes_the_softmax():
    words = ["<pad>", "door", "the", "person", "."]
    encoded = encode_sentences(["The zzz person opens the door.", "zzz", "<pad> door"], words, max_num_words=4)
    np.testing.assert_array_equal(encoded.word_ids, [[2, 3, 2, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(encoded.num_words, [4, 0, 1])
    np.testing.assert_array_equal(encoded.num_unknown[:2], [2, 1])
    np.testing.assert_array_equal(encoded.num_cut, [1, 0, 0])
    np.testing.assert_array_equal(encoded.num_content, [2, 0, 1])
    np.testing.assert_allclose(encoded.hide_prob.sum(axis=1), [1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(encoded.hide_prob[0, 1] / encoded.hide_prob[0, 0], math.e, rtol=1e-6)
    kept = encoded.keep(np.array([True, False, True]))
    np.testing.assert_array_equal(kept.word_ids, encoded.word_ids[[0, 2]])
    assert kept.num_cut.tolist() == [1, 0]


def test_tokens_are_counted_in_order_of_first_appearance():
    assert list(count_tokens(["b a", "A c b"]).items()) == [("b", 2), ("a", 2), ("c", 1)]


def test_function_words_are_lower_case_tokens():
    assert 150 <= len(FUNCTION_WORDS) <= 220
    assert all(word == word.lower() and word_weight(word) == 1 for word in FUNCTION_WORDS)


def test_hiding_probabilities_equal_the_published_ones():
    golden = np.load(Path(__file__).parents[1] / "golden" / "kernels_f64.npz")
    words = ["door" if weight == 2 else "the" for weight in golden["word_weight/tag_weight"]]
    np.testing.assert_allclose(hiding_probabilities(words), golden["word_weight/p"], rtol=1e-6)


@pytest.fixture(scope="module")
def charades() -> tuple[list[str], list[str], Counter[str]]:
    train, test = (
        json.loads(shared_path(f"data/charades_sta/pps_{split}.json").read_text()) for split in ("train", "test")
    )
    counter = load_published_pickle(shared_path("data/glove/charades_glove.pkl"))["counter"]
    return [row[3] for row in train], [row[3] for row in test], counter


def test_token_counts_of_charades_equal_the_published_counter(charades):
    train, test, published = charades
    counts = count_tokens(train + test)
    assert len(published) == 1145
    assert {word: counts[word] for word in published} == dict(published)


def test_lengths_and_share_of_content_words_of_charades_are_the_measured_ones(charades):
    train, _, published = charades
    words = ["<pad>", *(word for word, _ in published.most_common(1111))]
    encoded = encode_sentences(train, words, max_num_words=20)
    assert round(float(encoded.num_words.mean()), 2) == 7.25
    expected = {3: 1, 4: 540, 5: 1653, 6: 2092, 7: 1844, 8: 1553, 9: 1299, 10: 952, 11: 656, 12: 7, 13: 5}
    assert dict(Counter(encoded.num_words.tolist())) == expected
    assert encoded.num_cut.sum() == 0
    assert 0.51 <= encoded.num_content.sum() / encoded.num_words.sum() <= 0.53
