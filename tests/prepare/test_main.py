"""The command: exit statuses, help, nothing half-written."""

from __future__ import annotations

import pytest

from pps_fast.data.prepared import read_prepared
from pps_fast.prepare.__main__ import main
from pps_fast.prepare.readers.features import FeatureReader
from tests.support.prepare_inputs import make_inputs, to_argv


def test_a_good_command_writes_the_file_and_prints_the_table(tmp_path, capsys):
    assert main(to_argv(make_inputs(tmp_path))) == 0
    printed = capsys.readouterr().out
    assert "protocol as_is" in printed and "prepared in" in printed
    assert read_prepared(tmp_path / "out.h5").num_samples == 7


def test_the_same_command_twice_gives_the_same_bytes_and_says_so(tmp_path, capsys):
    argv = to_argv(make_inputs(tmp_path))
    written = []
    for _ in range(2):
        assert main(argv) == 0
        written.append((tmp_path / "out.h5").read_bytes())
        assert ("MiB), replaces an earlier data set\n" in capsys.readouterr().out) == (len(written) == 2)
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ("--help", ("examples:", "--pool", "--skip-bad", "1111")),
        ("--help-all", ("examples:", "--features planted", "c3d_features", "--planted-noise")),
    ],
)
def test_help_teaches_by_examples(option, texts, capsys):
    with pytest.raises(SystemExit) as stop:
        main([option])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in texts)


def test_a_wrong_option_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--protocol", "best"])
    assert stop.value.code == 2
    assert "protocol" in capsys.readouterr().err


def test_interruption_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    inputs = make_inputs(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())

    def interrupt(self, video_id):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureReader, "read", interrupt)
    assert main(to_argv(inputs)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
