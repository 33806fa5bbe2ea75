"""Pickles that must not run: plain ones of every protocol are read, all others refused."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import Counter
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest

from pps_fast.prepare.readers.plain_pickle import load_plain_pickle
from pps_fast.prepare.readers.vocabulary import load_published_pickle
from pps_fast.reading import FAILURES, Refused

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big end": np.arange(3, dtype=">f8"),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10.0)[::3],
    "int8": np.arange(-2, 2, dtype=np.int8),
    "no values": np.zeros((0, 4), dtype=np.float16),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_every_protocol_gives_the_same_arrays_counters_and_numbers(name, protocol):
    content = {"x": [ARRAYS[name], ARRAYS[name]], "n": Counter({"é": 2, "b": 1}), "s": np.float32(0.5)}
    read = load_plain_pickle(pickle.dumps(content, protocol=protocol))
    for array in read["x"]:
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype.newbyteorder("=")
    assert type(read["n"]) is Counter and read["n"] == content["n"] and read["s"] == 0.5


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


def colliding_tuples(bits: int) -> bytes:
    """A pickled dictionary whose 2 ** bits keys, tuples of -1 and -2, all have one hash; building it takes minutes."""
    minus = {"0": pickle.BININT + b"\xff\xff\xff\xff", "1": pickle.BININT + b"\xfe\xff\xff\xff"}
    tuples = (b"".join(minus[bit] for bit in f"{n:0{bits}b}") for n in range(2**bits))
    items = b"".join(pickle.MARK + numbers + pickle.TUPLE + pickle.BININT1 + b"\x00" for numbers in tuples)
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


BOMBS = {
    "colliding tuples": colliding_tuples(16),
    "a hash that takes for ever": b"\x80\x02}K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",
    "place in the memory": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "colliding numbers": pickle.dumps({k * (2**61 - 1): 0 for k in range(1, 9)}),
    "bytes of zeros": b"cbuiltins\nbytes\n(I100000000000\ntR.",
    "shape without bytes": pickle.dumps(np.zeros(3), protocol=2).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "Counter of a text": b"ccollections\nCounter\n(VAAAA\ntR.",
    "encoding": b"c_codecs\nencode\n(VAAAA\nVrot13\ntR.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_allocate(name):
    with pytest.raises((UnpicklingError, Refused, ValueError)):
        load_plain_pickle(BOMBS[name])


def test_colliding_tuples_are_what_they_are_called():
    small = pickle.loads(colliding_tuples(3))
    assert small == dict.fromkeys(itertools.product((-1, -2), repeat=3), 0) and len(set(map(hash, small))) == 1


def test_texts_of_python_2_beyond_ascii_are_read_as_utf_8():
    content = b"(dS'w2id'\n(dS'caf\xc3\xa9'\nI0\nssS'counter'\n(dV\xe9t\xe9\nI1\nss."
    assert load_plain_pickle(content) == {"w2id": {"café": 0}, "counter": {"été": 1}}
    with pytest.raises(Refused, match=r"a text in it is not UTF-8 .*store texts as UTF-8"):
        load_plain_pickle(b"(dS'caf\xe9'\nI0\ns.")


def test_mutated_pickles_give_values_or_a_known_failure():
    rng = np.random.default_rng(0)
    good = pickle.dumps({"x": [np.ones(3)], "n": Counter("ab")}, protocol=4)
    for _ in range(2000):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        try:
            load_plain_pickle(bytes(data))
        except FAILURES:
            pass
