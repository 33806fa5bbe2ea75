"""What a pickle is going to ask of its reader, seen in its opcodes before any of them is run.

Some pickles of a few kilobytes take a reader for ever: tuples can be built so that all have the same hash, or so that
hashing one takes longer than the age of the universe. As no data of numbers, texts and arrays has tuples or sets as
names of a dict, these are refused; so are numbers and places in the reader's memory that only an attack has.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

from pps_fast.reading import Refused

# equal hashes of different whole numbers need numbers of this size; many of them would make a dict slow
_LARGEST_INT = 1 << 60
# what has no hash that its maker cannot choose
_UNSAFE = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "FROZENSET"})
_MARK = "MARK"
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


def check_pickle(stream: IO[bytes], size: int) -> None:
    """Reads the opcodes of one pickle from a stream, to its end.

    Args:
        size: bytes of the file, beyond which no place in the reader's memory has a sense.
    Raises:
        Refused: for tuples or sets as names of a dict or members of a set, numbers beyond 60 bits, or frozen sets.
        ValueError: for a pickle that is damaged or truncated.
    """
    stack: list[str] = []
    memory: dict[int, str] = {}
    for name, argument in _opcodes(stream):
        _check_number(name, argument, size)
        _run(name, argument, stack, memory)
        if name == "STOP":
            return
    raise ValueError("the pickle has no end")


def _opcodes(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yields name and argument of the opcodes; texts of Python 2 as bytes."""
    while code := stream.read(1):
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise ValueError("no pickle")
        argument = None
        if opcode.name == "STRING":
            if not stream.readline().endswith(b"\n"):
                raise ValueError("the pickle ends within a text")
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
        yield opcode.name, argument


def _check_number(name: str, argument: Any, size: int) -> None:
    if isinstance(argument, int):
        most = size if "PUT" in name else _LARGEST_INT
        if abs(argument) > most:
            what = f"a number of {argument.bit_length()} bits"
            raise Refused(f"holds {what}, as only a damaged or hostile pickle does; fetch it again")


def _run(name: str, argument: Any, stack: list[str], memory: dict[int, str]) -> None:
    """Follows one opcode on a stack of the names of opcodes that have made its values."""
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memory[len(memory) if argument is None else argument] = stack[-1] if stack else ""
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memory.get(argument, ""))
    elif name == _MARK:
        stack.append(_MARK)
    elif name == "DUP":
        stack.extend(stack[-1:])
    elif name == "SETITEM":
        _check_names(stack[-2:-1])
        del stack[-2:]
    elif name in ("SETITEMS", "ADDITEMS", "APPENDS", "DICT", "LIST", "TUPLE", "FROZENSET", "OBJ", "INST", "POP_MARK"):
        values = _take_to_mark(stack)
        if name in ("SETITEMS", "DICT"):
            _check_names(values[::2])
        elif name in ("ADDITEMS", "FROZENSET"):
            _check_names(values)
        if name in ("DICT", "LIST", "TUPLE", "FROZENSET", "OBJ", "INST"):
            stack.append(name)
    else:
        opcode = _BY_NAME[name]
        # POP takes a mark as well
        del stack[len(stack) - len(opcode.stack_before) :]
        stack.extend([name] * len(opcode.stack_after))


def _take_to_mark(stack: list[str]) -> list[str]:
    values: list[str] = []
    while stack and stack[-1] != _MARK:
        values.append(stack.pop())
    if stack:
        stack.pop()
    return values[::-1]


def _check_names(names: list[str]) -> None:
    if not _UNSAFE.isdisjoint(names):
        raise Refused("has tuples or sets as names, as only a hostile pickle does; fetch it again")


_BY_NAME = {opcode.name: opcode for opcode in _OPCODES.values()}
