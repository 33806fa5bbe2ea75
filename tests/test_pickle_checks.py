"""Pickles that would take for ever, or all memory, are refused by their opcodes."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pps_fast.pickle_checks import check_pickle
from pps_fast.reading import Refused


def _check(content: bytes) -> None:
    check_pickle(io.BytesIO(content), len(content))


PLAIN: list[Any] = [
    {"w2id": {"door": 1, "café": 2}, "id2vec": [np.zeros(3), np.ones(3)], "counter": Counter({"door": 2})},
    [(1, 2), {"x": (1, (2, 3))}, {1, "x"}, [], {}, None, True, 1.5, -(2**50), b"bytes", "text"],
    {1: 2, 2.5: 3, b"x": 4, "y": {"z": ()}},
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_plain_data_pass_in_every_protocol(number, protocol):
    _check(pickle.dumps(PLAIN[number], protocol=protocol))


def _colliding(count: int) -> dict[Any, int]:
    # hash(-1) == hash(-2): all tuples of these two numbers have one hash
    return {tuple(-1 - (number >> bit & 1) for bit in range(12)): number for number in range(count)}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("content", [_colliding(9), {"w2id": _colliding(1)}, Counter(_colliding(2)), {(): 1}])
def test_tuples_and_sets_as_names_are_refused(content, protocol):
    with pytest.raises(Refused, match="has tuples or sets as names"):
        _check(pickle.dumps(content, protocol=protocol))


@pytest.mark.parametrize("content", [{frozenset([1]): 2}, {(1, 2)}, frozenset([(1, 2)])])
def test_sets_are_refused_where_they_are_opcodes(content):
    # before, they were calls of a class that no reader of ours allows
    with pytest.raises(Refused, match="has tuples or sets as names"):
        _check(pickle.dumps(content, protocol=4))


def test_a_tuple_whose_hash_takes_for_ever_is_refused_before_it_is_hashed():
    # t = (t, t), sixty times, as the name of an entry
    content = b"\x80\x02}K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s."
    with pytest.raises(Refused, match="tuples or sets"):
        _check(content)
    stored_and_fetched = b"\x80\x02}K\x01K\x02\x86q\x000h\x00K\x01s."
    with pytest.raises(Refused, match="tuples or sets"):
        _check(stored_and_fetched)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x80\x02K\x01r\xff\xff\xff\x7f.", "a number of 31 bits"), (b"L" + b"9" * 30 + b"L\n.", "a number of 100 bits")],
)
def test_numbers_and_places_that_only_an_attack_has_are_refused(content, message):
    with pytest.raises(Refused, match=message):
        _check(content)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"\xff.", b"S'x", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f."]
)
def test_damaged_pickles_are_refused(content):
    with pytest.raises((ValueError, KeyError, IndexError)):
        _check(content)


def test_texts_of_python_2_need_not_be_ascii():
    _check(b"S'caf\xc3\xa9'\n.")
