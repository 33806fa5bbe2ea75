"""Tables, files and exported predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast import __version__
from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict
from pps_fast.eval.blind import WHOLE_VIDEO
from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.evaluate import evaluate
from pps_fast.eval.report import format_markdown, format_table, write_predictions, write_report
from pps_fast.eval.results import MODEL, SHUFFLED, EvalReport
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, KnowsTheQuery, SeesOnlyTheVideo, store


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)


@pytest.mark.parametrize("show", [format_table, format_markdown])
def test_both_forms_name_protocol_counts_rows_and_verdict(report: EvalReport, show) -> None:
    text = show(report)
    assert f"{DATA.provenance['name']}, protocol {DATA.provenance['protocol']}, test split" in text
    assert f"{len(SPLITS.test)} pairs, {report.num_videos} videos" in text
    assert report.headline in text
    for row in (MODEL, SHUFFLED, WHOLE_VIDEO, "fixed interval, mIoU", "3 fixed intervals, IoU>=0.5"):
        assert row in text
    for name in ("model - best blind baseline", "model - shuffled queries"):
        assert text.count(name) == 2


def test_every_figure_stands_beside_its_interval(report: EvalReport) -> None:
    text = format_table(report)
    for estimates in report.rows.values():
        for estimate in estimates.values():
            assert f"{estimate.value:.2f} [{estimate.low:.1f}, {estimate.high:.1f}]" in text


def test_table_fits_a_terminal_and_columns_align(report: EvalReport) -> None:
    lines = format_table(report).splitlines()
    ruled = [number for number, line in enumerate(lines) if line.startswith("---")]
    assert len(ruled) == 2
    for number in ruled:
        assert {len(lines[number + offset]) for offset in (-1, 0, 1, 2)} == {len(lines[number])}
        assert len(lines[number]) <= 120


def test_markdown_rows_have_as_many_cells_as_the_header(report: EvalReport) -> None:
    rows = [line for line in format_markdown(report).splitlines() if line.startswith("|")]
    assert len(rows) > 10
    assert {row.count("|") for row in rows} == {6}


def test_single_proposal_has_no_table_of_recall_at_n(report: EvalReport) -> None:
    only_first = {
        row: {m: e for m, e in estimates.items() if m.startswith("R@1")} for row, estimates in report.rows.items()
    }
    text = format_table(replace(report, rows=only_first))
    assert "R@1, %" in text and "R@3" not in text


def test_missing_control_is_said(report: EvalReport) -> None:
    rows = {name: estimates for name, estimates in report.rows.items() if name != SHUFFLED}
    text = format_table(replace(report, rows=rows, control={}))
    assert "No shuffled-query control" in text and "model - shuffled" not in text


def test_files_carry_what_repeats_the_evaluation(report: EvalReport, tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new" / "folder", report, CONFIG, DATA)
    assert [path.name for path in paths] == ["evaluation_test.json", "evaluation_test.md", "predictions_test.jsonl"]
    record = json.loads(paths[0].read_text())
    assert from_dict(PPSConfig, record["config"]) == CONFIG
    assert record["provenance"] == json.loads(json.dumps(DATA.provenance))
    assert record["versions"] == {"pps_fast": __version__, "torch": str(torch.__version__)}
    assert record["seed"] == CONFIG.inference.seed
    assert paths[1].read_text() == format_markdown(report)
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [path.name for path in paths]


def test_interrupted_write_keeps_the_old_file(report: EvalReport, tmp_path: Path, monkeypatch) -> None:
    written = write_report(tmp_path, report, CONFIG, DATA)[0]
    before = written.read_bytes()

    def fail(path: Path, content: bytes) -> int:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, replace(report, seed=9), CONFIG, DATA)
    assert written.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_predictions_are_in_the_form_of_qvhighlights_and_can_be_scored_again(tmp_path: Path) -> None:
    report = evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, progress=False)
    path = write_predictions(tmp_path / "moments.jsonl", report, DATA)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(SPLITS.test)
    for sample, line in zip(SPLITS.test, lines, strict=True):
        video = DATA.sample_video[sample]
        assert (line["qid"], line["vid"], line["query"]) == (sample, DATA.video_ids[video], DATA.sentences[sample])
        assert line["duration_s"] == DATA.duration_s[video]
        assert line["moment_s"] == DATA.moment_s[sample].tolist()
        assert sorted(-score for *_, score in line["pred_relevant_windows"]) == [1.0, 2.0, 3.0]
        assert all(0 <= start <= end <= line["duration_s"] for start, end, _ in line["pred_relevant_windows"])
        # the fake gives the truth the lowest loss
        best = max(line["pred_relevant_windows"], key=lambda window: window[2])
        np.testing.assert_allclose(best[:2], line["moment_s"], rtol=1e-5)
        start, end, _ = line["pred_relevant_windows"][0]
        low, high = line["moment_s"]
        overlap = max(min(end, high) - max(start, low), 0) / (max(end, high) - min(start, low))
        assert line["iou"] == pytest.approx(overlap, rel=1e-5)
    mean = 100 * np.mean([line["iou"] for line in lines])
    assert mean == pytest.approx(report.rows[MODEL]["R@1 mIoU"].value, rel=1e-9)


def test_the_answer_of_a_vote_stands_first(report: EvalReport, tmp_path: Path) -> None:
    prediction = replace(
        report.answers.prediction,
        spans=torch.tensor([[[0.0, 0.5], [0.2, 0.4], [0.2, 0.6]]]).expand(len(report.answers.samples), -1, -1),
        nll=torch.tensor([[1.0, 2.0, 3.0]]).expand(len(report.answers.samples), -1),
        top1=torch.tensor([[0.2, 0.4]]).expand(len(report.answers.samples), -1),
    )
    answers = replace(report.answers, prediction=prediction)
    path = write_predictions(tmp_path / "x.jsonl", replace(report, answers=answers), DATA)
    for line in map(json.loads, path.read_text().splitlines()):
        windows = np.array(line["pred_relevant_windows"])
        assert windows[:, 2].tolist() == [-2.0, -1.0, -3.0]
        np.testing.assert_allclose(windows[:, :2] / line["duration_s"], [[0.2, 0.4], [0, 0.5], [0.2, 0.6]], rtol=1e-6)


def test_recall_at_n_that_shuffling_does_not_change_is_explained(report: EvalReport) -> None:
    # this model does not look at the query, so that nothing of it changes
    assert "R@3 is the same with shuffled queries" in format_table(report)
    assert "R@3 is the same with shuffled queries" in format_markdown(report)
    assert "R@1 is the same" not in format_table(report)

    def compared(low: float, high: float) -> EvalReport:
        difference = Estimate(value=0.5, low=low, high=high)
        control = {metric: replace(one, difference=difference) for metric, one in report.control.items()}
        return replace(report, control=control)

    assert "R@3 is not distinguishable from that with shuffled queries" in format_table(compared(-1.0, 2.0))
    clear = format_table(compared(0.25, 0.75))
    assert "R@3 is" not in clear and "R@3, %" in clear


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_table_is_no_wider_than_the_terminal(report: EvalReport, columns: int) -> None:
    wide = [line for line in format_table(report, columns).splitlines() if len(line) > columns]
    # a name and one figure stand on one line whatever its width
    assert not wide or columns < 60


def test_predictions_have_all_windows_and_names_of_queries(tmp_path: Path, report: EvalReport) -> None:
    first, second = report.answers.samples[:2].tolist()
    kept = ~np.isin(DATA.window_sample, [first, second])
    order = np.argsort(np.append(DATA.window_sample[kept], [second, second]), kind="stable")
    data = replace(
        DATA,
        window_s=np.append(DATA.window_s[kept], [[1.0, 2.0], [5.0, 6.0]], axis=0)[order],
        window_sample=np.append(DATA.window_sample[kept], [second, second])[order],
        query_id=[f"q{number}" for number in range(DATA.num_samples)],
    )
    path = write_predictions(tmp_path / "p.jsonl", report, data)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (lines[0]["moment_s"], lines[0]["windows_s"], lines[0]["qid"]) == (None, [], f"q{first}")
    assert (lines[1]["moment_s"], lines[1]["windows_s"]) == ([1.0, 2.0], [[1.0, 2.0], [5.0, 6.0]])
