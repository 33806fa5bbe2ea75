"""What a job says: finished, in use, stopped, or why it failed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pps_fast.lab.jobs import IN_USE, JobOptions, reason_of, silence_s, work_on
from pps_fast.lab.runs import RESULT_FILE, plan_run
from pps_fast.runs import lock
from pps_fast.runs.lock import owning
from tests.support.lab_experiments import CONFIG

RUN = plan_run(CONFIG, {"sha256": "x"}, 1, None, "x")


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    return JobOptions(folder=tmp_path, device="cpu", threads=1, commit="c")


@pytest.mark.parametrize(
    ("status", "log", "reason"),
    [
        (0, "", "exit status 0 (see LOG)"),
        (2, "note: x\nerror: the file: is bad\n", "the file: is bad (see LOG)"),
        (2, "error: bad\nsubmitit INFO (today) - Job completed\n", "bad (see LOG)"),
        (-9, "error: of an earlier attempt\n", "ended by SIGKILL (see LOG)"),
        (143, "", "stopped by SIGTERM; its last step is saved, and a repeated command continues it (see LOG)"),
        (None, "", "ended without a word (see LOG)"),
        (None, "RuntimeError: x", "RuntimeError: x (see LOG)"),
    ],
)
def test_a_run_that_is_not_finished_has_a_reason(status, log, reason, options):
    options.log_of(RUN).write_text(log)
    assert reason_of(RUN, options, status) == reason.replace("LOG", str(options.log_of(RUN)))


def test_a_run_with_a_result_has_none(options):
    (options.folder / RUN.name).mkdir()
    (options.folder / RUN.name / RESULT_FILE).write_text("{}")
    assert reason_of(RUN, options, 0) is None and options.is_finished(RUN)
    # a signal after the result
    assert reason_of(RUN, options, -signal.SIGTERM) is not None


def test_a_run_that_another_process_has_is_no_error(options):
    with owning(options.folder / RUN.name):
        child = os.fork()
        if child == 0:
            # a process of its own has nothing of what this one has; and pytest's own ends are not for it
            lock._HELD.clear()
            os._exit(work_on(RUN, options, None))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == IN_USE
    assert options.log_of(RUN).read_text() == ""


def test_silence_is_the_age_of_the_newest_file(options):
    assert silence_s(RUN, options) == 0
    folder = options.folder / RUN.name
    folder.mkdir()
    assert silence_s(RUN, options) == 0
    for name, age in (("a", 500), ("b", 100)):
        (folder / name).write_text("")
        os.utime(folder / name, (0, (folder / name).stat().st_mtime - age))
    assert 99 < silence_s(RUN, options) < 160
