"""Scores a model beside baselines that see neither video nor query.

Paper: Section 4, "Evaluation metrics"; the blind baselines and the control are this project's.

Letters: M scored samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.distributed import ALONE, World
from pps_fast.eval.alignment_rows import ALIGNMENT_ROWS, alignment_models
from pps_fast.eval.blind import blind_table, cross_fit_baselines, fit_blind_baselines
from pps_fast.eval.bootstrap import VideoBootstrap
from pps_fast.eval.compared import ComparedRows
from pps_fast.eval.control import shuffle_queries
from pps_fast.eval.metrics import MAX_RANK, SampleTable, metric_means, sample_table, sample_values
from pps_fast.eval.predictions import predict_samples, take
from pps_fast.eval.predictor import Predictor
from pps_fast.eval.results import HEADLINE, MODEL, SHUFFLED, Answers, EvalReport
from pps_fast.types import Prediction


def score(
    model: nn.Module,
    store: Store,
    samples: np.ndarray,
    config: PPSConfig,
    world: World = ALONE,
    predictor: Predictor | None = None,
) -> dict[str, float]:
    """Returns metric name -> percentage on some samples, without blind baselines, control or intervals.

    The names are those of `metrics.sample_values`; `results.HEADLINE` is the one to choose checkpoints by.

    Samples without times are left out; `predictor` is that of `predict_samples`.

    Raises:
        ValueError: without samples, or where none has times.
    """
    is_scored = store.data.num_windows[samples] > 0
    if len(samples) and not is_scored.any():
        raise ValueError("score: no sample has times, so that nothing can be scored; train with train.keep = 'last'")
    samples = samples[is_scored]
    prediction = predict_samples(model, store, samples, config, world=world, predictor=predictor)
    table = sample_table(prediction, torch.from_numpy(store.data.truth(samples)))
    return metric_means(table, config.inference.iou_thresholds)


def validation_scorer(
    store: Store, samples: np.ndarray, config: PPSConfig, world: World = ALONE
) -> Callable[[nn.Module], dict[str, float]]:
    """Returns the function by which training scores a model: `score` on these samples, and its headline as "mIoU"."""

    @cache
    def predictor_of(model: nn.Module) -> Predictor:
        return Predictor(model, config, store.device)

    def score_validation(model: nn.Module) -> dict[str, float]:
        metrics = score(model, store, samples, config, world, predictor_of(model))
        return {**metrics, "mIoU": metrics[HEADLINE]}

    return score_validation


def evaluate(
    model: nn.Module,
    store: Store,
    splits: Splits,
    config: PPSConfig,
    *,
    split: str = "test",
    progress: bool = True,
    world: World = ALONE,
) -> EvalReport:
    """Scores a model on one split beside its shuffled-query control, the blind baselines and closed-form alignment.

    The model runs twice: with the true queries, and with shuffled queries, where each video is asked the query of
    another video and scored against its true moment. The alignment is fitted to the pairs of `splits.train`, without
    times, unless `config.inference.alignment_rows` is off. Blind baselines are fitted on the moments of `splits.train`,
    or where these have no times on the scored samples of the other videos (`blind.cross_fit_baselines`). A sample
    without times gets an answer and no score; with several windows, the one that is met best counts.

    With the paper's presets neither batch-mates nor their number change a sample's answer (see `predict_samples`), nor
    do the processes of `world`, which divide the batches. The `released` presets mix samples on purpose.

    Raises:
        ValueError: for a `split` that is not train, validation or test, or has no samples.
    """
    samples, data = samples_of(splits, split), store.data
    answer = partial(predict_samples, store=store, progress=progress and world.is_first, world=world)
    by_model = partial(answer, model, config=config, predictor=Predictor(model, config, store.device))
    prediction, is_scored = by_model(samples=samples), data.num_windows[samples] > 0
    scored = samples[is_scored]
    predictions = {MODEL: take(prediction, torch.from_numpy(np.flatnonzero(is_scored)))}
    if len(scored):
        predictions |= _shuffled_prediction(by_model, store, scored, config.inference.seed)
        predictions |= _alignment_predictions(answer, store, splits.train, scored, config)
    fitted_on = splits.train[data.num_windows[splits.train] > 0]
    blind = _blind_baselines(data, scored, fitted_on, config)
    truth = torch.from_numpy(data.truth(scored))
    tables = {name: sample_table(moments, truth) for name, moments in predictions.items() if len(scored)}
    tables.update({name: blind_table(intervals, truth) for name, intervals in blind.items()})
    answers = Answers(samples=samples, is_scored=is_scored, prediction=prediction, device=store.device.type)
    return _assemble(data, answers, split, len(fitted_on), tables, blind, config)


def _shuffled_prediction(
    answer: Callable[..., Prediction], store: Store, scored: np.ndarray, seed: int
) -> dict[str, Prediction]:
    """Returns the control's row: the answers to shuffled queries; none where there is a single video."""
    video = store.data.sample_video[scored]
    if len(np.unique(video)) < 2:
        return {}
    return {SHUFFLED: answer(samples=scored[shuffle_queries(video, seed)], videos=video)}


def _alignment_predictions(
    answer: Callable[..., Prediction], store: Store, train: np.ndarray, scored: np.ndarray, config: PPSConfig
) -> dict[str, Prediction]:
    """Returns the rows of the alignments that are fitted to the training pairs."""
    models = alignment_models(store, train, config, min(config.proposals.num_proposals, MAX_RANK))
    return {name: answer(baseline, samples=scored, config=baseline.config) for name, baseline in models.items()}


def _blind_baselines(
    data: PreparedData, scored: np.ndarray, fitted_on: np.ndarray, config: PPSConfig
) -> dict[str, Tensor]:
    """Returns blind baselines, [n, 2] each; [B, n, 2] where they are fitted on the scored samples themselves."""
    if len(scored) == 0:
        return {}
    thresholds, num_ranked = config.inference.iou_thresholds, min(config.proposals.num_proposals, MAX_RANK)
    if len(fitted_on):
        return fit_blind_baselines(torch.from_numpy(data.truth(fitted_on)), thresholds, num_ranked)
    video = torch.from_numpy(data.sample_video[scored])
    return cross_fit_baselines(torch.from_numpy(data.truth(scored)), video, thresholds, num_ranked)


def samples_of(splits: Splits, split: str) -> np.ndarray:
    """Returns the samples of a split by its name."""
    if split not in ("train", "validation", "test"):
        raise ValueError(f"evaluate: split = {split!r}: expected one of train, validation, test")
    samples: np.ndarray = getattr(splits, split)
    if len(samples) == 0:
        raise ValueError(
            f"evaluate: the {split} split is empty; choose another, or a prepared fold with --data.fold, "
            "or hold samples out with --data.validation-fraction"
        )
    return samples


def _assemble(
    data: PreparedData,
    answers: Answers,
    split: str,
    num_fit_samples: int,
    tables: dict[str, SampleTable],
    blind: dict[str, Tensor],
    config: PPSConfig,
) -> EvalReport:
    """Adds means, intervals and comparisons to the tables of overlaps."""
    inference = config.inference
    video = torch.from_numpy(data.sample_video[answers.samples[answers.is_scored]])
    statistics: dict[str, dict] = {"rows": {}, "best_blind": {}, "best_alignment": {}, "control": {}}
    if tables:
        bootstrap = VideoBootstrap(video, num_resamples=inference.num_bootstrap, seed=inference.seed)
        statistics = _statistics(tables, blind, bootstrap, inference.iou_thresholds)
    return EvalReport(
        name=str(data.provenance.get("name", "not recorded")),
        protocol=str(data.provenance.get("protocol", "not recorded")),
        split=split,
        num_samples=len(video),
        num_unscored=len(answers.samples) - len(video),
        num_videos=len(torch.unique(video)),
        num_fit_samples=num_fit_samples,
        selector=inference.selector,
        num_proposals=answers.prediction.spans.shape[1],
        seed=inference.seed,
        num_bootstrap=inference.num_bootstrap,
        intervals=_constant(blind),
        tables=tables,
        answers=answers,
        **statistics,
    )


def _constant(blind: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    """Returns the guesses of the baselines that guess the same for every sample."""
    return {name: guesses.tolist() for name, guesses in blind.items() if guesses.ndim == 2}


def _statistics(
    tables: dict[str, SampleTable], blind: dict[str, Tensor], bootstrap: VideoBootstrap, thresholds: tuple[float, ...]
) -> dict[str, dict]:
    """Returns the fields rows, best_blind, best_alignment and control of the report."""
    values = {name: sample_values(table, thresholds) for name, table in tables.items()}
    compared = ComparedRows(values, MODEL, bootstrap)
    return {
        "rows": compared.rows,
        "best_blind": compared.against_best(blind),
        "best_alignment": compared.against_best(ALIGNMENT_ROWS),
        "control": compared.against(SHUFFLED) if SHUFFLED in values else {},
    }
