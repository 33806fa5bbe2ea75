"""Pickles of plain containers, numbers, texts, numpy arrays and Counters, of every protocol, read without running them.

A pickle is a program that calls what it names. Here every name on the list stands for a small class or function of this
file, which checks what it is called with; any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from pps_fast.pickle_checks import check_pickle
from pps_fast.reading import Refused


class Disallowed(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list; the message says what."""


class _Dtype:
    """Stands for numpy.dtype: its name, and the byte order that follows in the state."""

    def __init__(self, name: str | bytes, *options: object) -> None:
        self.dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
        if self.dtype.kind not in "fiu":
            raise Disallowed(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        is_big = state[1] in (">", b">")
        if not is_big and state[1] not in ("<", "=", "|", b"<", b"=", b"|"):
            raise ValueError("unknown byte order")
        self.dtype = self.dtype.newbyteorder(">" if is_big else "<")


class _Array:
    """Stands for numpy.ndarray: an array whose shape, dtype and bytes follow in the state."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.zeros(0) if values is None else values

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.values = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: bytes | bytearray, dtype: _Dtype, shape: Any, order: str) -> np.ndarray:
    if not isinstance(content, bytes | bytearray) or math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise ValueError("the bytes of an array are not those of its shape")
    native = np.frombuffer(content, dtype=dtype.dtype).astype(dtype.dtype.newbyteorder("="))
    return native.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _frombuffer(content: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> _Array:
    values = _array(content, dtype, shape, order)
    return _Array(values if axes is None else values.transpose(axes))


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _array(content, dtype, (1,), "C")[0].item()


def _encode(text: str, encoding: str) -> bytes:
    # protocols below 3 have no bytes and store them so
    if encoding not in ("latin1", b"latin1"):
        raise Disallowed(f"the encoding {encoding}")
    return text.encode("latin1")


def _bytes(*content: bytes) -> bytes:
    # a number would ask for that many zeros
    if content and not isinstance(content[0], bytes | bytearray):
        raise Disallowed("bytes made of something else")
    return bytes(*content)


def _counter(content: Any = ()) -> Counter[Any]:
    if content != () and not isinstance(content, dict):
        raise Disallowed("a Counter of something else")
    return Counter(dict(content))


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    # numpy has renamed its inner modules
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encode,
    **{(module, name): _bytes for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
}


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Disallowed(f"{module}.{name}")
        return _ALLOWED[module, name]


def load_plain_pickle(data: bytes) -> Any:
    """Returns what a pickle holds; arrays as numpy arrays, texts of Python 2 as str.

    Raises:
        Disallowed: for a pickle that asks for anything else; the message says for what.
        Refused: for numbers, or tuples as names, that only an attack has, or a text that is not UTF-8.
        Others of `reading.FAILURES`: for a pickle that is truncated or damaged.
    """
    check_pickle(io.BytesIO(data), len(data))
    # texts of Python 2 and the bytes of its arrays look the same
    return _plain(_AllowListUnpickler(io.BytesIO(data), encoding="bytes").load(), depth=3)


def _plain(value: Any, depth: int) -> Any:
    """Returns a value with numpy arrays for _Array and str for bytes, in dicts and lists to a depth."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(f"a text in it is not UTF-8 ({value[:40]!r}); store texts as UTF-8") from error
    if depth and isinstance(value, Counter):
        return Counter({_plain(name, 0): count for name, count in value.items()})
    if depth and isinstance(value, dict):
        return {_plain(name, 0): _plain(content, depth - 1) for name, content in value.items()}
    if depth and isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    return value
