"""Learned tokens stand where they should, and hidden words are gone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from pps_fast.config import PPSConfig
from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.embedding import WORD_CLS, Embedding
from pps_fast.encoder.positions import Positions
from pps_fast.randomness import dropout, mix
from tests.support.cases import SIZES, random_batch, randomize, small_config, take
from tests.support.compare import assert_agree

SCALAR = small_config(reconstructor__word_cls="scalar_per_batch_position")
BATCH = random_batch(dtype=torch.float64)
NOTHING = torch.zeros(4, 9, dtype=torch.bool)
POSITIONS = Positions(SCALAR.encoder.hidden_dim)


def _embedding(config: PPSConfig | None = None) -> Embedding:
    return randomize(Embedding(config or small_config(), SIZES).double().eval())


def test_frames_are_projected_without_positions_and_v_cls_is_last() -> None:
    embed = _embedding()
    got = embed.frames(BATCH, None)
    weight, bias = embed.frame_projection.weight, embed.frame_projection.bias
    assert_agree("frames", got[:, :-1], BATCH.frames @ weight.T + bias, atol=1e-13)
    expected = (weight @ embed.frame_cls + bias).expand(4, -1)
    assert_agree("v_cls", got[:, -1], expected, atol=1e-13)


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_v_cls_drops_as_the_row_behind_the_frames(precision: str) -> None:
    embed, dropout_key = _embedding(small_config(encoder__dropout=0.5)), BATCH.dropout_key
    number_sites(embed)
    rows = torch.cat((BATCH.frames, embed.frame_cls.expand(4, 1, -1)), 1)
    dropped = dropout(rows, mix(dropout_key, embed.frame_dropout.site), 0.5)
    batch = BATCH
    if precision == "bf16":
        embed, batch, dropped = embed.float(), BATCH.to(dtype=torch.float32), dropped.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        got, expected = embed.frames(batch, dropout_key), embed.frame_projection(dropped)
    assert_agree("frames", got, expected, atol=1e-13 if precision == "fp64" else 0)


def test_the_query_is_the_start_token_and_the_words_with_positions() -> None:
    embed = _embedding()
    words = torch.cat((embed.start_word.expand(4, 1, -1), BATCH.words), 1)
    expected = POSITIONS(words @ embed.word_projection.weight.T + embed.word_projection.bias)
    assert_agree("query", embed.query(BATCH, None), expected, atol=1e-13)


def test_without_hidden_words_the_hidden_query_is_the_query_with_q_cls_behind_the_last_word() -> None:
    embed = _embedding()
    got, query = embed.hidden_query(BATCH, NOTHING, None), embed.query(BATCH, None)
    bare = embed.word_cls.expand(4, 11, -1)
    for b, length in enumerate(BATCH.num_words.tolist()):
        assert_agree("words", got[b, : length + 1], query[b, : length + 1], atol=1e-13)
        assert_agree("q_cls", got[b, length + 1], POSITIONS(bare)[b, length + 1], atol=1e-13)


def test_hidden_words_are_replaced_and_their_content_does_not_matter() -> None:
    embed, is_hidden = _embedding(), NOTHING.clone()
    is_hidden[0, 1] = is_hidden[1, 0] = is_hidden[1, 6] = True
    changed = replace(BATCH, words=BATCH.words + 3.0 * is_hidden.unsqueeze(-1))
    got = embed.hidden_query(BATCH, is_hidden, None)
    assert_agree("hidden", embed.hidden_query(changed, is_hidden, None), got)
    expected = POSITIONS(embed.word_projection(embed.hidden_word).expand(1, 11, -1))[0]
    for b, word in is_hidden.nonzero().tolist():
        assert_agree("replacement", got[b, word + 1], expected[word + 1], atol=1e-13)
    open_slots = ~torch.nn.functional.pad(is_hidden, (1, 1))
    assert_agree("others", got[open_slots], embed.hidden_query(BATCH, NOTHING, None)[open_slots])


def test_the_batch_is_left_as_it_was() -> None:
    embed, before = _embedding(), BATCH.words.clone()
    embed.query(BATCH, None)
    embed.hidden_query(BATCH, ~NOTHING, None)
    assert_agree("words", BATCH.words, before)
    assert not BATCH.words.requires_grad


def test_a_vector_word_cls_does_not_depend_on_the_place_in_the_batch() -> None:
    embed, order = _embedding(), [2, 0, 3, 1]
    moved = embed.hidden_query(take(BATCH, order), NOTHING, None)
    assert_agree("moved", moved, embed.hidden_query(BATCH, NOTHING, None)[order], atol=1e-13)


def test_a_scalar_word_cls_fills_the_slot_of_sample_b_with_entry_b_before_the_projection() -> None:
    embed = _embedding(SCALAR)
    got = embed.hidden_query(BATCH, NOTHING, None)
    weight, bias = embed.word_projection.weight, embed.word_projection.bias
    for b, length in enumerate(BATCH.num_words.tolist()):
        bare = (embed.word_cls[b] * weight.sum(1) + bias).expand(1, 11, -1)
        assert_agree("q_cls", got[b, length + 1], POSITIONS(bare)[0, length + 1], atol=1e-13)


def test_a_scalar_word_cls_refuses_more_samples_than_it_has_entries() -> None:
    embed = _embedding(SCALAR)
    width = SCALAR.encoder.hidden_dim
    largest = random_batch((2,) * width, 3, dtype=torch.float64)
    assert embed.hidden_query(largest, torch.zeros(width, 3).bool(), None).shape == (width, 5, width)
    batch = random_batch((2,) * (width + 1), 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"batch of {width + 1} samples: .+ only encoder.hidden_dim = {width}"):
        embed.hidden_query(batch, torch.zeros(width + 1, 3).bool(), None)


def test_learned_tokens_start_at_zero() -> None:
    embed = Embedding(small_config(), SIZES)
    for token in (embed.frame_cls, embed.start_word, embed.hidden_word, embed.word_cls):
        assert_agree("token", token, torch.zeros_like(token))


def _ancestors(**changes) -> PPSConfig:
    """A config whose reconstructor has no word CLS, as nothing is read from it."""
    return small_config(proposals__layout="uniform", reconstructor__word_cls="none", **changes)


def test_reused_words_are_the_query_without_the_last_but_for_the_hidden_ones() -> None:
    embed = _embedding(_ancestors(reconstructor__word_tokens="reused", encoder__dropout=0.5))
    dropout_key = BATCH.dropout_key
    number_sites(embed)
    for key_or_none in (None, dropout_key):
        expected = embed.query(BATCH, key_or_none)[:, :-1]
        assert_agree("words", embed.hidden_query(BATCH, NOTHING, key_or_none), expected)
    is_hidden = NOTHING.clone()
    is_hidden[1, 2] = is_hidden[0, 8] = True
    got, query = embed.hidden_query(BATCH, is_hidden, dropout_key), embed.query(BATCH, dropout_key)[:, :-1]
    replaced = (got != query).any(-1).nonzero()
    # the last of the columns has no slot
    assert replaced.tolist() == [[1, 3]]
    expected = POSITIONS(embed.word_projection(embed.hidden_word).expand(1, 9, -1))[0, 3]
    assert_agree("replacement", got[1, 3], expected, atol=1e-13)


def test_without_v_cls_the_frames_are_projected_alone() -> None:
    embed = _embedding(small_config(encoder__frame_summary="last_frame"))
    weight, bias = embed.frame_projection.weight, embed.frame_projection.bias
    assert_agree("frames", embed.frames(BATCH, None), BATCH.frames @ weight.T + bias, atol=1e-13)
    assert "frame_cls" not in dict(embed.named_parameters())


def test_without_q_cls_its_slot_depends_on_nothing() -> None:
    embed = _embedding(_ancestors())
    assert "word_cls" not in dict(embed.named_parameters())
    bare = POSITIONS(embed.word_projection.bias.expand(1, 11, -1))[0]
    got = embed.hidden_query(BATCH, NOTHING, None)
    for b, length in enumerate(BATCH.num_words.tolist()):
        assert_agree("slot", got[b, length + 1], bare[length + 1], atol=1e-13)


@pytest.mark.parametrize("word_cls", sorted(set(WORD_CLS) - {"none"}))
def test_every_kind_of_word_cls_passes_a_gradient_back(word_cls: str) -> None:
    embed = _embedding(small_config(reconstructor__word_cls=word_cls))
    (embed.hidden_query(BATCH, NOTHING, None) ** 2).sum().backward()
    used = embed.word_cls.grad[:4] if word_cls == "scalar_per_batch_position" else embed.word_cls.grad
    assert (used != 0).all()


def test_dropout_of_the_inputs_needs_a_key_and_differs_from_site_to_site() -> None:
    embed, dropout_key = _embedding(small_config(encoder__dropout=0.5)), BATCH.dropout_key
    number_sites(embed)
    methods = (embed.frames, embed.query, partial(embed.hidden_query, is_hidden=NOTHING))
    for method in methods:
        assert_agree("again", method(BATCH, dropout_key=dropout_key), method(BATCH, dropout_key=dropout_key))
        assert (method(BATCH, dropout_key=dropout_key) - method(BATCH, dropout_key=None)).abs().max() > 1e-3
    # the same words at two sites
    query, hidden = methods[1](BATCH, dropout_key=dropout_key), methods[2](BATCH, dropout_key=dropout_key)
    assert (query[:, 0] - hidden[:, 0]).abs().max() > 1e-3
