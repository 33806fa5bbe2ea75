"""`python -m pps_fast.draw` from the outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pps_fast.data.prepared import write_prepared
from pps_fast.draw import __main__ as command
from pps_fast.draw import pictures
from pps_fast.eval.predictions import predict_samples
from pps_fast.runs.checkpoint import load_model
from tests.support.train_runs import run_small, small_config, small_input

CONFIG = small_config(train__max_steps=2, train__trace_every=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two traced runs of other layouts on the same data."""
    folder = tmp_path_factory.mktemp("runs")
    single = {"proposals__layout": "uniform", "losses__pull": 0.0, "proposals__num_proposals": 2}
    run_small(CONFIG, folder / "full")
    run_small(small_config(train__max_steps=2, train__trace_every=1, **single), folder / "single")
    return [str(folder / "full"), str(folder / "single")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the drawing functions are given, in turn."""
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    seen = []

    def spy_on(draw):
        def spy(*arguments):
            seen.append(arguments)
            return draw(*arguments)

        return spy

    for name in ("draw_timeline", "draw_variants", "draw_curves", "draw_trajectories"):
        monkeypatch.setattr(pictures, name, spy_on(getattr(pictures, name)))
    return seen


def test_timeline_shows_the_longest_sentence_and_the_answer_that_the_evaluation_counted(runs, drawn, capsys):
    assert command.main(["timeline", "--model", runs[0]]) == 0
    path = Path(runs[0], "timeline.png")
    assert capsys.readouterr().out == f"written: {path}\n" and path.read_bytes().startswith(b"\x89PNG")
    ((view,),) = drawn
    store, splits = small_input(CONFIG)
    words = [len(store.data.sentences[sample].split()) for sample in splits.test]
    assert view.sample == splits.test[words.index(max(words))]
    assert (view.sentence, view.split) == (store.data.sentences[view.sample], "test")
    counted = predict_samples(load_model(runs[0])[0], store, splits.test, CONFIG)
    row = splits.test.tolist().index(view.sample)
    assert torch.equal(counted.top1[row], view.prediction.top1[0]) and torch.equal(
        counted.nll[row], view.prediction.nll[0]
    )


def test_sample_is_chosen_by_number_or_by_words(runs, drawn, tmp_path):
    out = ["--out", str(tmp_path / "x.svg")]
    assert command.main(["timeline", "--model", runs[0], "--sample", "3", *out]) == 0
    first = (tmp_path / "x.svg").read_bytes()
    assert command.main(["timeline", "--model", runs[0], "--sample", "3", *out]) == 0
    assert first == (tmp_path / "x.svg").read_bytes() and b"<svg" in first
    sentence = small_input(CONFIG)[0].data.sentences[52]
    words = sentence.removesuffix(" .").upper().replace(" ", "  ")
    assert command.main(["timeline", "--model", runs[0], "--query", words, *out]) == 0
    (third,) = drawn[-1]
    assert [drawn[0][0].sample, drawn[0][0].split] == [3, "train"]
    assert sentence.removesuffix(" .") in third.sentence and third.split == "test"


def test_variants_ask_every_model_the_same_query(runs, drawn, tmp_path):
    options = ["--labels", "full", "one Gaussian", "--out", str(tmp_path / "x.png")]
    assert command.main(["variants", "--models", *runs, *options]) == 0
    ((views,),) = drawn
    assert list(views) == ["full", "one Gaussian"]
    assert [view.layout.components_per_proposal for view in views.values()] == [(1, 2, 3), (1, 1)]
    assert len({view.sample for view in views.values()}) == 1


def test_curves_and_trajectories_are_drawn_from_run_directories(runs, drawn):
    assert command.main(["curves", "--runs", *runs]) == 0
    assert command.main(["trajectories", "--runs", *runs]) == 0
    assert Path(runs[0], "curves.png").is_file() and Path(runs[0], "trajectories.png").is_file()
    (curves,), (traced, queries, proposal) = drawn
    # two of training, one of what the video tells
    assert {label: len(lines) for label, lines in curves.items()} == {"full": 3, "single": 3}
    assert [len(run.lines) for run in traced.values()] == [3, 3] and proposal == -1
    lengths = [len(query.sentence.split()) for query in queries]
    assert len(queries) == 2 and lengths[0] > lengths[1]
    assert command.main(["trajectories", "--runs", runs[0], "--samples", "4", "--proposal", "2"]) == 0
    assert [query.sample for query in drawn[-1][1]] == [4] and drawn[-1][2] == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("timeline --model nowhere", "nowhere: no checkpoint here"),
        ("timeline --model {0} --sample 60", "sample 60: the data set has samples 0 to 59"),
        ("timeline --model {0} --sample 1 --query x", "--sample and --query: give one of them"),
        ("timeline --model {0} --query xyz", "no sentence of the test split has these words in a row"),
        ("timeline --model {0} --split validation", "--split validation: has no samples"),
        ("timeline --model {0} --out x.pdf", "--out x.pdf: expected a .png or .svg file"),
        ("timeline --model {0} --out no/such/x.png", "in a folder that exists"),
        ("timeline --model {0} --data nowhere.h5", "nowhere.h5: no such file"),
        ("variants --models {0} {1} --labels one", "--labels: 1 labels for 2 runs"),
        ("variants --models {0} {0}", "same label"),
        ("curves --runs nowhere", "nowhere: no metrics.jsonl"),
        ("trajectories --runs {0} --samples 40", "sample 40 was not traced"),
        ("trajectories --runs {0} --proposal 0", "--proposal 0: expected 1 or more"),
        ("trajectories --runs nowhere", "nowhere: no trace.jsonl"),
    ],
)
def test_errors_are_one_line_and_status_two(runs, drawn, capsys, argv, message):
    assert command.main(argv.format(*runs).split()) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1


def test_runs_on_other_data_are_compared_only_on_data_that_are_named(runs, drawn, tmp_path, capsys):
    other, file = str(tmp_path / "other"), str(tmp_path / "planted.h5")
    run_small(small_config(train__max_steps=1, train__trace_every=1, data__planted__seed=1), tmp_path / "other")
    for argv in (["variants", "--models"], ["trajectories", "--runs"]):
        assert command.main([*argv, runs[0], other]) == 2
        assert "other: trained on another data set than" in capsys.readouterr().err
    write_prepared(file, small_input(CONFIG)[0].data)
    assert command.main(["variants", "--models", runs[0], other, "--data", file]) == 0


def test_missing_matplotlib_is_said_before_any_work(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(pictures, "load_pps", None)
    assert command.main(["timeline", "--model", runs[0]]) == 2
    assert "pip install 'pps_fast[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize("picture", ["", "timeline", "variants", "curves", "trajectories"])
def test_help_teaches_by_example(picture, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([*picture.split(), "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m pps_fast.draw" in printed
    assert picture or "python -m pps_fast.draw timeline --model runs/demo" in printed
