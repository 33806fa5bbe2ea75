"""Estimates of every row of a table, and of one row against the others on the same pairs.

Letters: B scored pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from pps_fast.eval.bootstrap import Estimate, VideoBootstrap
from pps_fast.eval.results import Comparison


class ComparedRows:
    """Rows of one table with their intervals.

    Args:
        values: row -> metric -> [B] contribution of each pair, in percent.
        first: the row that is compared with others, whose metrics are compared.
        bootstrap: over the videos of the pairs.

    Attributes:
        rows: row -> metric -> estimate.
    """

    def __init__(self, values: Mapping[str, Mapping[str, Tensor]], first: str, bootstrap: VideoBootstrap) -> None:
        self._values, self._first, self._bootstrap = values, first, bootstrap
        self.rows: dict[str, dict[str, Estimate]] = {
            name: {metric: bootstrap.estimate(column) for metric, column in columns.items()}
            for name, columns in values.items()
        }

    def against(self, row: str) -> dict[str, Comparison]:
        """Returns metric -> the first row against another, which has all its metrics."""
        return {metric: self._compare(row, metric) for metric in self._values[self._first]}

    def against_best(self, names: Iterable[str]) -> dict[str, Comparison]:
        """Returns metric -> the first row against the best of some rows, the first named of equal ones.

        Names that are no rows are left out, and so are metrics that none of the rows has.
        """
        candidates, best = [name for name in names if name in self.rows], {}
        for metric in self._values[self._first]:
            scores = {name: self.rows[name][metric].value for name in candidates if metric in self.rows[name]}
            if scores:
                best[metric] = self._compare(max(scores, key=lambda name: scores[name]), metric)
        return best

    def _compare(self, row: str, metric: str) -> Comparison:
        difference = self._values[self._first][metric] - self._values[row][metric]
        return Comparison(row=row, difference=self._bootstrap.estimate(difference))
