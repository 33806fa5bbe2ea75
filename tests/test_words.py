"""The words of CONTRIBUTING.md: what names must not be, the field's nouns, American spelling, letters with a legend."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("pps_fast", "kernels", "benchmarks", "tests", "docs")
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CODE = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in ("pps_fast", "kernels")]
# what programs have measured, in benchmarks/results, is never edited
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"])

# each can stand for anything; the name says what it is instead: rows, options, record, sizes
VAGUE = {"found", "given", "made", "own", "here", "sound"}
# files in which a key is not one of attention, and what it is
_NAME_IN_A_FILE = "h5py's and numpy's word for the name of an array in a file"
OTHER_KEYS = {
    "pps_fast/prepare/readers/features.py": _NAME_IN_A_FILE,
    "pps_fast/prepare/feature_options.py": _NAME_IN_A_FILE,
}

NOUNS = re.compile(r"\b(opponents?|contestants?|peers?|rivals?|blind rows?)\b", re.IGNORECASE)
_ISE = "emphas|equal|final|general|initial|maxim|minim|normal|optim|organ|parallel|penal|quant|random|real|recogn"
_ISE += "|regular|serial|special|standard|summar|synchron|token|util|vector|visual"
BRITISH = re.compile(
    rf"\b\w*(({_ISE})is(e|ed|er|es|ing|ation|able)\b|(behavi|col|fav|hon|lab|neighb)our|(cancel|label|model|travel)l(ed|ing)\b"
    r"|analyse|artefact|catalogue|centre|defence|fulfil\b|grey|judgement|learnt|\blicence|\bmetre)\w*",
    re.IGNORECASE,
)
# CONTRIBUTING.md lists the words, CHANGELOG.md tells what they replaced
NAMES_THE_WORDS = {"CONTRIBUTING.md", "CHANGELOG.md", "tests/test_words.py"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def _bound(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yields the names that code chooses itself, with their lines; not those it takes over from others."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def vague_names(source: str) -> list[str]:
    """Returns "line: name" of every name with a word of VAGUE in it, save names of tests, which are sentences."""
    parts = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
    bound = [(name, line) for name, line in _bound(_nodes(source)) if not name.startswith("test_")]
    return [f"{line}: {name}" for name, line in bound if VAGUE & {part.lower() for part in parts.findall(name)}]


def stray_keys(source: str) -> list[str]:
    """Returns "line: key" of every `key` in a function, or at the top of a file, that has no `query` beside it."""
    keys = [(name, line) for name, line in _bound(_nodes(source)) if name == "key"]
    beside_query = set()
    for function in _nodes(source) if keys else ():
        if isinstance(function, ast.FunctionDef):
            names = list(_bound(ast.walk(function)))
            if "query" in {name for name, _ in names}:
                beside_query |= {line for name, line in names if name == "key"}
    return [f"{line}: {name}" for name, line in keys if line not in beside_query]


def _docstrings(source: str) -> list[tuple[str, int]]:
    """Returns docstrings, of fields too, with their first lines."""
    strings = [node.value for node in _nodes(source) if isinstance(node, ast.Expr)]
    return [(s.value, s.lineno) for s in strings if isinstance(s, ast.Constant) and isinstance(s.value, str)]


def _prose_of_code(source: str) -> list[tuple[str, int]]:
    """Returns comments, docstrings and messages with their lines; a message is a string with two blanks at least."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    texts = [(token.string, token.start[0]) for token in tokens if token.type == tokenize.COMMENT]
    constants = [node for node in _nodes(source) if isinstance(node, ast.Constant)]
    strings = [(c.value, c.lineno) for c in constants if isinstance(c.value, str) and c.value.count(" ") > 1]
    return sorted({*texts, *strings, *_docstrings(source)}, key=lambda prose: prose[1])


def _prose_of_markdown(text: str) -> list[tuple[str, int]]:
    """Returns the lines with their numbers, without blocks and spans of code."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return [(re.sub(r"`[^`]*`", "", line), number) for number, line in enumerate(text.split("\n"), 1)]


def replaced_words(texts: list[tuple[str, int]]) -> list[str]:
    """Returns "line: word" of nouns that were replaced and of British spellings."""
    hits = []
    for text, first in texts:
        for match in [*NOUNS.finditer(text), *BRITISH.finditer(text)]:
            hits.append(f"{first + text[: match.start()].count(chr(10))}: {match[0]}")
    return hits


def legend_of_types(docstring: str) -> set[str]:
    """Returns the letters of the one legend: those that begin a column of its indented block."""
    block = [line for line in docstring.splitlines() if line.startswith("    ")]
    return {letter for line in block for letter in re.findall(r"(?:^|\s{2,})(\w)  \S", line)}


def letters_of_file(docstring: str) -> set[str]:
    """Returns the letters that a module explains itself, in the paragraph "Letters: B samples, Q thresholds."."""
    paragraphs = [" ".join(part.split()) for part in docstring.split("\n\n")]
    (letters,) = [part.removeprefix("Letters: ") for part in paragraphs if part.startswith("Letters: ")] or [""]
    return set(re.findall(r"(?:^|[,;] )([A-Za-z]) \w", letters))


def letters_of_shapes(docstring: str) -> set[str]:
    """Returns the single letters in shapes, brackets such as [B, K * J, T] that follow no name."""
    shapes = re.findall(r"(?<![\w\]])\[([\w\s.,+*/-]+)\](?!\()", docstring)
    return {letter for shape in shapes for letter in re.findall(r"\b[A-Za-z]\b", shape)}


LEGEND = legend_of_types(ast.get_docstring(ast.parse((ROOT / "pps_fast/types.py").read_text(encoding="utf-8"))) or "")


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_name_says_what_it_is(path: Path) -> None:
    assert vague_names(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in PYTHON if _name(path) not in OTHER_KEYS], ids=_name)
def test_a_key_is_one_of_attention(path: Path) -> None:
    assert stray_keys(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [p for p in [*PYTHON, *MARKDOWN] if _name(p) not in NAMES_THE_WORDS], ids=_name)
def test_prose_has_the_fields_nouns_and_american_spelling(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # most files have none of the words anywhere, which is found out sooner
    if not replaced_words([(text, 1)]):
        return
    assert replaced_words(_prose_of_code(text) if path.suffix == ".py" else _prose_of_markdown(text)) == []


@pytest.mark.parametrize("path", CODE, ids=_name)
def test_every_letter_of_a_shape_is_in_a_legend(path: Path) -> None:
    docstrings = [text for text, _ in _docstrings(path.read_text(encoding="utf-8"))]
    known = LEGEND | (letters_of_file(docstrings[0]) if docstrings else set())
    assert {letter for text in docstrings for letter in letters_of_shapes(text)} <= known


def test_the_legend_has_every_dimension() -> None:
    assert set("BSTLKEMJNGDHhQVFWn") <= LEGEND


def test_the_checks_of_names_can_fail() -> None:
    assert sorted(vague_names("own_rows = 1\nclass Given: ...\ndef f(found): ...")) == [
        "1: own_rows",
        "2: Given",
        "3: found",
    ]
    assert vague_names("from hypothesis import given\n@given(x)\ndef test_what_is_made(owner): ...") == []
    assert sorted(stray_keys("def f(query, key): ...\ndef g(key): ...\nkey = 1")) == ["2: key", "3: key"]
    assert stray_keys("rows = sorted(rows, key=len)") == []


def test_the_check_of_prose_can_fail() -> None:
    source = '"""Beats its\nPeers."""\n# a neighbour\nraise ValueError("no such colour here")\nold = "optimise"\n'
    assert replaced_words(_prose_of_code(source)) == ["2: Peers", "3: neighbour", "4: colour"]
    assert replaced_words(_prose_of_markdown("the rival\n```\na rival\n```\nan `optimise` of\nnormalised")) == [
        "1: rival",
        "6: normalised",
    ]
    assert replaced_words([("wise neighbors model the centers of a license; otherwise precise", 1)]) == []


def test_the_check_of_letters_can_fail() -> None:
    assert letters_of_shapes("x[q] of [B, K * J, T], [2, 3], [...], [v = y], see [a text](y)") == {
        "B",
        "K",
        "J",
        "T",
    }
    assert letters_of_file("A file.\n\nLetters: B samples, Z\nthresholds z.\n\nMore.") == {"B", "Z"}
    assert legend_of_types("    B  samples\n    D  width       h  of a head, x") == {"B", "D", "h"}
