"""Leaves out the test that compiles every kernel for every architecture, unless --aot-all asks for it."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", "aot: compiles the whole table of kernels, minutes of CPU time; needs --aot-all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests marked `aot` without --aot-all."""
    if config.getoption("--aot-all"):
        return
    deselected = [item for item in items if "aot" in item.keywords]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if "aot" not in item.keywords]
