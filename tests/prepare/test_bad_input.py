"""Bad input: one clear line, exit status 2, nothing left behind; and what --skip-bad makes of it."""

from __future__ import annotations

import pytest

from pps_fast.data.prepared import read_prepared
from tests.support.bad_inputs import CASES, Case, run_case, table

NAMES = [case.name for case in CASES]


def _new_files(folder, before):
    return sorted(path.name for path in folder.iterdir() if path.name not in before)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_bad_input_is_refused_in_one_line_with_its_remedy(case: Case, tmp_path):
    status, message = run_case(case, tmp_path)
    assert status == 2
    assert message.startswith("error: ")
    assert case.fragment in message
    assert len(message) <= 1000
    assert ("--skip-bad" in message) == (case.skipped is not None)
    assert not (tmp_path / "exploited").exists()
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out.h5").exists() or case.name == "output is another file"


@pytest.mark.parametrize("case", [case for case in CASES if case.skipped], ids=lambda case: case.name)
def test_skip_bad_prepares_the_rest_and_counts_what_was_left_out(case: Case, tmp_path):
    status, _ = run_case(case, tmp_path, skip_bad=True)
    assert status == 0
    data = read_prepared(tmp_path / "out.h5")
    skipped = data.provenance["skipped"]
    assert skipped["counts"][case.skipped] >= 1
    assert any(case.fragment.split(";")[0] in text for text in skipped["examples"]) or "more" in case.fragment
    assert not (tmp_path / "exploited").exists()
    assert data.features.shape[0] == len(data.video_ids) == len(set(data.sample_video.tolist()))


@pytest.mark.parametrize("case", [case for case in CASES if not case.skipped], ids=lambda case: case.name)
def test_skip_bad_does_not_hide_what_cannot_be_skipped(case: Case, tmp_path):
    status, message = run_case(case, tmp_path, skip_bad=True)
    assert status == 2
    assert case.fragment in message


def test_the_printed_table_shows_each_case_with_its_message():
    chosen = [CASES[0], CASES[-1]]
    lines = table(chosen).splitlines()
    assert len(lines) == 2 + len(chosen)
    assert f"| {CASES[0].name} | error: {CASES[0].fragment}" in lines[2] and lines[2].endswith("| continues |")
    assert CASES[-1].fragment in lines[3] and lines[3].endswith("| still refused |")
