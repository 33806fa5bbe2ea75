"""Ctrl-C is one line and status 130, wherever it arrives."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pps_fast.interrupts import InterruptWatch

ROOT = Path(__file__).parents[1]


def test_error_that_follows_an_interrupt_is_the_interrupt_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught, InterruptWatch() as watch:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            # as a library does that knows no interrupts
            pass
        assert watch.is_interrupted
        raise AttributeError("half imported")
    assert isinstance(caught.value.__cause__, AttributeError)
    assert signal.getsignal(signal.SIGINT) is before


def test_error_without_an_interrupt_stays_itself() -> None:
    with pytest.raises(AttributeError), InterruptWatch():
        raise AttributeError("a bug")


def test_program_that_ends_well_in_spite_of_an_interrupt_has_ended_well() -> None:
    with InterruptWatch() as watch:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert watch.is_interrupted


def test_handlers_of_others_and_other_threads_are_left_alone() -> None:
    seen: list[object] = []

    def use() -> None:
        with InterruptWatch():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        use()
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_IGN, before]


_SLOW_IMPORT = """
import runpy, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "tyro":
            print("importing", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
sys.orig_argv, sys.argv = ["python", "-m", "pps_fast.train"], ["-m"]
runpy.run_module("pps_fast.train", run_name="__main__", alter_sys=True)
"""


def test_interrupt_during_imports_is_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_IMPORT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT) and errors == "error: interrupted\n"


_CALLBACK = """
import signal, sys
from pps_fast.interrupts import interrupt_in_one_line
from pps_fast.cli import exit_status
interrupt_in_one_line()
class Library:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
def program():
    Library()
    import time
    time.sleep(30)
sys.exit(exit_status(program))
"""


def test_interrupt_within_a_callback_of_a_library_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", _CALLBACK], capture_output=True, text=True, cwd=ROOT, timeout=25)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_the_package_changes_nothing_of_a_process_that_only_imports_it() -> None:
    code = "import sys, pps_fast; print(sys.excepthook is sys.__excepthook__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "True\n"
