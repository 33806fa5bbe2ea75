"""Options from dataclasses, presets first; mistakes as one line with the right exit status."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import tyro

from pps_fast.cli import PresetName, exit_status, parse, parse_with_preset
from pps_fast.config import PPSConfig
from pps_fast.config_tree import OLD_NAMES, override
from pps_fast.files import FullDiskError, Note
from pps_fast.help_text import Program, flag_of
from pps_fast.ops.dispatch import BackendError
from pps_fast.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Something to parse."""

    preset: PresetName = "demo"
    """named config"""
    count: int = 3
    """a number of its own"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """everything else"""


PROGRAM = Program(
    name="program",
    description="What it does.",
    examples="an example",
    options=Arguments,
    first=("preset", "count"),
    aliases={"--number": "--count"},
)


def _parse(*argv: str) -> Arguments:
    return parse_with_preset(PROGRAM, argv, default="tiny")


@pytest.mark.parametrize("argv", [["--preset", "activitynet"], ["--preset=activitynet"]])
def test_preset_is_where_the_options_start(argv):
    assert _parse() == Arguments(preset="tiny", config=PRESETS["tiny"])
    assert _parse(*argv) == Arguments(preset="activitynet", config=PRESETS["activitynet"])


def test_options_of_the_config_have_no_prefix_and_override_the_preset():
    arguments = _parse("--losses.pull", "0", "--preset", "charades", "--count", "5", "--proposals.negatives.sigma", "2")
    expected = override(PRESETS["charades"], {"losses.pull": 0.0, "proposals.negatives.sigma": 2.0})
    assert arguments == Arguments(preset="charades", count=5, config=expected)


def test_last_preset_counts():
    assert _parse("--preset", "demo", "--preset", "charades").config == PRESETS["charades"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "nonsense"], "nonsense"),
        (["--preset=tinny"], "error: no preset 'tinny': perhaps tiny; the presets are"),
        (["--preset"], "--preset"),
        (["--losses.pull", "-1"], "losses.pull = -1.0: expected 0 or more"),
        (["--losses.pul", "1"], "--losses.pul"),
        (["--train.precision", "fp8"], "fp8"),
    ],
)
def test_wrong_option_or_value_is_explained_with_status_2(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        _parse(*argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Places:
    """Words before, between and behind options."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    number: float | None = None
    """one value"""
    names: tuple[str, ...] = ()
    """several values"""
    quiet: bool = False
    """no value"""


@pytest.mark.parametrize(
    ("argv", "words", "names"),
    [
        (["a", "--number", "-1", "b c", "--quiet", "d"], ("a", "b c", "d"), ()),
        (["--number=-1", "a", "--names", "x", "y", "--quiet", "b"], ("a", "b"), ("x", "y")),
        (["a", "--quiet", "True", "b", "--number", "-1", "--names", "x", "y"], ("a", "b"), ("x", "y")),
        (["--number", "-1", "--quiet", "--", "a", "--names"], ("a", "--names"), ()),
    ],
)
def test_words_of_no_option_may_stand_anywhere(argv, words, names):
    program = Program(name="p", description="", examples="", options=Places, positional="words")
    expected = Places(words=words, number=-1.0, names=names, quiet=True)
    assert parse(program, argv) == expected


def test_parts_that_do_not_fit_together_are_one_line_and_status_2(capsys):
    assert exit_status(lambda: _parse("--losses.num-best", "9").count) == 2
    assert capsys.readouterr().err == "error: losses.num_best = 9: expected at most proposals.num_proposals = 3\n"


def test_a_word_that_no_message_can_repeat_is_refused_in_one_short_line(capsys):
    assert exit_status(lambda: _parse("--losses.pull", "x" * 5000).count) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 250 and "a word of 5,000 characters, expected at most 1,000" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes. Error code 12"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
    ],
)
def test_too_little_memory_is_one_sentence_with_status_2(error, capsys):
    def program() -> int:
        raise error

    assert exit_status(program) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: not enough memory") and "use a larger machine" in said and said.count("\n") == 1
    assert ("(20.00 GiB were asked for)" in said) == ("CUDA" in str(error))


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--count", "4", "--help"], ["--help-all"]])
def test_help_is_printed_with_status_0(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        _parse(*argv)
    text = capsys.readouterr().out
    assert caught.value.code == 0 and text.startswith("usage: python -m pps_fast.program [options]\n\nWhat it does.")
    assert ("--losses.pull X" in text) == (argv == ["--help-all"])


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--losses.push-normalize", "False"], False),
        (["--losses.push_normalize=false"], False),
        (["--losses.no-push-normalize"], False),
        (["--losses.no-push-normalize", "--losses.push-normalize", "True"], True),
        (["--losses.push-normalize", "--count", "3"], True),
    ],
)
def test_a_flag_is_given_alone_or_with_its_value(argv, expected):
    assert _parse(*argv).config.losses.push_normalize is expected


@pytest.mark.parametrize("argv", [["--number", "5"], ["--number=5"], ["--count", "5"]])
def test_another_accepted_name_is_the_same_option(argv):
    assert _parse(*argv).count == 5


@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_old_names_of_options_are_accepted(form):
    assert _parse(*form.format(flag_of("train.optimise"), "alternating").split()).config.train.update == "alternating"
    assert "train.optimise" in OLD_NAMES


def test_a_value_that_looks_like_an_old_name_stays():
    assert _parse("--data.path=--number").config.data.path == "--number"


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (ValueError("wrong"), 2, "error: wrong\n"),
        (BackendError("no kernel"), 2, "error: no kernel\n"),
        (FloatingPointError("nan"), 1, "error: nan\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_exit_status_tells_mistakes_apart(error, status, printed, capsys):
    def program() -> int:
        raise error

    assert exit_status(program) == status
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (PermissionError(13, "Permission denied", "runs/x"), "error: runs/x: Permission denied\n"),
        (
            FullDiskError("a.json: not written, because the disk is full"),
            "error: a.json: not written, because the disk",
        ),
        (OSError("no number"), "error: no number\n"),
    ],
)
def test_errors_of_files_are_one_line_with_the_file(error, printed, capsys):
    def program() -> int:
        raise error

    assert exit_status(program) == 2
    assert capsys.readouterr().err.startswith(printed)


def test_notes_are_one_line_each_and_other_warnings_stay_warnings(capsys):
    def program() -> int:
        warnings.warn(Note("something to know"), stacklevel=1)
        warnings.warn(Note("something to know"), stacklevel=1)
        with pytest.warns(UserWarning, match="other"):
            warnings.warn("other", stacklevel=1)
        return 0

    assert exit_status(program) == 0
    assert capsys.readouterr().err == "note: something to know\n" * 2


class _FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("is_printing_all", "status", "expected"), [(False, 0, 0), (True, 0, 2), (True, 1, 1)])
def test_text_lost_to_a_full_disk_is_said_and_an_error_where_it_is_all_there_is(
    is_printing_all, status, expected, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdout", _FullDisk())
    assert exit_status(lambda: status, is_printing_all=is_printing_all) == expected
    assert "stdout: what was printed is not complete (No space left on device)" in capsys.readouterr().err


def test_exit_status_lets_results_and_bugs_through():
    def bug() -> int:
        raise KeyError("bug")

    assert exit_status(lambda: 7) == 7
    with pytest.raises(KeyError):
        exit_status(bug)


@pytest.mark.parametrize("count", [3, 400, 4000])
def test_a_complaint_of_the_parser_is_short_whatever_the_number_of_words(count, capsys):
    with pytest.raises(SystemExit):
        _parse("--counts", *map(str, range(count)))
    lines = capsys.readouterr().err.splitlines()
    assert sum(len(line.strip("│╭╮╰╯─ ")) for line in lines) <= 1000
    assert "--counts" in "".join(lines[:4]) and "--help" in "".join(lines[-2:])
    assert any("more lines" in line for line in lines) == (count > 3)


def _of_torchrun(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "node", "MASTER_PORT": 29500}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("rank", "prefix"), [(0, ""), (1, "rank 1 of 2: ")])
def test_a_program_for_one_process_is_not_run_by_several(rank, prefix, monkeypatch, capsys):
    _of_torchrun(monkeypatch, rank)
    assert exit_status(lambda: 0) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {prefix}started 2 times by torchrun, which is for pps_fast.train"
    )
    assert exit_status(lambda: 0, is_divided=True) == 0


def test_a_wrong_option_is_said_by_the_first_of_several_processes(monkeypatch, capsys):
    _of_torchrun(monkeypatch, 1)
    with pytest.raises(SystemExit):
        _parse("--losses.pull", "x")
    assert capsys.readouterr().err == ""
    _of_torchrun(monkeypatch, 0)
    with pytest.raises(SystemExit):
        _parse("--losses.pull", "x")
    assert "--losses.pull" in capsys.readouterr().err


def test_a_number_of_a_gpu_is_refused_in_a_sentence(capsys):
    assert exit_status(lambda: _parse("--device", "cuda:1").count) == 2
    assert capsys.readouterr().err.startswith("error: device = 'cuda:1': expected auto, cpu, cuda; ")
