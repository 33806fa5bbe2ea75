"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # read by triton when it is imported: its kernels then run on CPU tensors, for those who ask for backend "triton"
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Makes tests that forget a seed repeatable; tests of randomness still pass their own."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    """Puts torch's setting back, whatever a test makes of it."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fills uninitialised floating memory with NaN, so that reading what was never written cannot go unnoticed."""

    def poison(allocate: Any) -> Any:
        def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
            value = allocate(*args, **kwargs)
            return value.fill_(float("nan")) if value.is_floating_point() else value

        return poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))
    yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, tests marked `gpu` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
