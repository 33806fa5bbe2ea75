"""Help on one screen, help with every option: both made from the options themselves."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pps_fast.__main__ import PROGRAMS, load
from pps_fast.config import PPSConfig
from pps_fast.help_text import Program, field_texts, find_options, flag_of, full_help, negated, short_help
from pps_fast.presets import VARIANT_FIELDS
from tests.test_config import FIELDS

ROOT = Path(__file__).parents[1]
WITH_CONFIG = ("train", "ablate", "compare", "info")
# runs the program in this process, and says on stderr which slow packages that has loaded
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print(sorted({"torch", "triton", "numpy", "h5py"} & set(sys.modules)), file=sys.stderr)
"""


def _program(name: str) -> Program:
    return load(name).PROGRAM


@pytest.mark.parametrize("option", ["--help", "--help-all"])
@pytest.mark.parametrize("name", ["__main__", *PROGRAMS])
def test_help_loads_no_torch_and_the_short_one_fits_a_screen(name: str, option: str) -> None:
    command = [sys.executable, "-c", RUN, f"pps_fast.{name}".removesuffix(".__main__"), option]
    env = {"COLUMNS": "80", "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("usage: ")
    if option == "--help":
        assert len(lines) <= 50
        assert name == "__main__" or "--help-all" in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_has_a_text_of_one_or_two_sentences(name: str) -> None:
    options = find_options(_program(name))
    assert options
    # fields of one word are no explanation
    assert not [path for path, option in options.items() if len(option.text.split()) < 2 or len(option.text) > 260]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_all_lists_every_option_once(name: str) -> None:
    program = _program(name)
    text = full_help(program, None)
    for path in find_options(program):
        pattern = path.upper() if path == program.positional else rf"{re.escape(flag_of(path))}"
        # options of several pictures are listed with each
        assert len(re.findall(rf"^  (?:--data, )?{pattern}(?: |$)", text, re.MULTILINE)) >= 1, path


@pytest.mark.parametrize("name", PROGRAMS)
def test_short_help_has_the_first_options_the_examples_and_the_way_on(name: str) -> None:
    program = _program(name)
    text = short_help(program, None)
    assert program.first or program.subcommands
    assert all(f"  {line}\n" in text + "\n" for line in program.examples.splitlines())
    shown = set(re.findall(r"^  (?:--data, )?(?:--)?([a-zA-Z_.-]+)", text, re.MULTILINE))
    assert {(path.upper() if path == program.positional else path.replace("_", "-")) for path in program.first} <= shown
    assert "help-all" in shown


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_every_field_of_the_config_is_an_option_and_variants_stand_apart(name: str) -> None:
    program = _program(name)
    assert FIELDS.keys() <= find_options(program).keys()
    _, variants = full_help(program, None).split("only for variants of the published code")
    for path in FIELDS:
        assert (f"  {flag_of(path)} " in variants or f"  {flag_of(path)}\n" in variants) == (path in VARIANT_FIELDS)


def test_defaults_are_those_of_the_preset() -> None:
    train = importlib.import_module("pps_fast.train.__main__")
    start = train.TrainArguments(config=PPSConfig())
    options = find_options(train.PROGRAM, start)
    assert options["proposals.sigma"].default == 9.0 and options["losses.pull"].default == 5.0
    assert "(default: 9.0)" in full_help(train.PROGRAM, start)
    # nothing is no default, but zero is one
    text = full_help(train.PROGRAM, start)
    assert "(default: 0.0)" in text and "(default: None)" not in text


def test_help_of_a_subcommand_has_its_options_only() -> None:
    draw = _program("draw")
    text = short_help(draw, None, ["curves", "--help"])
    assert "--runs PATH" in text and "--query" not in text and text.startswith("usage: python -m pps_fast.draw curves")


def test_text_of_a_field_is_the_string_below_it_also_of_an_inherited_one() -> None:
    texts = field_texts(importlib.import_module("pps_fast.ablate").AblateArguments)
    assert texts["tables"] == "which tables to make" and texts["out"].startswith("folder for the runs and the tables")


@pytest.mark.parametrize(("columns", "longest"), [(60, 60), (300, 110)])
def test_lines_fit_the_terminal(columns: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = short_help(_program("eval"), None).split("examples:")[0]
    assert longest - 25 < max(map(len, text.splitlines())) <= longest


def test_a_flag_is_negated_in_its_section() -> None:
    assert negated("--plots") == "--no-plots"
    assert negated("--losses.push-normalize") == "--losses.no-push-normalize"
