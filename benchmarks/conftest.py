"""Options of `pytest benchmarks`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the size of the batches that whole steps are timed on."""
    parser.addoption(
        "--step-batch-size",
        type=int,
        default=None,
        help="samples of a whole step: 2 on a CPU and 32, as in the paper, on a GPU unless given",
    )
