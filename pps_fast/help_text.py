"""Texts of --help, which fits on one screen, and of --help-all, which has every option.

Both are made from the dataclasses of the options and the strings below their fields. Importing this file loads no
torch.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, Generic, Literal, TypeVar

from pps_fast.presets import VARIANT_FIELDS

Arguments = TypeVar("Arguments")

_COLUMN = 30
_VARIANTS = "only for variants of the published code (PPS as released, CPL, CNM)"
_VALUE_NAMES = {int: "N", float: "X", Path: "PATH", str: "TEXT", bool: ""}


@dataclass(frozen=True, kw_only=True)
class Program(Generic[Arguments]):
    """A command line program.

    Attributes:
        name: its verb, "train".
        description: what it does, in a few sentences.
        examples: commands, a line each.
        options: dataclass of its options, or a union of those of its subcommands.
        first: dotted fields of the options that --help shows; none with subcommands.
        more: further text of --help-all.
        positional: name of the field whose values follow the program's name without an option.
        aliases: other accepted options -> the option they stand for.
        subcommands: name -> dataclass of its options.
        verb: what stands for a subcommand in the usage.
    """

    name: str
    description: str
    examples: str
    options: type[Arguments]
    first: tuple[str, ...] = ()
    more: str = ""
    positional: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    subcommands: dict[str, type[Any]] = field(default_factory=dict)
    verb: str = "PICTURE"

    @property
    def command(self) -> str:
        """How it is called."""
        return f"python -m pps_fast.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option as the help describes it.

    Attributes:
        path: dotted field, "losses.pull".
        hint: type of the field.
        text: the string below the field.
        default: value without the option; `dataclasses.MISSING` for one that must be given.
        section: dotted name of the section of the config it is in, "" for the program's own.
        title: what the options of that section are about.
    """

    path: str
    hint: Any
    text: str
    default: Any
    section: str
    title: str

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return flag_of(self.path)

    @property
    def is_flag(self) -> bool:
        """Whether it is a yes or no, which takes no value."""
        return self.hint is bool


def flag_of(path: str) -> str:
    """Returns the option of a dotted field: "losses.num_best" -> "--losses.num-best"."""
    return "--" + path.replace("_", "-")


def negated(flag: str) -> str:
    """Returns the option that turns a flag off: "--losses.push-normalize" -> "--losses.no-push-normalize"."""
    section, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{section}{dot}no-{name}"


def find_options(program: Program[Any], start: Any = None) -> dict[str, Option]:
    """Returns the options of a program, or of all its subcommands, by their dotted fields; `start` as `cli.parse`."""
    classes = list(program.subcommands.values()) or [program.options]
    return {option.path: option for each in classes for option in _options_of(each, start)}


def _options_of(cls: Any, start: Any, prefix: str = "", title: str = "options") -> Iterator[Option]:
    """Yields the options of a dataclass; sections of a config come after the fields beside them."""
    hints, texts, sections = typing.get_type_hints(cls, include_extras=True), field_texts(cls), []
    for item in dataclasses.fields(cls):
        hint, extras = hints[item.name], getattr(hints[item.name], "__metadata__", ())
        hint = typing.get_args(hint)[0] if extras else hint
        default = item.default if start is None else getattr(start, item.name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            # tyro.conf.arg(name="") leaves the field's own name out
            is_bare = any(getattr(extra, "name", None) == "" for extra in extras)
            inner = prefix if is_bare else f"{prefix}{item.name}."
            about = title if is_bare else (hint.__doc__ or "").split("\n")[0]
            # without a start, a section's defaults are those of its class
            sections.append((hint, hint() if start is None else default, inner, about))
        else:
            text = texts.get(item.name, "")
            section = prefix.removesuffix(".")
            yield Option(path=prefix + item.name, hint=hint, text=text, default=default, section=section, title=title)
    for arguments in sections:
        yield from _options_of(*arguments)


def field_texts(cls: Any) -> dict[str, str]:
    """Returns field -> the string below it, on one line, of a dataclass and those it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts.update(_texts_of_module(base.__module__).get(base.__qualname__, {}) if base is not object else {})
    return texts


@lru_cache
def _texts_of_module(name: str) -> dict[str, dict[str, str]]:
    """Returns class -> field -> the string below it, for the top-level classes of a loaded module."""
    texts: dict[str, dict[str, str]] = {}
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        texts[cls.name] = {
            ast.unparse(item.target): " ".join(ast.literal_eval(below.value).split())
            for item, below in zip(cls.body, cls.body[1:], strict=False)
            if isinstance(item, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        }
    return texts


def short_help(program: Program[Any], start: Any, argv: Sequence[str] = ()) -> str:
    """Returns the help for a first-time user, on one screen.

    Args:
        start: as `cli.parse`.
        argv: the command line; help of a subcommand if it begins with one.
    """
    if argv and argv[0] in program.subcommands:
        return _subcommand_help(program, argv[0])
    options = find_options(program, start)
    lines = _head(program)
    lines += ["options:"] if program.first else []
    for path in program.first:
        lines += _describe(options[path], program)
    lines += _entry(
        "--help-all", "describe every option" + (f" of every {program.verb.lower()}" if program.subcommands else "")
    )
    lines += ["", "examples:", textwrap.indent(program.examples, "  ")]
    return "\n".join(lines)


def full_help(program: Program[Any], start: Any) -> str:
    """Returns the description of every option; `start` as `cli.parse`."""
    lines = _head(program)
    lines += [program.more, ""] if program.more else []
    lines += ["examples:", textwrap.indent(program.examples, "  ")]
    if program.subcommands:
        return "\n\n".join(["\n".join(lines), *(_subcommand_help(program, name) for name in program.subcommands)])
    groups: dict[str, list[Option]] = {}
    for option in find_options(program, start).values():
        is_variant = option.path in VARIANT_FIELDS
        name = f"{option.section}: {option.title}" if option.section else option.title
        groups.setdefault(_VARIANTS if is_variant else name, []).append(option)
    if _VARIANTS in groups:
        groups[_VARIANTS] = groups.pop(_VARIANTS)
    for name, options in groups.items():
        lines += ["", *textwrap.wrap(name.rstrip(".") + ":", _width())]
        for option in options:
            lines += _describe(option, program)
    return "\n".join(lines)


def _head(program: Program[Any]) -> list[str]:
    """Returns what both levels of help begin with."""
    lines = [f"usage: {_usage(program)}", "", *_paragraphs(program.description), ""]
    for name, cls in program.subcommands.items():
        lines += _entry(name, (cls.__doc__ or "").strip())
    return [*lines, ""] if program.subcommands else lines


def _subcommand_help(program: Program[Any], name: str) -> str:
    cls = program.subcommands[name]
    has_positional = program.positional in typing.get_type_hints(cls)
    words = [program.command, name, *([str(program.positional).upper()] if has_positional else []), "[options]"]
    lines = [f"usage: {' '.join(words)}", "", *_paragraphs((cls.__doc__ or "").strip()), ""]
    for option in _options_of(cls, None):
        lines += _describe(option, program)
    return "\n".join(lines)


def _usage(program: Program[Any]) -> str:
    words = [program.command, *([program.verb] if program.subcommands else [])]
    return " ".join([*words, *([program.positional.upper()] if program.positional else []), "[options]"])


def _describe(option: Option, program: Program[Any]) -> list[str]:
    """Returns the lines of an option: its name, its value, what it does and its default."""
    value, choices = ("PATH", ()) if option.path == "data.path" else _value_of(option.hint)
    is_positional = option.path == program.positional
    name = option.path.upper() if is_positional else _shown_flag(option, program)
    if option.is_flag and option.default is True:
        value = "{True,False}"
    left = name if is_positional else f"{name} {value}".rstrip()
    text = option.text
    if choices:
        text += f". One of {', '.join(choices)}"
    if option.default is dataclasses.MISSING:
        text += " (required)"
    elif option.default is not None and option.default is not False and option.default != ():
        shown = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        text += f" (default: {shown})"
    return _entry(left, text)


def _shown_flag(option: Option, program: Program[Any]) -> str:
    shorter = [alias for alias, flag in program.aliases.items() if flag == option.flag and flag.startswith(alias)]
    return ", ".join([*shorter, option.flag])


def _value_of(hint: Any) -> tuple[str, tuple[str, ...]]:
    """Returns the placeholder of an option's value, and its choices if they are too long to be the placeholder."""
    members = [member for member in typing.get_args(hint) if member is not NoneType]
    if typing.get_origin(hint) is Literal:
        joined = "{" + ",".join(members) + "}"
        return (joined, ()) if len(joined) <= 36 else ("NAME", tuple(members))
    if typing.get_origin(hint) is tuple:
        inner, choices = _value_of(members[0])
        return (f"{inner} ..." if members[-1] is ... else " ".join([inner] * len(members))), choices
    return _value_of(members[0]) if members else (_VALUE_NAMES[hint], ())


def _paragraphs(text: str) -> list[str]:
    """Wraps paragraphs, separated by empty lines, to the width of the terminal; returns the lines."""
    wrapped = [textwrap.wrap(paragraph, _width()) for paragraph in text.split("\n\n")]
    return "\n\n".join("\n".join(lines) for lines in wrapped).split("\n")


def _entry(left: str, text: str) -> list[str]:
    """Returns two columns; a long left side has a line of its own."""
    lines = textwrap.wrap(text, max(_width() - _COLUMN, 20)) or [""]
    if len(left) + 4 > _COLUMN:
        return [f"  {left}", *(" " * _COLUMN + line for line in lines)]
    return [f"  {left}".ljust(_COLUMN) + lines[0], *(" " * _COLUMN + line for line in lines[1:])]


def _width() -> int:
    """Returns the most characters of a line: the width of the terminal, limited for readability."""
    return min(shutil.get_terminal_size((100, 24)).columns, 110)
