"""The record of one evaluation: what `evaluate` returns and `report` prints.

Letters: M scored samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.metrics import SampleTable
from pps_fast.types import Prediction

MODEL = "model"
SHUFFLED = "model, shuffled queries"
# the metric of the one-line verdict: it has no threshold to choose
HEADLINE = "R@1 mIoU"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The model against another row on the same pairs.

    Attributes:
        row: name of the other row.
        difference: model minus row, points of percent, with its paired bootstrap interval.
    """

    row: str
    difference: Estimate

    @property
    def verdict(self) -> str:
        """ "better by 3.10 [2.00, 4.20]", "worse by ..." or "not distinguishable, ..."."""
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if low > 0:
            return f"better by {value:.2f} [{low:.2f}, {high:.2f}]"
        if high < 0:
            return f"worse by {-value:.2f} [{-high:.2f}, {-low:.2f}]"
        return f"not distinguishable, difference {value:+.2f} [{low:+.2f}, {high:+.2f}]"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model said.

    Attributes:
        samples: [M] int64 sample indices.
        is_scored: [M] bool, which of them have times to compare the answers with.
        prediction: of these samples, moments clipped to the video.
        device: type of the device that computed them.
    """

    samples: np.ndarray
    is_scored: np.ndarray
    prediction: Prediction
    device: str


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """All results of an evaluation. All figures are percentages; intervals are 95 % bootstrap by video.

    Attributes:
        name, protocol: of the data set, from its provenance.
        split: which samples were answered.
        num_samples, num_videos: how many pairs were scored, of how many videos.
        num_unscored: how many pairs were answered and not scored, for want of times.
        num_fit_samples: training pairs the blind baselines were fitted on; 0 where none has times and they were fitted
            on the scored pairs of other videos.
        selector, num_proposals, seed, num_bootstrap: settings that decide the figures.
        rows: row name -> metric name -> estimate; a row has only the metrics that apply to it.
        intervals: name of a blind baseline -> its [start, end] guesses, fractions of the video's length; not of those
            whose guesses differ between folds.
        best_blind: metric name -> the model against the blind baseline that scores best on these very pairs.
        best_alignment: metric name -> the model against the alignment row that scores best; empty without such rows.
        control: metric name -> the model against itself with shuffled queries; empty with a single video.
        tables: row name -> overlaps of the model, its control and all baselines with the truth, for each scored sample;
            rows, best_blind, best_alignment, control and tables are empty where no sample has times.
        answers: of all samples of the split.
    """

    name: str
    protocol: str
    split: str
    num_samples: int
    num_unscored: int
    num_videos: int
    num_fit_samples: int
    selector: str
    num_proposals: int
    seed: int
    num_bootstrap: int
    rows: dict[str, dict[str, Estimate]]
    intervals: dict[str, list[list[float]]]
    best_blind: dict[str, Comparison]
    best_alignment: dict[str, Comparison]
    control: dict[str, Comparison]
    tables: dict[str, SampleTable]
    answers: Answers

    @property
    def headline(self) -> str:
        """One sentence: the best blind baseline on `HEADLINE`, and whether the model beats it."""
        if not self.rows:
            return f"No pair of the {self.split} split has times: {self.num_unscored} were answered, nothing is scored."
        comparison = self.best_blind[HEADLINE]
        model, baseline = self.rows[MODEL][HEADLINE].value, self.rows[comparison.row][HEADLINE].value
        return (
            f"{HEADLINE}: the best blind baseline is '{comparison.row}' ({baseline:.2f}); "
            f"the model ({model:.2f}) is {comparison.verdict}."
        )

    @property
    def verdict(self) -> str | None:
        """One sentence for a stranger: whether the model finds moments better than chance; None without scores.

        Chance is the best blind baseline and, where there are two videos, the model's answers to shuffled queries;
        what an interval does not tell from chance is said not to be.
        """
        chance = [(f"the best blind baseline ('{one.row}')", one) for one in (self.best_blind.get(HEADLINE),) if one]
        if HEADLINE in self.control:
            chance.append(("its own answers to shuffled queries", self.control[HEADLINE]))
        if not chance:
            return None
        against = ", and ".join(f"{one.verdict} points of mIoU beside {name}" for name, one in chance)
        if all(one.difference.low > 0 for _, one in chance):
            better = ", and ".join(f"{one.verdict.removeprefix('better ')} over {name}" for name, one in chance)
            return f"This model finds moments better than chance, in points of mIoU {better}."
        if any(one.difference.high < 0 for _, one in chance):
            return f"This model does not find moments better than chance: it is {against}."
        return f"It is not shown that this model finds moments better than chance: it is {against}."

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-able dicts, without the values per sample."""
        plain = {
            name: getattr(self, name)
            for name in ("name", "protocol", "split", "num_samples", "num_videos", "num_fit_samples", "selector")
        }
        plain["num_unscored"] = self.num_unscored
        plain.update(
            {name: getattr(self, name) for name in ("num_proposals", "seed", "num_bootstrap", "headline", "verdict")}
        )
        plain["unit"] = "percent; low and high bound the 95 % bootstrap interval by video"
        plain["rows"] = {
            row: {column: _plain(e) for column, e in columns.items()} for row, columns in self.rows.items()
        }
        plain["intervals"] = self.intervals
        for name in ("best_blind", "best_alignment", "control"):
            plain[name] = {
                metric: {"row": one.row, "verdict": one.verdict, "difference": _plain(one.difference)}
                for metric, one in getattr(self, name).items()
            }
        return plain


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
