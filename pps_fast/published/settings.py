"""The settings that a checkpoint of the published code carries, as a config of this package.

The published code of PPS saves {"dataset", "train", "model", "loss"} with the model's settings beside its `name`; that
of CPL and CNM has them in `model["config"]`. What this package exports carries its own config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pps_fast.config import PPSConfig
from pps_fast.config_tree import flatten, from_dict, to_dict
from pps_fast.presets import PRESETS
from pps_fast.published.weights import released_config

# model and data set -> the preset that has how it is trained and how answers are chosen and scored
_PRESETS = {
    ("PPS", "CharadesSTA"): "charades_released",
    ("PPS", "ActivityNet"): "activitynet_released",
    ("CPL", "CharadesSTA"): "cpl",
    ("CPL", "ActivityNet"): "cpl_activitynet",
    ("CNM", "CharadesSTA"): "cnm",
    ("CNM", "ActivityNet"): "cnm_activitynet",
}
# sections of the config that decide what a model answers; negatives are for training alone
_DECISIVE = ("encoder", "generator", "proposals", "reconstructor")
_FOR_TRAINING = "proposals.negatives."


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a file says of its model.

    Attributes:
        config: computes what the published code computes with these settings.
        num_segments: segments of a video's features; None where the file does not say.
    """

    config: PPSConfig
    num_segments: int | None


def read_settings(stored: Any) -> Settings:
    """Returns the settings that a file carries as `config`.

    Raises:
        ValueError: for settings of another form, or that are unknown here; the message names them.
    """
    if not isinstance(stored, Mapping):
        raise ValueError("carries no settings")
    if _DECISIVE[0] in stored:
        sizes = stored.get("sizes")
        values = {name: value for name, value in stored.items() if name != "sizes"}
        return Settings(
            config=from_dict(PPSConfig, values), num_segments=_whole(sizes, "num_segments") if sizes else None
        )
    try:
        model, loss, data = stored["model"], stored["loss"], stored["dataset"]
        # PPS has the settings beside the name
        settings = {**model.get("config", model), "name": model["name"]}
        name = data["name"] if "name" in data else data["dataset"]
        preset = PRESETS[_PRESETS[settings["name"], name]]
        config = released_config(settings, loss)
    except KeyError as error:
        raise ValueError(f"carries settings without, or with an unknown, {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError("carries settings of another form than the published code's") from error
    segments = "max_num_segments" if "max_num_segments" in data else "max_num_frames"
    config = replace(config, train=preset.train, inference=preset.inference)
    return Settings(config=config, num_segments=_whole(data, segments) if segments in data else None)


def _whole(values: Any, name: str) -> int:
    value = values[name] if isinstance(values, Mapping) and name in values else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"carries {name} = {value!r}, expected a number of at least 1")
    return value


def describe_differences(settings: Settings, config: PPSConfig) -> str:
    """Returns "field = file's value (preset's value), ..." of what decides answers; "" where they agree."""
    ours, theirs = (flatten(to_dict(one)) for one in (config, settings.config))
    names = [name for name in ours if name.split(".")[0] in _DECISIVE and not name.startswith(_FOR_TRAINING)]
    return ", ".join(f"{name} = {theirs[name]} ({ours[name]})" for name in names if ours[name] != theirs[name])
