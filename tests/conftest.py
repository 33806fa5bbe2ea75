"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.interpreter import spare_the_interpreter
from tests.support.slow import SLOW

if not torch.cuda.is_available():
    # read by triton when it is imported: its kernels then run on CPU tensors, for those who ask for backend "triton"
    os.environ["TRITON_INTERPRET"] = "1"
    spare_the_interpreter()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Makes tests that forget a seed repeatable; tests of randomness still pass their own."""
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:
        # torch.manual_seed notes the whole stack for every kind of device that may come later: a millisecond a test
        torch.default_generator.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    """Puts torch's setting back, whatever a test makes of it."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fills uninitialized floating memory with NaN, so that reading what was never written cannot go unnoticed."""

    def poison(allocate: Any) -> Any:
        def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
            value = allocate(*args, **kwargs)
            return value.fill_(float("nan")) if value.is_floating_point() else value

        return poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))
    yield


# what no environment can be expected to have; every other skip means that something was not installed
_EXPECTED_SKIPS = ("needs a CUDA device", "needs ../shared/", "needs chromium", "needs the demo extra")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --strict-skips, with which a complete environment proves that it is complete, and --aot-all."""
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail if a test was skipped for another reason than a missing GPU, shared data, chromium or gradio",
    )
    parser.addoption(
        "--aot-all",
        action="store_true",
        help="compile every kernel for every GPU architecture, not only a sample and what changed",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turns unexpected skips into a failure under --strict-skips."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # workers of pytest-xdist have no reporter; their reports reach the one of the main process
    if reporter is None or not session.config.getoption("--strict-skips"):
        return
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])]
    unexpected = sorted({reason for reason in reasons if not reason.startswith(_EXPECTED_SKIPS)})
    if unexpected:
        reporter.write_line(f"--strict-skips: tests were skipped because: {'; '.join(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests, and skips, with the reason, tests marked `gpu` where there is no CUDA device."""
    for item in items:
        file, _, name = item.nodeid.partition("::")
        if name.partition("[")[0] in SLOW.get(file, {}):
            item.add_marker(pytest.mark.slow)
    if torch.cuda.is_available():
        return
    for item in items:
        # keywords hold the names of folders, too: a clone into one named gpu would skip everything
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Spares the garbage collector the modules and tests that stay until the end."""
    gc.collect()
    gc.freeze()
