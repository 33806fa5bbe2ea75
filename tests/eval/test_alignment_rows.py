"""The alignment's baseline rows: fitted to training pairs, left out on request, never the model's own row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pps_fast.alignment import fit as fit_module
from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.eval import alignment_rows
from pps_fast.eval.alignment_rows import ALIGNMENT_ROWS, ZERO_SHOT_ROW, alignment_models
from pps_fast.eval.evaluate import evaluate
from pps_fast.eval.report import format_markdown, format_table
from pps_fast.eval.results import MODEL
from pps_fast.presets import PRESETS
from tests.support.eval_fakes import CONFIG, SPLITS, KnowsTheQuery, store


def test_the_rows_stand_in_the_report_and_the_model_is_compared_with_the_better_one() -> None:
    report = evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, progress=False)
    assert set(ALIGNMENT_ROWS) <= report.rows.keys()
    for metric, compared in report.best_alignment.items():
        best = max(report.rows[name][metric].value for name in ALIGNMENT_ROWS)
        assert report.rows[compared.row][metric].value == best
        assert compared.difference.value == pytest.approx(report.rows[MODEL][metric].value - best)
    for text in (format_table(report), format_markdown(report)):
        assert "alignment, Gaussian filter" in text and "model - best alignment" in text
        assert "fitted in closed form to the same training pairs, the model is" in text


@pytest.mark.parametrize("selector", ["vote", "vote_iou_weighted", "vote_loss_weighted"])
def test_the_rows_answer_by_reward_whatever_selects_among_the_model_s_proposals(selector: str) -> None:
    rows = []
    for name in ("lowest_loss", selector):
        report = evaluate(
            KnowsTheQuery(), store(), SPLITS, override(CONFIG, {"inference.selector": name}), progress=False
        )
        rows.append({row: report.rows[row] for row in ALIGNMENT_ROWS})
    assert rows[0] == rows[1]


def test_the_rows_are_left_out_on_request() -> None:
    config = override(CONFIG, {"inference.alignment_rows": False})
    report = evaluate(KnowsTheQuery(), store(), SPLITS, config, progress=False)
    assert not set(ALIGNMENT_ROWS) & report.rows.keys() and not report.best_alignment
    assert "alignment" not in format_table(report)


def test_the_rows_are_fitted_to_the_training_pairs() -> None:
    fewer = replace(SPLITS, train=SPLITS.train[:30])
    models = [alignment_models(store(), splits.train, CONFIG, 3) for splits in (SPLITS, fewer)]
    name = next(iter(ALIGNMENT_ROWS))
    first, second = (model[name].alignment.maps for model in models)
    assert first.shape == second.shape and not bool((first == second).all())


def test_an_alignment_has_no_row_that_is_itself() -> None:
    default = override(PRESETS["alignment"], {"data": CONFIG.data})
    assert list(alignment_models(store(), SPLITS.train, default, 5)) == ["alignment, max-sum window"]
    standardized = override(default, {"alignment.curve": "standardized"})
    assert list(alignment_models(store(), SPLITS.train, standardized, 5)) == list(ALIGNMENT_ROWS)


def test_equal_pairs_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return fit_module.fit_alignment(*arguments, **options)

    monkeypatch.setattr(alignment_rows, "fit_alignment", counted)
    alignment_rows._fit.cache_clear()
    for _ in range(2):
        alignment_models(store(), SPLITS.train, CONFIG, 3)
    assert len(calls) == 1
    alignment_models(store(), SPLITS.train[:20], CONFIG, 3)
    assert len(calls) == 2


def test_frames_and_sentences_of_one_joint_encoder_add_a_row_that_needs_no_pairs() -> None:
    data = store().data
    recipe = {"sources": [{"extraction": {"encoder": "joint@1"}}], "sentence_vectors": {"encoder": "joint@1"}}
    # the sentence of the truth: the mean of the frames in its moment
    inside = [
        frames[int(start * len(frames)) : int(end * len(frames)) + 1].mean(axis=0)
        for frames, (start, end) in zip(data.features[data.sample_video], data.moment, strict=True)
    ]
    joint = replace(data, sentence_vectors=np.array(inside, dtype=np.float32), recipe=recipe)
    splits = replace(SPLITS, train=SPLITS.train[:0])
    assert list(alignment_models(Store(joint), splits.train, CONFIG, 3)) == [ZERO_SHOT_ROW]
    report = evaluate(KnowsTheQuery(), Store(joint), SPLITS, CONFIG, progress=False)
    assert report.rows[ZERO_SHOT_ROW]["R@1 mIoU"].value > report.rows["whole video"]["R@1 mIoU"].value
    assert all(compared.row != ZERO_SHOT_ROW for compared in report.best_alignment.values())
    other = replace(joint, recipe={**recipe, "sentence_vectors": {"encoder": "other@1"}})
    assert ZERO_SHOT_ROW not in alignment_models(Store(other), SPLITS.train, CONFIG, 3)
