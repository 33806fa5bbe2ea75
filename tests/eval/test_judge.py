"""Other people's answers: figures by hand, and those that are published of real predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pps_fast.eval.answers import Matched, match_answers
from pps_fast.eval.blind import WHOLE_VIDEO
from pps_fast.eval.evaluate import evaluate
from pps_fast.eval.judge import Judgment, judge
from pps_fast.eval.judge_report import format_judgment
from pps_fast.eval.report import write_predictions
from pps_fast.eval.results import MODEL
from pps_fast.prepare.readers.answers import read_answers, read_queries
from tests.support.answers import ANSWERS, QUERIES, write_lines
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, SeesOnlyTheVideo, store
from tests.support.shared import shared_path


def _judged(annotations: Path, *paths: Path, is_clipped: bool = False) -> Judgment:
    queries = read_queries(annotations, (), "full")
    files = [match_answers(path.stem, queries, read_answers(path)) for path in paths]
    return judge(queries, files, (0.3, 0.5, 0.7), is_clipped=is_clipped, num_bootstrap=20)


def _figures(judgment: Judgment, *metrics: str) -> list[float]:
    row = judgment.rows[judgment.files[0].name]
    return [row[metric].value for metric in metrics]


@pytest.fixture
def without_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the fitted blind baselines, which take most of the time and are tested in test_blind.py."""
    whole = {WHOLE_VIDEO: torch.tensor([[0.0, 1.0]], dtype=torch.float64)}
    monkeypatch.setattr("pps_fast.eval.judge.cross_fit_baselines", lambda *arguments: whole)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_lines(tmp_path / "queries.jsonl", QUERIES), write_lines(tmp_path / "answers.jsonl", ANSWERS)


def test_figures_are_those_by_hand(files: tuple[Path, Path]) -> None:
    judgment = _judged(*files)
    # overlaps of the answers 1, 10/15 and 0; the best of the ranking 1, 1 and 0
    assert _figures(judgment, "R@1 mIoU", "R@1 IoU>=0.7", "R@2 mIoU") == pytest.approx([500 / 9, 100 / 3, 200 / 3])
    # the first query finds both windows at IoU 0.5 and one above, the second its window first, the third none
    assert _figures(judgment, "mAP IoU>=0.5", "mAP IoU>=0.75") == pytest.approx([200 / 3, 50.0])
    assert (judgment.num_queries, judgment.num_windows, judgment.num_videos, judgment.num_unscored) == (3, 4, 2, 1)
    assert judgment.num_outside == {"answers": 1} and judgment.files[0].num_unused == 1
    assert judgment.num_by_length == {"short, to 10 s": 2, "middle, to 30 s": 0, "long": 1}
    assert judgment.by_length["answers"]["long"].value == 0.0
    assert judgment.rows[WHOLE_VIDEO]["R@1 mIoU"].value == pytest.approx(100 * (0.3 + 0.5 + 2 / 3) / 3)


def test_clipping_moves_only_what_reaches_beyond_the_video(files: tuple[Path, Path]) -> None:
    judgment = _judged(*files, is_clipped=True)
    assert _figures(judgment, "R@1 mIoU", "R@2 mIoU") == pytest.approx([200 / 3, 200 / 3])


def test_a_query_without_an_answer_is_missed(files: tuple[Path, Path], tmp_path: Path) -> None:
    empty = {**ANSWERS[1], "pred_relevant_windows": []}
    few = write_lines(tmp_path / "few.jsonl", [ANSWERS[0], empty])
    for is_clipped in (False, True):
        judgment = _judged(files[0], few, is_clipped=is_clipped)
        assert judgment.num_missing == {"few": 2}
        assert _figures(judgment, "R@1 mIoU", "mAP IoU>=0.5") == pytest.approx([100 / 3, 100 / 3])


def test_a_second_file_is_compared_query_by_query(files: tuple[Path, Path], tmp_path: Path) -> None:
    same = write_lines(tmp_path / "same.jsonl", ANSWERS)
    few = write_lines(tmp_path / "few.jsonl", ANSWERS[:1])
    judgment = _judged(*files, same, few)
    assert {one.difference.low for one in judgment.paired["same"].values()} == {0.0}
    assert {one.difference.high for one in judgment.paired["same"].values()} == {0.0}
    assert judgment.paired["few"]["R@1 mIoU"].difference.value == pytest.approx(200 / 9)


def test_queries_of_one_video_have_the_whole_video_as_their_only_blind_baseline(tmp_path: Path) -> None:
    annotations = write_lines(tmp_path / "queries.jsonl", QUERIES[:2])
    judgment = _judged(annotations, write_lines(tmp_path / "answers.jsonl", ANSWERS[:2]))
    assert set(judgment.rows) == {"answers", WHOLE_VIDEO}
    assert "R@1 mIoU" in judgment.best_blind and "R@2 mIoU" not in judgment.best_blind
    assert "R@2, % [95 %]" in format_judgment(judgment)


def test_without_times_there_is_nothing_to_judge(files: tuple[Path, Path]) -> None:
    queries = read_queries(files[0], (), "full")[-1:]
    with pytest.raises(ValueError, match="no query of the annotations has times"):
        judge(queries, [Matched(name="x", answers=[], num_unused=0)], (0.5,))


def test_our_predictions_are_judged_as_they_were_evaluated(tmp_path: Path) -> None:
    report = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    path = write_predictions(tmp_path / "ours.jsonl", report, DATA)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    queries = [
        {"vid": row["vid"], "query": row["query"], "duration": row["duration_s"], "relevant_windows": row["windows_s"]}
        for row in rows
    ]
    annotations = write_lines(tmp_path / "queries.jsonl", queries)
    others = [tmp_path / f"{form}.jsonl" for form in ("qvhighlights", "ranked_windows")]
    for other in others:
        write_predictions(other, report, DATA, other.stem)
    judgment = _judged(annotations, path, *others)
    for row in (one.name for one in judgment.files):
        for metric, estimate in report.rows[MODEL].items():
            assert judgment.rows[row][metric].value == pytest.approx(estimate.value, abs=1e-4), metric


@pytest.mark.usefixtures("without_fits")
def test_real_answers_have_the_figures_of_the_official_evaluation() -> None:
    folder = shared_path("data/qvhighlights")
    official = json.loads((folder / "moment_detr_sample_val_preds_metrics.json").read_text(encoding="utf-8"))
    judgment = _judged(folder / "highlight_val_release.jsonl", folder / "moment_detr_sample_val_preds.jsonl")
    assert (judgment.num_queries, judgment.num_windows) == (1550, 2803)
    full = official["full"]
    expected = [full["MR-R1"]["0.5"], full["MR-R1"]["0.7"]]
    expected += [full["MR-mAP"][m] for m in ("average", "0.5", "0.75")]
    metrics = ("R@1 IoU>=0.5", "R@1 IoU>=0.7", "mAP 0.5 to 0.95", "mAP IoU>=0.5", "mAP IoU>=0.75")
    assert [round(value, 2) for value in _figures(judgment, *metrics)] == expected == [53.94, 34.84, 32.2, 54.96, 31.01]
    by_length = [round(estimate.value, 2) for estimate in judgment.by_length[judgment.files[0].name].values()]
    assert by_length == [official[name]["MR-mAP"]["average"] for name in ("short", "middle", "long")]


@pytest.mark.usefixtures("without_fits")
@pytest.mark.parametrize(
    ("is_clipped", "expected"), [(False, [41.45, 25.70, 9.95, 26.62]), (True, [42.04, 26.83, 11.42, 27.33])]
)
def test_real_answers_on_charades_have_their_known_figures(is_clipped: bool, expected: list[float]) -> None:
    path = shared_path("data/charades_sta/moment_detr_zeroshot_full_test_predictions.jsonl")
    judgment = _judged(path, path, is_clipped=is_clipped)
    metrics = ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU")
    assert [round(value, 2) for value in _figures(judgment, *metrics)] == expected
