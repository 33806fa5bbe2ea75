"""Runs the project's programs in this process, or only has them parse a command line."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import tyro

from tests.support.documents import GuideError


class _Parsed(BaseException):
    """Ends a program where its command line has been parsed; no program catches it."""


@contextlib.contextmanager
def _stopped_after_parsing() -> Iterator[None]:
    """Inside the block tyro and argparse parse as ever and then end the program."""
    cli, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

    def parse_and_stop(*args: Any, **options: Any) -> None:
        cli(*args, **options)
        raise _Parsed

    def parse_args_and_stop(parser: argparse.ArgumentParser, *args: Any, **options: Any) -> None:
        parse_args(parser, *args, **options)
        raise _Parsed

    tyro.cli, argparse.ArgumentParser.parse_args = parse_and_stop, parse_args_and_stop
    try:
        yield
    finally:
        tyro.cli, argparse.ArgumentParser.parse_args = cli, parse_args


def run_program(module: str, argv: list[str]) -> str:
    """Does what `python -m MODULE ARGV` does, in this process, and returns what it printed.

    Raises:
        GuideError: for another exit status than 0; the message has the program's own words.
    """
    output, arguments = io.StringIO(), sys.argv
    sys.argv = [module, *argv]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
            # runpy warns of a program that a test has imported before
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            said = " ".join(output.getvalue().split())[-1000:]
            raise GuideError(f"`python -m {shlex.join([module, *argv])}` ends with {end.code}: {said}") from end
    except ImportError as error:
        raise GuideError(f"python -m {module}: {error}") from error
    finally:
        sys.argv = arguments
    return output.getvalue()


def check_program(module: str, argv: list[str]) -> None:
    """Has a program parse a command line without running it.

    Raises:
        GuideError: for a program or option that does not exist, or a value that is refused.
    """
    with _stopped_after_parsing():
        try:
            run_program(module, argv)
        except _Parsed:
            return
    if not {"-h", "--help", "--help-all"} & set(argv):
        raise GuideError(f"python -m {module}: ran without parsing its command line")


@cache
def _require_complete(module: str, needed: tuple[str, ...]) -> None:
    check_program(module, list(needed))


def has_option(option: str, module: str, *needed: str) -> bool:
    """Whether a program has an option.

    Args:
        needed: the words that its command line needs besides.
    Raises:
        GuideError: if these are not enough for it.
    """
    _require_complete(module, needed)
    try:
        check_program(module, [*needed, option])
    except GuideError as error:
        # an option that exists is refused for its missing value instead
        unknown = re.search(r"Unrecognized options: (.*?)( -----|$)", str(error))
        return unknown is None or option not in unknown.group(1).split(", ")
    return True
