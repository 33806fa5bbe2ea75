"""Configs survive their JSON, and overrides change what they name and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pps_fast.config import LossesConfig, PPSConfig
from pps_fast.config_tree import OLD_NAMES, differences, first_names, flatten, from_dict, override, to_dict
from pps_fast.presets import PRESETS
from tests.test_config import CHOICES, _values


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    text = json.dumps(to_dict(PRESETS[name]))
    assert from_dict(PPSConfig, json.loads(text)) == PRESETS[name]


def test_every_knob_survives_json_when_it_is_not_the_default() -> None:
    changed = PPSConfig()
    for path, value in _values(changed):
        changed = override(changed, {path: _another(path, value)})
    pairs = zip(_values(PPSConfig()), _values(changed), strict=True)
    assert all(old != new for (path, old), (_, new) in pairs if path != "alignment.map")
    assert from_dict(PPSConfig, json.loads(json.dumps(to_dict(changed)))) == changed


def _another(path: str, value: Any) -> Any:
    """Returns an admissible value that is not the default."""
    if path == "alignment.map":
        # the other choice has no option beside it
        return value
    if path == "reconstructor.word_cls":
        # what word_tokens = 'reused' asks for
        return "none"
    if path in CHOICES:
        return next(choice for choice in CHOICES[path] if choice != value)
    if isinstance(value, bool):
        return not value
    if value is None:
        return "file.h5" if path == "data.path" else 3
    if isinstance(value, tuple):
        return (0.25, 0.75)
    below_one = {"data.validation_fraction": 0.5, "proposals.boundary_shrink": 0.25, "generator.max_width": 0.5}
    return below_one.get(path, 2 * value or 1)


@pytest.mark.parametrize("schedule", ["shared", "plain"])
def test_old_names_of_fields_are_read(schedule: str) -> None:
    old = {"reconstructor": {"plan": schedule, "stride": 2}}
    config = from_dict(PPSConfig, old)
    assert config == override(PPSConfig(), {"reconstructor.schedule": schedule, "reconstructor.stride": 2})
    assert "plan" not in to_dict(config)["reconstructor"]
    assert old == {"reconstructor": {"plan": schedule, "stride": 2}}


def test_a_field_under_both_its_names_is_refused() -> None:
    with pytest.raises(ValueError, match="reconstructor.plan = 'plain': expected only reconstructor.schedule"):
        from_dict(PPSConfig, {"reconstructor": {"plan": "plain", "schedule": "plain"}})


def test_missing_fields_take_their_defaults() -> None:
    assert from_dict(PPSConfig, {}) == PPSConfig()
    assert from_dict(PPSConfig, {"train": {"epochs": 3}}) == override(PPSConfig(), {"train.epochs": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"losses": {"beta": 1, "alpha": 1}}, "config.losses has no field alpha, beta; it was written by another"),
        ({"extra": 1}, "config has no field extra"),
        ({"proposals": {"negatives": {"alpha": 1}}}, "config.proposals.negatives has no field alpha"),
        ({"train": {"epochs": 0}}, "train.epochs = 0: expected at least 1"),
    ],
)
def test_reading_refuses_unknown_fields_and_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(PPSConfig, values)


def test_override_changes_the_named_fields_only() -> None:
    changed = override(PPSConfig(), {"losses.pull": 0.0, "proposals.negatives.sigma": 3.0, "backend": "torch"})
    before, after = dict(_values(PPSConfig())), dict(_values(changed))
    assert {path: after[path] for path in after if after[path] != before[path]} == {
        "losses.pull": 0.0, "proposals.negatives.sigma": 3.0, "backend": "torch"
    }  # fmt: skip
    assert PPSConfig().losses.pull == 5.0


@pytest.mark.parametrize("path", ["nonsense", "losses.nonsense", "proposals.negatives.nonsense", "losses.pul"])
def test_override_refuses_an_unknown_field_and_lists_the_known(path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"override = {path!r}: expected a field among ")) as error:
        override(PPSConfig(), {path: 1})
    known = {"nonsense": "losses", "losses": "pull_strategy", "proposals": "num_components"}[path.split(".")[0]]
    assert known in str(error.value)


def test_overrides_of_one_section_take_effect_together() -> None:
    """Neither value fits the other's default."""
    changed = override(PPSConfig(), {"encoder.hidden_dim": 30, "encoder.num_heads": 3})
    assert (changed.encoder.hidden_dim, changed.encoder.num_heads) == (30, 3)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("train.epochs.x", "no field of train.epochs, which is a value"), ("losses", "a field of losses, or all of them")],
)
def test_override_tells_sections_from_values(path: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"override = {path!r}: expected {expected}")):
        override(PPSConfig(), {path: 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"losses": 3}, "config.losses = 3: expected fields"),
        ({"train": {"epochs": "ten"}}, "config.train.epochs = 'ten': expected int"),
        ({"train": {"epochs": 2.5}}, "config.train.epochs = 2.5: expected int"),
        ({"train": {"epochs": True}}, "config.train.epochs = True: expected int"),
        ({"train": {"max_steps": "2"}}, "config.train.max_steps = '2': expected int or NoneType"),
        ({"inference": {"iou_thresholds": 0.5}}, "config.inference.iou_thresholds = 0.5: expected a list"),
    ],
)
def test_reading_refuses_values_of_another_type(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(PPSConfig, values)


def test_reading_takes_an_int_for_a_float() -> None:
    assert from_dict(PPSConfig, {"losses": {"pull": 2}}).losses.pull == 2.0


def test_override_takes_a_whole_section() -> None:
    section = LossesConfig(pull=1.5)
    assert override(PPSConfig(), {"losses": section}).losses is section


def test_differences_are_the_overrides_that_lead_from_one_config_to_another() -> None:
    for name, preset in PRESETS.items():
        changes = differences(PPSConfig(), preset)
        assert to_dict(override(PPSConfig(), changes)) == to_dict(preset), name
    assert differences(PPSConfig(), PPSConfig()) == {}
    changed = override(PPSConfig(), {"losses.pull": 0.5, "data.planted.seed": 3})
    assert differences(PPSConfig(), changed) == {"data.planted.seed": 3, "losses.pull": 0.5}


@pytest.mark.parametrize("old", OLD_NAMES)
def test_a_field_is_read_under_its_old_name(old: str) -> None:
    new = OLD_NAMES[old]
    config = override(PPSConfig(), {new: _another(new, dict(_values(PPSConfig()))[new])})
    values = to_dict(config)
    *sections, name = old.split(".")
    *new_sections, new_name = new.split(".")
    section, new_section = values, values
    for part in new_sections:
        new_section = new_section[part]
    for part in sections:
        section = section.setdefault(part, {})
    section[name] = new_section.pop(new_name)
    before = json.dumps(values)
    assert from_dict(PPSConfig, values) == config
    assert json.dumps(values) == before


def test_a_field_under_its_old_and_its_new_name_is_refused() -> None:
    values = {"train": {"optimise": "joint", "update": "alternating"}}
    old = "train.optimise"
    with pytest.raises(ValueError, match=f"{old} = 'joint': expected only train.update, its new name"):
        from_dict(PPSConfig, values)


def test_old_names_are_gone_and_new_names_are_fields() -> None:
    fields = dict(_values(PPSConfig()))
    assert not OLD_NAMES.keys() & fields.keys() and set(OLD_NAMES.values()) <= fields.keys()


def test_first_names_undo_what_was_renamed_and_nothing_else() -> None:
    changes = {"train.update": "alternating", "losses.pull": 0.5}
    assert first_names(changes) == {"train.optimise": "alternating", "losses.pull": 0.5}


def test_flatten_names_values_by_their_paths() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": {}, "f": None}, "/") == {"a/b/c": 1, "a/d": [2], "f": None}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("losses.pull", "5", "losses.pull = '5': expected float"),
        ("train.epochs", 2.5, "train.epochs = 2.5: expected int"),
        ("losses.push_normalize", 1, "losses.push_normalize = 1: expected bool"),
        ("inference.iou_thresholds", 0.5, "inference.iou_thresholds = 0.5: expected a list"),
        ("data.path", 3, "data.path = 3: expected str or NoneType"),
    ],
)
def test_override_refuses_a_value_of_another_type(path: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        override(PPSConfig(), {path: value})
