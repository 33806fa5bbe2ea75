"""The JSON record of a table, made from finished runs; Markdown, CSV and plot are made from it.

DIR/NAME.json holds, in this order:

    format, version     "pps_fast.lab.table", 1
    name, title, note   table2, ...; what is varied; what a reader must know about the rows
    intervals           what the intervals cover, in words
    preset, overrides   of the row that others are compared with: named config, and dotted fields that differ from it
    data                name, sha256, protocol, provenance of the data set
    protocol            split, seeds, folds (null: the data set's own split), selector, blind (how rows are chosen)
    made                commits, machines, devices, torch: every one among the runs
    numerics            device, processor, threads, precision, torch: the same for all runs, see `numerics`
    spread              subset -> metric -> {value, degrees}: standard deviation of one run over seeds, in points,
                        with its degrees of freedom; without metrics that no row has for two seeds on a fold
    reference           label of the row that the others are compared with
    subsets             subset -> {pairs, videos} tested over all folds. "all"; the data set's own kinds of samples;
                        "re-annotated": those that five people answered, where their answers were given
    rows                in the table's order, each:
        label, overrides
        runs            [{name, seed, fold, updates, train_s, values: subset -> metric -> percent}]
        missing         [[seed, fold]] asked for and not finished
        results             subset -> metric -> summary of the model
        difference          the same, minus the reference row, over the seeds and folds both have; {} for the same runs
        against_blind       minus the best blind baseline of the same fold
        shuffled            the model's answers to shuffled queries
        against_shuffled    the model minus those
        paper           metric -> what the paper prints, or {}
    blind               subset -> metric -> {summary, rows: [which blind baseline was best in each fold]}
    human               row -> metric -> summary, over the subset "re-annotated"; {} without
    paper_source        how published figures must be labeled; they never share a column with ours

A summary is {value, runs, over_runs: [low, high] or null, over_videos: [low, high]}, in percent (differences in
points); see `statistics`. Blind baselines and people have a "run" a fold, and nothing over runs. Metrics are
"R@n IoU>=m" and "R@n mIoU" with n = 1 or min(K, 5). A metric that a row does not have is absent. The same runs
give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.ablations import PAPER
from pps_fast.config import PPSConfig
from pps_fast.eval.bootstrap import VideoBootstrap
from pps_fast.lab.experiment import Design
from pps_fast.lab.human import People, find_people, human_values
from pps_fast.lab.numerics import common_numerics
from pps_fast.lab.results import FinishedRun
from pps_fast.lab.statistics import COVERED, SeedFold, folds_of, seed_spread, summarize

FORMAT, VERSION = "pps_fast.lab.table", 1
ALL, REANNOTATED = "all", "re-annotated"
BLIND = "of every fold and column the blind baseline that scores best on the tested pairs themselves"

Values = dict[str, dict[SeedFold, Tensor]]
"""metric -> seed and fold -> [B] percentages"""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row: its label, how it differs from the reference, its config, and its finished runs by seed and fold."""

    label: str
    config: PPSConfig
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)
    runs: dict[SeedFold, FinishedRun] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table before its results.

    Attributes:
        preset, overrides: of the reference row, for the reader.
        rows: their labels are different.
        reference: index of the row that the others are compared with.
    """

    name: str
    title: str
    preset: str
    overrides: dict[str, Any]
    rows: list[TableRow]
    reference: int
    note: str = ""


def build_table(table: Table, design: Design, people: People | None = None) -> dict[str, Any]:
    """Returns the record of a table whose rows have their runs; see the module's docstring.

    Raises:
        ValueError: when no run is finished, runs round differently, or those of a fold were tested on other samples.
    """
    results = [result for row in table.rows for result in row.runs.values()]
    if not results:
        raise ValueError(f"{table.name}: none of its runs is finished; leave --tables-only out to train them")
    numerics, scope = common_numerics(results), _Scope(results, people)
    reference = table.rows[table.reference]
    first = results[0]
    records = [result.record for result in results]
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "intervals": COVERED,
        "preset": table.preset,
        "overrides": table.overrides,
        "data": {**first.record["data"], "provenance": first.provenance},
        "protocol": {
            "split": "test",
            "seeds": list(design.seeds),
            "folds": list(design.folds),
            "selector": reference.config.inference.selector,
            "blind": BLIND,
        },
        "made": {name: sorted({one[name] for one in records}) for name in ("commit", "machine", "device", "torch")},
        "numerics": numerics,
        "spread": {subset: _spread(table.rows, scope, subset) for subset in scope.subsets},
        "reference": reference.label,
        "subsets": {subset: scope.size(subset) for subset in scope.subsets},
        "rows": [_row(row, reference, design, scope) for row in table.rows],
        "blind": {subset: _blind(scope, subset) for subset in scope.subsets},
        "human": scope.human(),
        "paper_source": PAPER,
    }


class _Scope:
    """The samples behind a table: which belong to each subset, and resamplings of their videos."""

    def __init__(self, results: list[FinishedRun], people: People | None) -> None:
        self.of_fold: dict[int | None, FinishedRun] = {}
        for result in results:
            first = self.of_fold.setdefault(result.fold, result)
            if not np.array_equal(first.sample, result.sample):
                raise ValueError(f"runs {first.name} and {result.name} were tested on different samples of one fold")
        self.people = people
        self._bootstraps: dict[tuple, VideoBootstrap] = {}
        self.best_blind: dict[str, dict[str, dict[int | None, tuple[str, Tensor]]]] = {}
        kinds = [kind for result in self.of_fold.values() if result.kind is not None for kind in result.kind.tolist()]
        self.subsets = [ALL, *dict.fromkeys(kinds)]
        if people is not None:
            self.subsets.append(REANNOTATED)
        for subset in self.subsets:
            self.best_blind[subset] = self._find_blind(subset, results)

    def chosen(self, result: FinishedRun, subset: str) -> Tensor:
        """Returns [B] bool, which samples of a run belong to a subset."""
        if subset == ALL:
            return torch.ones(len(result.sample), dtype=torch.bool)
        if subset == REANNOTATED and self.people is not None:
            return torch.from_numpy(find_people(self.people, result.video_id, result.sentence)[0])
        return torch.from_numpy(result.kind == subset)

    def size(self, subset: str) -> dict[str, int]:
        videos = [result.video[self.chosen(result, subset)] for result in self.of_fold.values()]
        together = torch.cat(videos)
        return {"pairs": len(together), "videos": len(together.unique())}

    def summary(self, values: dict[SeedFold, Tensor], subset: str) -> dict[str, Any] | None:
        """Returns the summary of a metric over the subset's samples, or None if there are none."""
        values = {seed_fold: percentages for seed_fold, percentages in values.items() if len(percentages)}
        if not values:
            return None
        folds = folds_of(list(values))
        samples = (subset, folds)
        if samples not in self._bootstraps:
            owners = [self.of_fold[fold] for fold in folds]
            options = owners[0].config.inference
            video = torch.cat([owner.video[self.chosen(owner, subset)] for owner in owners])
            self._bootstraps[samples] = VideoBootstrap(video, num_resamples=options.num_bootstrap, seed=options.seed)
        return summarize(values, self._bootstraps[samples]).to_dict()

    def untrained(self, values: dict[SeedFold, Tensor], subset: str) -> dict[str, Any] | None:
        """Returns the summary of a baseline without training, which has no interval over runs."""
        summary = self.summary(values, subset)
        return None if summary is None else {**summary, "over_runs": None}

    def _find_blind(self, subset: str, results: list[FinishedRun]) -> dict[str, dict[int | None, tuple[str, Tensor]]]:
        """Returns metric -> fold -> name and values of the blind baseline that is best on the subset."""
        best: dict[str, dict[int | None, tuple[str, Tensor]]] = {}
        seen: set[tuple] = set()
        for result in results:
            # blind baselines depend on these alone
            kind = (result.fold, result.model.num_ranked, result.config.inference.iou_thresholds)
            chosen = self.chosen(result, subset)
            if kind in seen or not chosen.any():
                continue
            seen.add(kind)
            for name, columns in result.blind_values().items():
                for metric, column in columns.items():
                    column, folds = column[chosen], best.setdefault(metric, {})
                    if result.fold not in folds or column.mean() > folds[result.fold][1].mean():
                        folds[result.fold] = (name, column)
        return best

    def human(self) -> dict[str, dict[str, Any]]:
        """Returns the summaries of people."""
        if self.people is None:
            return {}
        rows: dict[str, Values] = {}
        for fold, result in self.of_fold.items():
            chosen, moments = find_people(self.people, result.video_id, result.sentence)
            truth = result.moment[torch.from_numpy(chosen)]
            scores = human_values(moments, truth, result.config.inference.iou_thresholds)
            for row, columns in scores.items():
                for metric, column in columns.items():
                    rows.setdefault(row, {}).setdefault(metric, {})[(0, fold)] = column
        untrained = partial(self.untrained, subset=REANNOTATED)
        summaries = {row: _summaries(columns, untrained) for row, columns in rows.items()}
        return {row: columns for row, columns in summaries.items() if columns}


def _summaries(values: Values, summary: Any) -> dict[str, Any]:
    """Returns metric -> summary, without metrics that no sample has."""
    summaries = {metric: summary(columns) for metric, columns in values.items()}
    return {metric: one for metric, one in summaries.items() if one is not None}


def _values(row: TableRow, scope: _Scope, subset: str, shuffled: bool = False) -> Values:
    """Returns the percentages of a row's runs on a subset."""
    values: Values = {}
    for seed_fold, result in row.runs.items():
        table = result.shuffled if shuffled else result.model
        chosen = scope.chosen(result, subset)
        for metric, column in result.values(table).items() if table is not None else ():
            values.setdefault(metric, {})[seed_fold] = column[chosen]
    return values


def _spread(rows: list[TableRow], scope: _Scope, subset: str) -> dict[str, Any]:
    """Returns metric -> `seed_spread` over the rows, without metrics whose runs all have a seed of their own."""
    by_metric: dict[str, list[dict[SeedFold, float]]] = {}
    for row in rows:
        for metric, columns in _values(row, scope, subset).items():
            means = {seed_fold: column.mean().item() for seed_fold, column in columns.items() if len(column)}
            by_metric.setdefault(metric, []).append(means)
    spreads = {metric: seed_spread(means) for metric, means in by_metric.items()}
    return {metric: one for metric, one in spreads.items() if one is not None}


def _minus(values: Values, others: Values) -> Values:
    """Returns the differences for the seeds and folds that both have."""
    return {
        metric: {run: column - others[metric][run] for run, column in columns.items() if run in others[metric]}
        for metric, columns in values.items()
        if metric in others
    }


def _row(row: TableRow, reference: TableRow, design: Design, scope: _Scope) -> dict[str, Any]:
    record: dict[str, Any] = {"label": row.label, "overrides": row.overrides}
    record["runs"] = [_run(seed_fold, result, scope) for seed_fold, result in row.runs.items()]
    record["missing"] = [list(seed_fold) for seed_fold in design.seed_folds if seed_fold not in row.runs]
    parts = ("results", "difference", "against_blind", "shuffled", "against_shuffled")
    record.update({part: {} for part in parts})
    for subset in scope.subsets:
        summary = partial(scope.summary, subset=subset)
        values, shuffled = _values(row, scope, subset), _values(row, scope, subset, shuffled=True)
        blind = {
            metric: {(seed, fold): folds[fold][1] for seed, fold in row.runs if fold in folds}
            for metric, folds in scope.best_blind[subset].items()
        }
        compared = {} if row.config == reference.config else _minus(values, _values(reference, scope, subset))
        columns_of_parts = (values, compared, _minus(values, blind), shuffled, _minus(values, shuffled))
        for part, columns in zip(parts, columns_of_parts, strict=True):
            record[part][subset] = _summaries(columns, summary)
    record["paper"] = row.paper
    return record


def _run(seed_fold: SeedFold, result: FinishedRun, scope: _Scope) -> dict[str, Any]:
    values = {}
    for subset in scope.subsets:
        chosen = scope.chosen(result, subset)
        columns = result.values(result.model) if chosen.any() else {}
        values[subset] = {metric: column[chosen].mean().item() for metric, column in columns.items()}
    costs = {name: result.record[name] for name in ("updates", "train_s")}
    return {"name": result.name, "seed": seed_fold[0], "fold": seed_fold[1], **costs, "values": values}


def _blind(scope: _Scope, subset: str) -> dict[str, Any]:
    """Returns metric -> summary of the best blind baselines over folds, with their names."""
    summaries = {}
    for metric, folds in scope.best_blind[subset].items():
        summary = scope.untrained({(0, fold): column for fold, (_, column) in folds.items()}, subset)
        summaries[metric] = {
            **(summary or {}),
            "rows": [folds[fold][0] for fold in folds_of([(0, fold) for fold in folds])],
        }
    return summaries
