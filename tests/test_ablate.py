"""python -m pps_fast.ablate: rows times seeds times folds from one command."""

from __future__ import annotations

import re

import pytest

from pps_fast import ablate
from pps_fast.ablations import ABLATIONS, FULL
from pps_fast.config_tree import override
from pps_fast.lab import command
from pps_fast.presets import PRESETS
from tests.support.lab_experiments import OPTIONS


def test_help_teaches_tables_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        ablate.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", text) for name in (*ABLATIONS, "all"))
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
        ([], "tables = 'none': expected one or more of alignment_fit, alignment, table2,"),
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


@pytest.mark.parametrize("name", ABLATIONS)
def test_tables_have_the_papers_rows_and_the_full_model(name):
    preset = {"alignment": "align_demo", "alignment_fit": "alignment"}.get(name, "demo")
    config = override(PRESETS[preset], {"train.epochs": 1})
    table = ablate.ablation_table(name, config, preset)
    labels = [row.label for row in table.rows]
    assert labels[: len(ABLATIONS[name].rows)] == [row.label for row in ABLATIONS[name].rows]
    assert table.rows[table.reference].config == config and table.overrides == {"train.epochs": 1}
    assert all(override(config, row.overrides) == row.config for row in table.rows)


def test_full_model_that_no_row_is_becomes_the_last_row():
    table = ablate.ablation_table(
        "fig3",
        override(PRESETS["demo"], {"proposals.num_proposals": 4, "proposals.negatives.num_components": 6}),
        "demo",
    )
    assert table.rows[-1].label == FULL and table.reference == len(table.rows) - 1


def test_all_means_every_table_of_the_presets_method(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "run_tables", lambda tables, design, options: seen.append((tables, design)) or 0)
    assert ablate.main(["table5", "all", "--seeds", "2", "--folds", "0", "3"]) == 0
    (tables, design) = seen[0]
    assert [table.name for table in tables] == [name for name in ABLATIONS if not name.startswith("alignment")]
    assert design.seed_folds == [(8, 0), (8, 3), (9, 0), (9, 3)]
