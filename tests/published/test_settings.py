"""Settings that files of the published code carry."""

from __future__ import annotations

from typing import Any

import pytest

from pps_fast.config_tree import to_dict
from pps_fast.presets import PRESETS
from pps_fast.published.settings import describe_differences, read_settings
from pps_fast.published.weights import released_config
from tests.published.test_ancestors import CASES
from tests.support.golden_model import Golden
from tests.support.published_files import GOLDEN, stored_settings


def _stored(name: str) -> dict[str, Any]:
    """The settings of CPL or CNM as their files have them."""
    model, loss = CASES[name]
    settings = {key_: value for key_, value in model.items() if key_ != "name"}
    dataset = "ActivityNet" if name.endswith("activitynet") else "CharadesSTA"
    return {
        "dataset": {"dataset": dataset, "max_num_frames": 200},
        "model": {"name": model["name"], "config": settings},
        "loss": loss,
    }


@pytest.mark.parametrize("name", CASES)
def test_the_ancestors_files_give_their_presets_but_for_the_targets(name: str) -> None:
    settings = read_settings(_stored(name))
    assert settings.num_segments == 200
    assert settings.config.inference == PRESETS[name].inference and settings.config.train == PRESETS[name].train
    assert settings.config.losses == released_config(*CASES[name]).losses
    assert describe_differences(settings, PRESETS[name]) == "reconstructor.target_length = plus_one (exact)"


def test_a_file_of_pps_gives_what_its_golden_file_was_computed_with() -> None:
    golden = Golden(GOLDEN / "tiny_topk2.npz")
    settings = read_settings(stored_settings(golden, "ActivityNet"))
    assert settings.num_segments == golden["in/frames_feat"].shape[1]
    expected = golden.config()
    for section in ("encoder", "generator", "proposals", "reconstructor", "losses"):
        assert getattr(settings.config, section) == getattr(expected, section)
    assert settings.config.inference == PRESETS["activitynet_released"].inference


def test_our_own_config_is_read_as_it_is() -> None:
    config = PRESETS["cnm_demo"]
    assert read_settings(to_dict(config)).config == config
    assert read_settings({**to_dict(config), "sizes": {"num_segments": 7}}).num_segments == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "of another form"),
        ({"loss": {}}, "without, or with an unknown, 'margin_1'"),
        ({"dataset": {"dataset": "TACoS"}}, "with an unknown, .*TACoS"),
        ({"dataset": {}}, "without, or with an unknown, 'dataset'"),
        ({"dataset": {"dataset": "CharadesSTA", "max_num_frames": 0}}, "max_num_frames = 0, expected a number"),
        ({"model": {"name": "SCN"}}, "with an unknown, .*SCN"),
        ({"model": 3}, "of another form"),
        ({"encoder": {}, "sizes": {"num_segments": True}}, "has no field"),
    ],
)
def test_other_settings_are_refused_in_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings({**_stored("cpl"), **changes})


def test_a_file_without_settings_is_told() -> None:
    with pytest.raises(ValueError, match="carries no settings"):
        read_settings(None)
