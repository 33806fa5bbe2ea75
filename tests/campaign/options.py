"""Extreme values of every option of every program."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

from pps_fast.help_text import Option, find_options

_WHOLE = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "1000",
    "100000",
    "2147483648",
    "9223372036854775808",
    "1" + "0" * 30,
    "1.5",
    "x",
    "",
)
_REAL = ("0", "-1", "0.5", "1", "nan", "inf", "-inf", "1e-300", "1e-9", "1e9", "1e300", "-1e300", "x", "")
_WORDS = ("", " ", "x", "x" * 3000, "é", "\udcff", "../..", "-", "--", "None", "0", "\n", "[", "%s{0}")
# would only take long
_LEAVE = {"train.max_steps", "device", "resume", "config", "jobs", "json", "train.tensorboard"}


def extreme_options(rng: random.Random, program: str, folder: Path) -> list[str]:
    """Returns one to three options with extreme values, to be added to a command line."""
    module = import_module(program)
    options = list(find_options(module.PROGRAM).values())
    # a picture has options of its own, which cannot be told from those of others
    known = [option for option in options if option.path not in _LEAVE and option.path != module.PROGRAM.positional]
    words: list[str] = []
    for option in rng.sample(known, rng.randint(1, 3)):
        words += _option(rng, option, folder)
    return words


def _option(rng: random.Random, option: Option, folder: Path) -> list[str]:
    if option.is_flag:
        return [option.flag]
    members = [member for member in typing.get_args(option.hint) if member not in (type(None), ...)]
    is_tuple = typing.get_origin(option.hint) is tuple
    is_choice = typing.get_origin(option.hint) is typing.Literal
    kind: Any = str if is_choice else members[0] if members else option.hint
    if typing.get_origin(kind) is typing.Literal:
        kind, is_choice = str, True
    values = [_value(rng, kind, folder) for _ in range(rng.choice((0, 1, 2, 4, 40)) if is_tuple else 1)]
    if is_choice and rng.random() < 0.7:
        choices = members if typing.get_origin(option.hint) is typing.Literal else typing.get_args(members[0])
        values = [str(rng.choice(choices))]
    return [option.flag, *values]


def _value(rng: random.Random, kind: Any, folder: Path) -> str:
    if kind is int:
        return rng.choice(_WHOLE)
    if kind is float:
        return rng.choice(_REAL)
    if kind is Path:
        return _path(rng, folder)
    return rng.choice(_WORDS)


def _path(rng: random.Random, folder: Path) -> str:
    # devices of the folder alone: a program that harms one must not harm the machine's
    for name, number in {"pipe": None, "null": (1, 3), "zero": (1, 5), "full": (1, 7)}.items():
        with contextlib.suppress(PermissionError, FileExistsError):
            if number is None:
                os.mkfifo(folder / name)
            else:
                os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(*number))
    existing = sorted(path for path in folder.iterdir() if path.is_file())
    names = ["pipe", "null", "zero", "full", "gone/x", "x" * 300, f"new-{rng.randrange(9)}", ".", ".."]
    return rng.choice(["", "\udcff", "../x", *(f"{folder}/{name}" for name in names), *map(str, existing[:3])])
