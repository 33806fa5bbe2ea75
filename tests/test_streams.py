"""Printing never decides what a program has written or how it ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pps_fast.streams import TolerantStream, tolerant_streams

ROOT = Path(__file__).parents[1]


class _Failing(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.failure = error
        self.calls = 0

    def write(self, text: str) -> int:
        self.calls += 1
        raise self.failure


@pytest.mark.parametrize(
    ("error", "is_loss"),
    [
        (BrokenPipeError(32, "Broken pipe"), False),
        (OSError(5, "Input/output error"), False),
        (OSError(28, "No space left on device"), True),
        (ValueError("I/O operation on closed file"), False),
    ],
)
def test_a_stream_that_breaks_is_silent_from_then_on(error: Exception, is_loss: bool) -> None:
    stream = _Failing(error)
    tolerant = TolerantStream(stream)
    assert tolerant.write("abc") == 3 and tolerant.write("d") == 1
    tolerant.flush()
    assert stream.calls == 1 and (tolerant.error is not None) == is_loss and not tolerant.isatty()


def test_a_print_within_a_print_loses_only_itself() -> None:
    stream = _Failing(RuntimeError("reentrant call"))
    tolerant = TolerantStream(stream)
    tolerant.write("a")
    tolerant.write("b")
    assert stream.calls == 2 and tolerant.error is None


def test_characters_that_a_terminal_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    tolerant = TolerantStream(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    tolerant.write("50 ± 3, naïve")
    assert raw.getvalue() == b"50 \\xb1 3, na\\xefve"


def test_no_stream_at_all_is_one_that_nobody_reads() -> None:
    tolerant = TolerantStream(None)
    assert tolerant.write("abc") == 3 and not tolerant.isatty() and tolerant.encoding == "utf-8"


def test_streams_come_back_and_blocks_may_be_nested(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with tolerant_streams() as outer, tolerant_streams() as inner:
        print("text")
        assert inner is outer is sys.stdout
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "text\n"


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=ROOT)


# a program that prints, writes a file and prints again; what a library writes to descriptor 2 must not get into it
_PROGRAM = """
import contextlib, os, sys
from pps_fast.cli import exit_status
def program():
    print("before " * 5000)
    with open(sys.argv[1], "w") as file:
        with contextlib.suppress(OSError):
            os.write(2, b"a library speaks")
        file.write("written \\u00b1 whole")
    print("after \\u00b1", flush=True)
    print("told", file=sys.stderr)
    return 0
sys.exit(exit_status(program, is_printing_all="all" in sys.argv))
"""


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        ("2>&-", 0),
        (">&-", 0),
        ("<&- >&- 2>&-", 0),
        ("| true", 0),
        ("2>&1 | true", 0),
        ("> /dev/full", 0),
        ("> /dev/full 2> /dev/full", 0),
        ("all > /dev/full", 2),
        ("all | true", 0),
    ],
)
def test_what_happens_to_the_output_changes_neither_file_nor_status(
    redirection: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    written = tmp_path / "written"
    done = _shell(f"set -o pipefail; $PYTHON {tmp_path}/program.py {written} {redirection}")
    assert written.read_text() == "written ± whole"
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    if "/dev/full" in redirection and "2>" not in redirection:
        assert "what was printed is not complete (No space left on device)" in done.stderr


def test_a_terminal_of_ascii_only_gets_every_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    done = _shell(f"PYTHONIOENCODING=ascii $PYTHON {tmp_path}/program.py {tmp_path}/written")
    assert done.returncode == 0 and done.stdout.endswith("after \\xb1\n")
