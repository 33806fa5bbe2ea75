"""Reads Markdown guides: blocks, commands, edits to a copy of the project, links, spans of code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


class GuideError(AssertionError):
    """A guide says what is not so; the message names file, line and the reason."""


@dataclass(frozen=True)
class Block:
    """A fenced block: language, the path after it ("" for none), text without the fences, and "FILE:LINE"."""

    language: str
    path: str
    text: str
    where: str


def read_blocks(guide: Path) -> list[Block]:
    """Returns the fenced blocks of a Markdown file in their order.

    Raises:
        GuideError: for a block that is never closed.
    """
    blocks: list[Block] = []
    start, info, lines = 0, "", []
    for number, line in enumerate(guide.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif start == 0:
            start, info, lines = number, line[3:].strip(), []
        else:
            language, _, path = info.partition(" ")
            blocks.append(Block(language, path.strip(), "\n".join(lines) + "\n", f"{guide.name}:{start}"))
            start = 0
    if start:
        raise GuideError(f"{guide.name}:{start}: this block is never closed")
    return blocks


def read_commands(text: str) -> list[list[str]]:
    """Returns the commands of a block as words: continued lines joined, comments and assignments before a command
    left out."""
    lines = text.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in map(_without_assignments, commands) if words]


def _without_assignments(words: list[str]) -> list[str]:
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    return words


def apply_edits(guide: Path, project: Path) -> list[str]:
    """Applies the blocks of a guide that are files of the project or changes of one to a copy of the project.

    Returns:
        The paths that were written.
    Raises:
        GuideError: for lines to insert behind that are not in the file exactly once, or a new file that exists.
    """
    edited = []
    for block in read_blocks(guide):
        target = project / block.path
        if block.language == "diff":
            text = target.read_text(encoding="utf-8")
            before = "".join(line[1:] + "\n" for line in block.text.splitlines() if not line.startswith("+"))
            after = "".join(line[1:] + "\n" for line in block.text.splitlines() if not line.startswith("-"))
            if before and text.count(before) != 1:
                raise GuideError(f"{block.where}: {block.path} has these lines {text.count(before)} times:\n{before}")
            target.write_text(text.replace(before, after) if before else text + after, encoding="utf-8")
        elif block.language == "python" and block.path:
            if target.exists():
                raise GuideError(f"{block.where}: {block.path} exists; write the change as a diff")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        else:
            continue
        edited.append(block.path)
    return edited


def broken_links(guide: Path) -> list[str]:
    """Returns the relative links of a guide that lead to no file, or to no heading of one."""
    text = re.sub(r"```.*?```", "", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    broken = []
    for target in targets:
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = guide.parent / path if path else guide
        if not file.exists() or (heading and heading not in _headings(file)):
            broken.append(target)
    return broken


def _headings(file: Path) -> set[str]:
    """Returns the anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_spans(guide: Path) -> list[str]:
    """Returns the `spans` of code outside fenced blocks."""
    text = re.sub(r"```.*?```", "", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)
