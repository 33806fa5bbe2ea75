"""Small sizes for benchmarks whose presets are those of real data sets."""

from __future__ import annotations

from typing import Any

import pytest

from pps_fast.config_tree import override
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes

SIZES = FeatureSizes(frame_dim=16, word_dim=12, vocab_size=60, num_segments=200)
LENGTHS = (4, 7, 11, 13)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a benchmark's module narrow models on narrow features, so that a step of theirs takes a tenth of a second.

    Returns:
        A function of the module, and of the width D and the number of layers of every stack.
    """

    def narrow_module(module: Any, width: int, num_layers: int) -> None:
        layers = {"generator.num_layers": num_layers, "reconstructor.num_layers": num_layers}
        presets = {name: override(config, {"encoder.hidden_dim": width, **layers}) for name, config in PRESETS.items()}
        monkeypatch.setattr(module, "PRESETS", presets)
        monkeypatch.setattr(module, "sizes_of", lambda preset: (SIZES, LENGTHS))

    return narrow_module
