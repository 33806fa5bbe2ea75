"""Helpers of all command lines: options generated from dataclasses, presets, exit statuses.

Importing this file loads no torch, so that --help answers at once.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import tyro

from pps_fast.config_tree import OLD_NAMES
from pps_fast.devices import check_device_name
from pps_fast.distributed import this_place
from pps_fast.files import Note
from pps_fast.help_text import Program, find_options, flag_of, full_help, negated, short_help
from pps_fast.interrupts import InterruptWatch
from pps_fast.presets import PRESETS, UnknownPresetError
from pps_fast.reading import MAX_MESSAGE, cut, cut_lines, one_sentence
from pps_fast.streams import tolerant_streams

if TYPE_CHECKING:
    PresetName = str
else:
    PresetName = Literal[tuple(PRESETS)]

# what torch says when memory runs out, which is no error of a type of its own on a CPU
_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
# accepted where a flag has a value after it
_BOOLS = {"true": True, "false": False}

Arguments = TypeVar("Arguments")


def parse(program: Program[Arguments], argv: Sequence[str], start: Arguments | None = None) -> Arguments:
    """Parses a command line; --help and --help-all print their text and end the process.

    Args:
        program: its options and what its help says.
        argv: what follows the program's name.
        start: values of options that are not given; None takes the defaults of the dataclass.
    Raises:
        SystemExit: with status 0 after help, 2 for a wrong option or value, which is printed.
        ValueError: for a config whose parts do not fit together.
    """
    _check_words(argv)
    check_device_name(last_value(argv, "--device"))
    words = list(_normalize(program, argv))
    if "--help-all" in words:
        print(full_help(program, start))
        sys.exit(0)
    if "--help" in words or "-h" in words:
        print(short_help(program, start, words))
        sys.exit(0)
    words = _gathered(program, words)
    with _brief_complaint():
        if start is None:
            return tyro.cli(program.options, args=words, prog=program.command)
        return tyro.cli(program.options, args=words, prog=program.command, default=start)


@contextmanager
def _brief_complaint() -> Iterator[None]:
    """Cuts what the parser prints about wrong options to MAX_MESSAGE characters: it repeats every word."""
    complaint = StringIO()
    try:
        with redirect_stderr(complaint):
            yield
    finally:
        # of several processes with one command line the first one says it
        if complaint.getvalue() and not _place_name():
            print(cut_lines(complaint.getvalue().rstrip("\n")), file=sys.stderr)


def _check_words(argv: Sequence[str]) -> None:
    """Refuses words that no file, name or number has, before the parser repeats them in its message."""
    for word in argv:
        if len(word) > MAX_MESSAGE:
            expected = f"expected at most {MAX_MESSAGE:,}; for a long path name a link to it"
            raise ValueError(f"{cut(word, 80)}: a word of {len(word):,} characters, {expected}")


def parse_with_preset(program: Program[Arguments], argv: Sequence[str], default: str = "demo") -> Arguments:
    """Parses a command line whose options start from a preset.

    Args:
        program: its options have `preset: PresetName` and `config: Annotated[PPSConfig, tyro.conf.arg(name="")]`, the
            latter so that the config's options have no prefix; defaults suffice for all others.
        argv: what follows the program's name.
        default: preset of a command line without --preset.
    Raises:
        SystemExit, ValueError: as `parse`.
    """
    _check_words(argv)
    preset = last_value(argv, "--preset") or default
    try:
        config = PRESETS[preset]
    except UnknownPresetError as error:
        sys.exit(_complain(error, 2))
    start: Callable[..., Arguments] = program.options
    return parse(program, argv, start(preset=preset, config=config))


def last_value(argv: Sequence[str], flag: str) -> str | None:
    """Returns the value of the last such option on a command line; None without one."""
    value = None
    for position, word in enumerate(argv):
        if word == flag and position + 1 < len(argv):
            value = argv[position + 1]
        elif word.startswith(f"{flag}="):
            value = word.split("=", 1)[1]
    return value


def _normalize(program: Program[Any], argv: Sequence[str]) -> Iterator[str]:
    """Yields the words with other accepted names of options replaced, and `--flag False` as `--no-flag`."""
    options = find_options(program)
    names = {**_old_names(options), **program.aliases}
    flags = {option.flag for option in options.values() if option.is_flag}
    words = iter(argv)
    pending = next(words, None)
    while pending is not None:
        word, pending = pending, next(words, None)
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        name = names.get(dashed, name)
        if dashed in flags and (value if equals else pending or "").lower() in _BOOLS:
            if not equals:
                value, pending = pending or "", next(words, None)
            yield dashed if _BOOLS[value.lower()] else negated(dashed)
        else:
            yield name + equals + value


def _gathered(program: Program[Any], words: list[str]) -> list[str]:
    """Returns the words with those that belong to no option in front: the parser takes them in one place alone.

    A word belongs to the option before it if that takes several, or one and has none yet.
    """
    if program.positional is None or program.subcommands or "--" in words:
        return words
    options = {option.flag: option for option in find_options(program).values()}
    free, others = [], []
    # how many of the next words belong to the option before them
    taken = 0.0
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("-") and taken != 1:
            option = options.get(name)
            is_many = option is None or "tuple" in str(option.hint)
            taken = 0.0 if equals or (option is not None and option.is_flag) else math.inf if is_many else 1.0
            others.append(word)
        elif taken:
            taken -= 1.0
            others.append(word)
        else:
            free.append(word)
    return [*free, *others]


def _old_names(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns old option -> new option, for a program that has the new one."""
    return {flag_of(old): flag_of(new) for old, new in OLD_NAMES.items() if new in options}


def exit_status(program: Callable[[], int], *, is_printing_all: bool = False, is_divided: bool = False) -> int:
    """Runs a program and returns its exit status; errors the user can fix are printed as one line on stderr.

    1: training met a loss that is not finite. 2: wrong option, input or backend, or something could not be written.
    130: interrupted. Text that cannot be printed changes nothing (see `streams`).

    Args:
        is_printing_all: what the program prints is all that it produces, so that losing it to a full disk is an error;
            a reader who has left is none.
        is_divided: several processes of torchrun do the program's work together; all others are refused.
    """
    with tolerant_streams() as out:
        status = _status_of(program if is_divided else lambda: _run_alone(program))
        out.flush()
        if out.error is not None:
            reason = f"what was printed is not complete ({out.error.strerror or out.error})"
            if is_printing_all and status == 0:
                return _complain(f"stdout: {reason}; make room and repeat the command", 2)
            print(f"note: stdout: {reason}; the files of this command are", file=sys.stderr)
        return status


def _run_alone(program: Callable[[], int]) -> int:
    """Runs a program, if it is the only process."""
    place = this_place()
    if place.size > 1:
        raise ValueError(
            f"started {place.size} times by torchrun, which is for pps_fast.train; start this program with python -m"
        )
    return program()


def _status_of(program: Callable[[], int]) -> int:
    try:
        with _notes_as_lines(), InterruptWatch():
            return program()
    except FloatingPointError as error:
        return _complain(error, 1)
    except OSError as error:
        return _complain(_describe(error), 2)
    except ValueError as error:
        return _complain(error, 2)
    except MemoryError as error:
        return _complain(_no_memory(error), 2)
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _NO_MEMORY):
            return _complain(_no_memory(error), 2)
        # not at the top of the file: it loads torch, as whatever raised this error has done
        from pps_fast.ops.dispatch import BackendError

        if not isinstance(error, BackendError):
            raise
        return _complain(error, 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _no_memory(error: BaseException) -> str:
    """Returns what to do where memory ran out, with the size that was asked for if the library tells it."""
    asked = re.search(r"tried to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
    size = f" ({asked[1]} were asked for)" if asked else ""
    return f"not enough memory{size}; close other programs, ask for smaller sizes or batches, or use a larger machine"


def _describe(error: OSError) -> str:
    """Returns "FILE: reason", as other messages are, without the number of the error."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


@contextmanager
def _notes_as_lines() -> Iterator[None]:
    """Prints each `Note` of the block as one line on stderr; other warnings are shown as always."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        show = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, Note):
                print(f"note: {message}", file=sys.stderr)
            else:
                show(message, category, *rest, **options)

        warnings.showwarning = show_note
        yield


def _place_name() -> str:
    """Returns "rank 1 of 4: " in a process of torchrun other than the first, whose messages are not told apart."""
    try:
        place = this_place()
    except ValueError:
        return ""
    return f"{place.name}: " if place.rank > 0 else ""


def _complain(message: Any, status: int) -> int:
    print(f"error: {_place_name()}{one_sentence(message, MAX_MESSAGE - 7)}", file=sys.stderr)
    return status
