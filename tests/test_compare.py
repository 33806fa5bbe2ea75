"""python -m pps_fast.compare: presets with one set of options, the first as reference."""

from __future__ import annotations

import json
import re

import pytest

from pps_fast import compare
from pps_fast.config_tree import override
from pps_fast.presets import PRESETS
from tests.support.lab_experiments import CHANGES, OPTIONS

# what the others have in common with tiny, so that they fit its data
SAME = [*OPTIONS[1:], "--data.planted.num-segments=16", "--data.planted.frame-dim=8"]


def test_help_teaches_presets_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        compare.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", text) for name in PRESETS)
    for part in ("python -m pps_fast.compare demo tiny", "--human", "--seeds", "--tables-only", "--encoder.hidden-dim"):
        assert part in text


def test_an_option_means_the_same_to_every_preset_even_where_it_is_one_ones_own_value():
    arguments, configs = compare.parse(
        ["charades", "charades_clip_small", "--encoder.hidden-dim", "256", "--seeds", "2"]
    )
    assert arguments.seeds == 2 and list(configs) == ["charades", "charades_clip_small"]
    assert configs["charades"] == PRESETS["charades"]
    assert configs["charades_clip_small"] == override(PRESETS["charades_clip_small"], {"encoder.hidden_dim": 256})
    table = compare.comparison_table("x", configs)
    assert table.reference == 0 and table.rows[1].overrides["generator.num_layers"] == 2


def test_presets_are_trained_and_compared(tmp_path):
    argv = ["tiny", "demo", *SAME, "--no-plots", "--jobs", "1", "--out", str(tmp_path), "--name", "two"]
    assert compare.main(argv) == 0
    record = json.loads((tmp_path / "two.json").read_text())
    assert [row["label"] for row in record["rows"]] == ["tiny", "demo"] and record["reference"] == "tiny"
    assert record["rows"][1]["difference"]["all"]["R@1 mIoU"]["runs"] == 1
    assert record["rows"][1]["overrides"]["encoder.hidden_dim"] == 64
    assert set(CHANGES) - {"data.planted.num_segments"} <= set(record["overrides"])
    # planted queries are among nobody's answers
    (tmp_path / "people.csv").write_text("video_id,description,start,end\n" + "v,s,1,2\n" * 5)
    assert compare.main([*argv, "--human", str(tmp_path / "people.csv"), "--tables-only"]) == 0
    record = json.loads((tmp_path / "two.json").read_text())
    assert record["human"] == {} and record["subsets"]["re-annotated"]["pairs"] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "presets = 'none': expected one or more of demo,"),
        (["tiny", "tiny"], "presets = ['tiny', 'tiny']: expected each preset once"),
        (["tiny", "demo"], "rows on different data sets"),
        (["tiny", "--name", "../x"], "--name = '../x': expected letters, digits"),
        (["tiny", "--name", ".hidden"], "--name = '.hidden': expected letters, digits"),
        (["tiny", "--human", "nowhere.csv"], "nowhere.csv: no such file"),
        (["tiny", "--data", "x.h5", "--data.path", "y.h5"], "two data sets"),
    ],
)
def test_mistakes_are_one_line(argv, message, tmp_path, capsys):
    assert compare.main([*argv, "--no-plots", "--device", "cpu", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
