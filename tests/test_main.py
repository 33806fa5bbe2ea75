"""`pps-fast VERB` is `python -m pps_fast.VERB`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pps_fast
from pps_fast.__main__ import PROGRAMS, load, main

PACKAGE = Path(pps_fast.__file__).parent


def test_verbs_are_the_programs() -> None:
    files = [*PACKAGE.glob("*/__main__.py"), *PACKAGE.glob("*.py")]
    programs = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in files
        if "\ndef main(" in path.read_text(encoding="utf-8") and path != PACKAGE / "__main__.py"
    }
    assert set(PROGRAMS) == programs


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--help-all"]])
def test_help_lists_every_verb(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in PROGRAMS)


@pytest.mark.parametrize("verb", PROGRAMS)
def test_a_verb_is_its_program(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(load(verb), "main", lambda argv: seen.append(argv) or 7)
    assert main([verb, "--some", "option"]) == 7
    assert seen == [["--some", "option"]] and capsys.readouterr().out == ""


def test_a_verb_prints_what_the_module_prints() -> None:
    printed = []
    for command in (["pps_fast", "eval"], ["pps_fast.eval"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--model", "nowhere"], cwd=PACKAGE.parent, capture_output=True, text=True
        )
        printed.append((done.returncode, done.stdout, done.stderr))
    assert printed[0] == printed[1] and printed[0][0] == 2 and "nowhere" in printed[0][2]


def test_an_unknown_verb_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("error: evaluate: no such verb; expected one of features, ")


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pps_fast {pps_fast.__version__}\n"
