"""python -m pps_fast.ablate: rows times seeds times folds from one command."""

from __future__ import annotations

import pytest

from pps_fast import ablate
from pps_fast.ablations import ABLATIONS
from tests.lab.experiments import OPTIONS


def test_help_teaches_tables_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        ablate.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*ABLATIONS, "all"))
    for part in (
        "python -m pps_fast.ablate evidence",
        "--seeds",
        "--folds",
        "--jobs",
        "--tables-only",
        "--losses.pull",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "tables = 'none': expected one or more of table2,"),
        (["table5", "--losses.pull", "0"], "losses.pull = 0.0: expected above 0"),
        (["table5", "--folds", "0"], "the data set has no folds"),
        (["table5", "--data", "nowhere.h5"], "nowhere.h5: no such file"),
    ],
)
def test_mistakes_are_one_line(argv, message, tmp_path, capsys):
    assert ablate.main([*OPTIONS, *argv, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())
