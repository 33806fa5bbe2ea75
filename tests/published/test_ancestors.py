"""Settings and weights of the published CPL and CNM, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.published.ancestors import family_of
from pps_fast.published.weights import export_released, import_released, released_config
from tests.support.cases import SIZES, randomize, small_config
from tests.support.golden_model import Golden, model_of

GOLDEN = Path(__file__).parents[1] / "golden" / "cpl_tiny_gamma0.npz"
TRANSFORMER = {"d_model": 256, "num_heads": 4, "num_decoder_layers1": 3, "num_decoder_layers2": 3, "dropout": 0.1}
CPL = {"name": "CPL", "hidden_size": 256, "dropout": 0.1, "DualTransformer": TRANSFORMER}
CPL |= {"num_props": 8, "sigma": 9, "max_epoch": 30}
CPL_LOSS = {"margin_1": 0.1, "margin_2": 0.15}
CNM = {"name": "CNM", "hidden_size": 256, "dropout": 0.1, "DualTransformer": TRANSFORMER}
CNM_LOSS = {"beta_1": 0.1, "beta_2": 0.15}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cpl": (CPL | {"gamma": 0.5}, CPL_LOSS | {"lambda": 0.146, "alpha_1": 1, "alpha_2": 5}),
    "cpl_activitynet": (CPL | {"gamma": 0}, CPL_LOSS | {"lambda": 0.13, "alpha_1": 2, "alpha_2": 0.1}),
    "cnm": (CNM | {"alpha": 5.5, "max_width": 0.45}, CNM_LOSS),
    "cnm_activitynet": (CNM | {"alpha": 5, "max_width": 1}, CNM_LOSS),
}


@pytest.mark.parametrize("preset", CASES)
def test_published_settings_are_the_preset_but_for_the_targets(preset: str) -> None:
    """Epochs and batches, and how answers are scored, are in other sections."""
    config, expected = released_config(*CASES[preset]), PRESETS[preset]
    assert config.reconstructor.target_length == "plus_one"
    same = {"inference": expected.inference, "train": expected.train, "reconstructor.target_length": "exact"}
    # without meaning for these negatives
    for name in ("num_components", "sigma") if preset.startswith("cnm") else ("num_components",):
        same[f"proposals.negatives.{name}"] = getattr(expected.proposals.negatives, name)
    assert override(config, same) == expected


def test_two_depths_are_taken_over() -> None:
    model, loss = CASES["cnm"]
    config = released_config({**model, "DualTransformer": {**TRANSFORMER, "num_decoder_layers2": 2}}, loss)
    for part in (config.generator, config.reconstructor):
        assert (part.num_layers, part.num_word_layers) == (3, 2)


def test_families_are_told_apart() -> None:
    for name, config in PRESETS.items():
        prefix = name.split("_")[0]
        assert family_of(config) == {"cpl": "CPL", "cnm": "CNM"}.get(prefix, "PPS"), name


def test_export_after_import_is_the_published_state_dict() -> None:
    golden = Golden(GOLDEN)
    exported, state = export_released(model_of(golden, torch.float64)), golden.state()
    assert exported.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(exported[name].float(), value), name


@pytest.mark.parametrize("preset", ["cpl_demo", "cnm_demo"])
def test_import_after_export_is_the_model(preset: str) -> None:
    config = small_config(preset)
    model, twin = randomize(PPS(config, SIZES)), PPS(config, SIZES)
    exported = export_released(model)
    import_released(twin, exported)
    assert ("fc_mask_gen.weight" in exported) == preset.startswith("cnm")
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
