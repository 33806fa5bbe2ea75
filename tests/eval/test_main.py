"""`python -m pps_fast.eval` from the outside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.prepared import write_prepared
from pps_fast.eval.__main__ import main
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.runs.checkpoint import Header, describe_data, save_checkpoint
from pps_fast.runs.pointers import point
from pps_fast.train.optimizer import Adam
from pps_fast.train.state import training_state
from tests.support.answers import ANSWERS, QUERIES, ranked, write_lines

CONFIG = override(PRESETS["tiny"], {"data.validation_fraction": 0.3, "data.planted.num_videos": 12})
"""planted data, small; a third of the training videos validates"""


def _save(run: Path, config) -> Path:
    """Writes the checkpoint of an untrained model as `python -m pps_fast.train` does."""
    data = load_data(config.data)
    torch.manual_seed(0)
    model = PPS(config, data.sizes)
    header = Header(
        step=3,
        epoch=1,
        batch=0,
        elapsed_s=1.0,
        device="cpu",
        config=config,
        sizes=data.sizes,
        data=describe_data(data),
    )
    point(
        run, "latest", save_checkpoint(run, model, training_state(model, [Adam(model.parameters(), lr=1e-3)]), header)
    )
    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("run"), CONFIG)


def test_scores_the_checkpoints_own_data_and_writes_beside_it(checkpoint: Path, capsys) -> None:
    assert main(["--model", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert "R@1 mIoU: the best blind baseline is" in printed
    names = ("evaluation_test.json", "evaluation_test.md", "predictions_test.jsonl")
    assert f"written: {', '.join(str(checkpoint / name) for name in names)}\n" in printed
    assert json.loads((checkpoint / "evaluation_test.json").read_text())["split"] == "test"


def test_options_replace_what_the_checkpoint_says(checkpoint: Path, tmp_path: Path, capsys) -> None:
    moments = tmp_path / "moments.jsonl"
    options = ["--split", "validation", "--seed", "7", "--selector", "lowest_loss"]
    options += ["--out", str(tmp_path / "x"), "--predictions", str(moments)]
    assert main(["--model", str(checkpoint), *options]) == 0
    record = json.loads((tmp_path / "x" / "evaluation_validation.json").read_text())
    assert (record["split"], record["seed"], record["selector"]) == ("validation", 7, "lowest_loss")
    assert record["config"]["inference"]["seed"] == 7
    lines = [json.loads(line) for line in moments.read_text().splitlines()]
    assert len(lines) == record["num_samples"] > 0
    # without a vote the answer is the first of the ranking
    for line in lines:
        scores = [score for *_, score in line["pred_relevant_windows"]]
        assert scores == sorted(scores, reverse=True)
    # the same stands beside the report
    assert moments.read_bytes() == (tmp_path / "x" / "predictions_validation.jsonl").read_bytes()
    assert str(moments) in capsys.readouterr().out


def test_same_data_from_a_file_gives_the_same_figures(checkpoint: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "planted.h5"
    write_prepared(file, load_data(CONFIG.data))
    for name, options in (("embedded", []), ("file", ["--data", str(file)])):
        assert main(["--model", str(checkpoint), "--out", str(tmp_path / name), *options]) == 0
    assert "note:" not in capsys.readouterr().err
    rows = [json.loads((tmp_path / name / "evaluation_test.json").read_text())["rows"] for name in ("embedded", "file")]
    assert rows[0] == rows[1]


def test_other_data_is_scored_with_a_note(checkpoint: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "other.h5"
    write_prepared(file, load_data(override(CONFIG.data, {"planted.seed": 1})))
    assert main(["--model", str(checkpoint), "--out", str(tmp_path), "--data", str(file)]) == 0
    assert "note: the model was trained on another data set ('planted')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nowhere"], "nowhere: no checkpoint here"),
        (["--data", "nowhere.h5"], "nowhere.h5: no such file"),
        (["--fold", "9"], "--data.fold (--fold) 9"),
        (["--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--predictions", "no/such/folder/x.jsonl"], "expected a file in a folder that exists"),
        (["--threads", "0"], "threads = 0"),
        (["--thresholds", "0.5", "2"], "--thresholds (0.5, 2.0): expected one or more values above 0"),
        (["--clip"], "--clip: has no meaning with --model; leave it out"),
        (["--judge", "x.jsonl"], "--model and --judge: give one of them"),
    ],
)
def test_errors_are_one_line_and_status_two(checkpoint: Path, capsys, options: list[str], message: str) -> None:
    assert main(["--model", str(checkpoint), *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert printed.out == ""


def test_file_in_place_of_the_folder_is_refused(checkpoint: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert main(["--model", str(checkpoint), "--out", str(path)]) == 2
    assert f"--out {path}: is a file" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_data_of_other_sizes_is_refused(checkpoint: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "wide.h5"
    write_prepared(file, load_data(override(CONFIG.data, {"planted.frame_dim": 9})))
    assert main(["--model", str(checkpoint), "--data", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: the data set has features of width 9, the model was trained with 8; it has word vectors"
    )
    assert "FeatureSizes" not in said and said.endswith("choose the data set of the model with --data\n")


def test_fold_the_checkpoint_was_trained_on_is_not_a_test(tmp_path: Path, capsys) -> None:
    planted = load_data(CONFIG.data)
    file = tmp_path / "folds.h5"
    write_prepared(file, replace(planted, fold=planted.sample_video % 3))
    run = _save(tmp_path / "run", override(CONFIG, {"data.path": str(file), "data.fold": 0}))
    capsys.readouterr()
    assert main(["--model", str(run)]) == 0
    assert main(["--model", str(run), "--fold", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the model was trained on" in error and "it was trained for fold 0" in error


def test_help_teaches_by_example(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "python -m pps_fast.eval --model runs/demo" in capsys.readouterr().out


def test_unknown_choice_is_status_two(checkpoint: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", str(checkpoint), "--split", "tests"])
    assert stopped.value.code == 2
    assert "test" in capsys.readouterr().err


def test_the_old_name_of_model_is_accepted(checkpoint: Path, tmp_path: Path, capsys) -> None:
    printed = []
    for name in ("--model", "--checkpoint"):
        assert main([name, str(checkpoint), "--out", str(tmp_path)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_thresholds_and_the_form_of_predictions_are_chosen(checkpoint: Path, tmp_path: Path, capsys) -> None:
    moments = tmp_path / "moments.jsonl"
    options = ["--thresholds", "0.2", "--predictions", str(moments), "--predictions-form", "ranked_windows"]
    assert main(["--model", str(checkpoint), "--out", str(tmp_path), *options]) == 0
    record = json.loads((tmp_path / "evaluation_test.json").read_text())
    assert set(record["best_blind"]) >= {"R@1 IoU>=0.2", "R@1 mIoU"} and "R@1 IoU>=0.5" not in record["best_blind"]
    lines = [json.loads(line) for line in moments.read_text(encoding="utf-8").splitlines()]
    assert all("ranked_predicted_windows" in line for line in lines)
    # what stands beside the report keeps what scores it
    assert "iou" in json.loads((tmp_path / "predictions_test.jsonl").read_text().splitlines()[0])
    # its own file says what it answers
    capsys.readouterr()
    assert main(["--judge", str(moments), "--annotations", str(moments), "--thresholds", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert f"{record['rows']['model']['R@1 mIoU']['value']:.2f} [" in printed and "mAP, % [95 %]" in printed


def test_answers_in_files_are_judged_and_compared(tmp_path: Path, capsys) -> None:
    annotations = write_lines(tmp_path / "queries.jsonl", QUERIES)
    answers = write_lines(tmp_path / "answers.jsonl", ANSWERS)
    other = write_lines(tmp_path / "other.jsonl", [ranked(row) for row in ANSWERS[:2]])
    options = ["--annotations", str(annotations), "--against", str(other), "--clip", "--out", str(tmp_path / "out")]
    assert main(["--judge", str(answers), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("queries.jsonl, protocol full.") and "answers - other" in printed
    record = json.loads((tmp_path / "out" / "judgment.json").read_text())
    assert record["is_clipped"] and record["sources"]["protocol"] == "full"
    assert record["sources"]["answers"]["file"] == "answers.jsonl" and "judgment.md" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--annotations: missing; --judge needs"),
        (["--annotations", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--annotations", "queries.jsonl", "--against", "answers.jsonl"], "is the file of --judge; name another"),
        (["--annotations", "queries.jsonl", "--against", "queries.jsonl"], "queries.jsonl, line 1: no answer"),
        (["--annotations", "queries.jsonl", "--data", "x.h5"], "--data: has no meaning with --judge"),
        (["--annotations", "queries.jsonl", "--predictions-form", "qvhighlights"], "--predictions-form: has no"),
        (["--annotations", "queries.jsonl", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--annotations", "queries.jsonl", "--out", "queries.jsonl"], "queries.jsonl: is a file; give a folder"),
    ],
)
def test_errors_of_judging_are_one_line_and_status_two(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "queries.jsonl", QUERIES)
    write_lines(tmp_path / "answers.jsonl", ANSWERS)
    assert main(["--judge", "answers.jsonl", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert printed.out == ""


def test_neither_model_nor_answers_is_refused(capsys) -> None:
    assert main([]) == 2
    assert "--model and --judge: give one of them" in capsys.readouterr().err
