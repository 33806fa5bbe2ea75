"""New sentences become what a prepared file has for the same words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.data.store import Store
from pps_fast.ground.sentences import ModelWords, encode_queries
from tests.support.eval_fakes import DATA


def _known(max_num_words: int = DATA.word_ids.shape[1]) -> ModelWords:
    return ModelWords(
        words=DATA.words, vectors=torch.from_numpy(DATA.word_vectors), max_num_words=max_num_words, seed=0
    )


def test_a_sentence_is_encoded_as_in_the_data_set() -> None:
    samples = np.array([0, 5, 9])
    queries = encode_queries([DATA.sentences[sample] for sample in samples], _known(), None, 0)
    batch = Store(DATA).batch(samples, seed=0)
    for name in ("words", "word_ids", "num_words"):
        torch.testing.assert_close(getattr(queries.batch, name), getattr(batch, name))
    torch.testing.assert_close(queries.batch.hide_prob, batch.hide_prob)
    # noise of the first sample of a data set, for every sentence
    assert torch.equal(queries.batch.word_noise, batch.word_noise[:1].expand(3, -1))


def test_words_after_the_last_that_count_are_cut_and_counted() -> None:
    queries = encode_queries(["person opens the door .", "door"], _known(3), None, 0)
    assert queries.num_cut == (2, 0) and queries.batch.word_ids.shape == (2, 3)


@pytest.mark.parametrize(
    ("sentences", "vectors", "width", "message"),
    [
        ([], None, 0, "no sentence; ask one at least"),
        (["!!"], None, 0, "'!!': no word that the model knows .it has no word"),
        (["door"], None, 4, r"fitted to vectors of whole sentences.* sentence_vectors \[sentences, 4\]"),
        (["door"], np.ones(3), 4, r"sentence_vectors: shape \[1, 3\]"),
        (["door"], np.array([1, 2, 3, np.nan]), 4, "expected finite numbers"),
        (["door", "cup"], np.ones((1, 4)), 4, r"expected finite numbers \[2, 4\], a row for each sentence"),
    ],
)
def test_what_cannot_be_asked_is_refused(sentences, vectors, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_queries(sentences, _known(), vectors, width)


def test_a_model_of_sentence_vectors_alone_knows_every_word() -> None:
    queries = encode_queries(["zebrafish"], _known(), np.ones(4), 4, reads_words=False)
    assert queries.batch.sentence.shape == (1, 4) and queries.unknown_words == ((),)
    with pytest.raises(ValueError, match="'zebrafish': no word that the model knows"):
        encode_queries(["zebrafish"], _known(), np.ones(4), 4)
    queries = encode_queries(["door zebrafish"], _known(), np.ones(4), 4)
    assert queries.batch.sentence.shape == (1, 4) and queries.unknown_words == (("zebrafish",),)
