"""Follows a Markdown guide as a reader would: runs its Python, parses or runs its commands, writes its files.

    ```python            runs in the guide's folder; all Python blocks of a guide share their names
    ```bash              each command is parsed by its own program (or run, where the guide is followed in full)
    ```bash FILE         the block is that file, and its commands are parsed
    ```json FILE         (any language, with a path) the block is that file
    ```diff FILE         lines to insert into a file of a copy of the project, behind the lines they follow
    ```text              output or a tree; not run

Any other language is refused, so that no block escapes.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch.distributed.run import get_args_parser

from pps_fast.prepare.feature_options import split_name
from tests.support.documents import ROOT, Block, GuideError, read_blocks, read_commands
from tests.support.programs import check_program, run_program

FILE_LANGUAGES = {"csv", "json", "text", "python", "bash"}
READS = {"--checkpoint", "--checkpoints", "--data", "--data.path", "--durations", "--features", "--human", "--model"}
READS |= {"--models", "--pool", "--runs", "--test", "--train", "--validation", "--vocabulary"}
READS |= {"--against", "--annotations", "--judge", "--sentence-vectors"}
WRITES = {"--out", "--predictions"}
_GIT = {"add", "clone", "commit", "diff", "fetch", "rebase", "switch", "tag"}


@dataclass
class Walkthrough:
    """Follows the blocks of one guide.

    Attributes:
        folder: where its files lie; the caller has put the reader's own files there.
        executes: programs that run ("pps_fast.prepare"); the command lines of the others are only parsed.
        written: paths that commands have written, or would have.
        names: what the Python blocks share.
    """

    folder: Path
    executes: frozenset[str] = frozenset()
    written: set[str] = field(default_factory=set)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "guide"})

    def follow(self, block: Block) -> None:
        """Runs or checks a block.

        Raises:
            GuideError: naming the block, for whatever fails.
        """
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            self._follow(block)
        except Exception as error:
            raise GuideError(f"{block.where}: {type(error).__name__}: {error}") from error
        finally:
            os.chdir(before)

    def _follow(self, block: Block) -> None:
        if block.path and block.language in FILE_LANGUAGES:
            target = self.folder / block.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            if block.language == "bash":
                self._commands(block)
        elif block.path:
            raise GuideError(f"a block of {block.language!r} cannot be the file {block.path}")
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), self.names)
        elif block.language == "bash":
            self._commands(block)
        elif block.language != "text":
            raise GuideError(f"the language {block.language!r} is none of python, bash, text or a file's")

    def _commands(self, block: Block) -> None:
        for words in read_commands(block.text):
            self.command(words)

    def command(self, words: list[str]) -> None:
        """Checks or runs one command.

        Raises:
            GuideError: for a program, option, target or file that does not exist.
        """
        program, *argv = words
        program = program.removeprefix(".venv/bin/")
        checks: dict[str, Callable[[list[str]], None]] = {
            "git": self._git,
            "cd": self._cd,
            "source": self._source,
            "make": self._make,
            "pip": self._pip,
            "python": self._python,
            "python3": self._python,
            "pps-fast": lambda argv: self._module("pps_fast", argv),
            "torchrun": self._torchrun,
            # in a file for Slurm: the command that it starts on every machine, and what follows from a file or a status
            "srun": self.command,
            "test": lambda argv: None,
        }
        if program not in checks:
            raise GuideError(f"{program}: not a command that a reader of this guide has")
        checks[program](argv)

    def _git(self, argv: list[str]) -> None:
        if not argv or argv[0] not in _GIT:
            raise GuideError(f"git {shlex.join(argv)}: expected one of {', '.join(sorted(_GIT))}")
        if argv[0] == "clone":
            self.written.add(argv[-1])

    def _cd(self, argv: list[str]) -> None:
        self._need(argv[0])

    def _source(self, argv: list[str]) -> None:
        self._need(argv[0])

    def _make(self, argv: list[str]) -> None:
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
        variables = set(re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE))
        for word in argv:
            name, is_assignment, _ = word.partition("=")
            if name not in (variables if is_assignment else targets):
                raise GuideError(f"make {word}: the Makefile has no such target or variable")
        # every target but these makes the environment first
        if not set(argv) <= {"help", "clean"}:
            self.written.add(".venv/bin/activate")

    def _pip(self, argv: list[str]) -> None:
        setup = (ROOT / "setup.py").read_text(encoding="utf-8")
        for word in argv:
            _, _, extras = word.rstrip("]").partition("[")
            for extra in filter(None, extras.split(",")):
                if f'"{extra}": ' not in setup:
                    raise GuideError(f"pip {shlex.join(argv)}: setup.py has no extra {extra!r}")
        for option, value in zip(argv, argv[1:], strict=False):
            if option in ("-c", "--constraint", "-r", "--requirement"):
                self._need(value)

    def _python(self, argv: list[str]) -> None:
        if argv[0] != "-m":
            self._need(argv[0])
        elif argv[1] == "venv":
            self.written.add(f"{argv[2]}/bin/activate")
        elif argv[1] == "pip":
            self._pip(argv[2:])
        elif argv[1] == "pytest":
            for word in argv[2:]:
                if not word.startswith("-") and "/" in word:
                    self._need(word.partition("::")[0])
        elif argv[1].partition(".")[0] in ("pps_fast", "benchmarks"):
            self._module(argv[1], argv[2:])
        else:
            raise GuideError(f"python -m {argv[1]}: no program of this project")

    def _torchrun(self, argv: list[str]) -> None:
        try:
            parsed = get_args_parser().parse_args(argv)
        except SystemExit as error:
            raise GuideError(f"torchrun {shlex.join(argv)}: refused by its parser") from error
        if not parsed.module or parsed.training_script != "pps_fast.train":
            raise GuideError(f"torchrun {shlex.join(argv)}: expected -m pps_fast.train")
        # a variable of the shell, which is an option or nothing
        self._python(["-m", "pps_fast.train", *(word for word in parsed.training_script_args if word[0] != "$")])

    def _module(self, module: str, argv: list[str]) -> None:
        verb = argv[0] if module == "pps_fast" else module.removeprefix("pps_fast.")
        values = _option_values(argv)
        for value in (value for option in READS for value in values.get(option, []) if value != "planted"):
            # of several sources, without the name
            self._need(split_name(value)[1])
        if "--resume" in argv:
            for value in values.get("--out", []):
                self._need(value)
        (run_program if module in self.executes else check_program)(module, argv)
        self.written.update(value for option in WRITES for value in values.get(option, []))
        if verb == "train" and "--out" not in values:
            self.written.add("runs/" + (values.get("--preset", ["demo"])[-1]))

    def _need(self, path: str) -> None:
        """Refuses a path that neither an earlier block wrote, nor the reader or the project has."""
        if any(fnmatch(known, path) for known in self.written) or any(self.folder.glob(path)):
            return
        if not (ROOT / path).exists():
            raise GuideError(f"{path}: nothing before has written it")


def _option_values(argv: list[str]) -> dict[str, list[str]]:
    """Returns option -> the words after it, up to the next option."""
    values: dict[str, list[str]] = {}
    option = ""
    for word in argv:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            values.setdefault(option, []).extend([value] if value else [])
        else:
            values.setdefault(option, []).append(word)
    return values


def follow(guide: Path, folder: Path, executes: frozenset[str] = frozenset()) -> Walkthrough:
    """Follows all blocks of a guide in a folder, except its changes of the project (`documents.apply_edits`).

    Raises:
        GuideError: for the first block that fails, or a guide without blocks.
    """
    blocks = read_blocks(guide)
    if not blocks:
        raise GuideError(f"{guide.name}: has no blocks")
    walkthrough = Walkthrough(folder, executes=executes)
    for block in blocks:
        if block.language != "diff":
            walkthrough.follow(block)
    return walkthrough
