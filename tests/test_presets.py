"""Presets hold the numbers of the paper and of the published code, written here a second time."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

from pps_fast import config
from pps_fast.alignment.model import uses_alignment
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override, to_dict
from pps_fast.presets import ALIGNED, CNM, CPL, PRESETS

# Section 4, "Datasets" and "Implementation details"; where the paper is silent, the published code's training scripts
PAPER_BOTH = {
    "method": "proposals",
    "backend": "auto",
    "data.fold": None,
    "data.path": None,
    "data.validation_fraction": 0.0,
    "encoder.curve": "none",
    "encoder.dropout": 0.1,
    "encoder.frame_summary": "cls",
    "encoder.frames": "raw",
    "encoder.hidden_dim": 256,
    "encoder.num_heads": 4,
    "generator.center_source": "per_component",
    "generator.max_width": 1.0,
    "generator.num_layers": 3,
    "generator.num_word_layers": None,
    "reconstructor.num_layers": 3,
    "reconstructor.hidden_words_divisor": 3,
    "proposals.boundaries": "center_width",
    "proposals.components_per_proposal": 1,
    "proposals.layout": "ramp",
    "proposals.mask_shape": "gaussian",
    "proposals.negatives.curriculum": 0.0,
    "proposals.negatives.mask_shape": "gaussian",
    "proposals.negatives.kind": "learned",
    "proposals.width_floor": 0.01,
    "reconstructor.label_smoothing": 0.1,
    "reconstructor.num_word_layers": None,
    "reconstructor.shares_generator": False,
    "reconstructor.stride": 4,
    "reconstructor.word_tokens": "projected",
    "generator.width_source": "per_proposal",
    "reconstructor.importance": "reconstructor",
    "reconstructor.target_length": "exact",
    "reconstructor.word_cls": "vector",
    "losses.reconstruction": 1.0,
    "losses.alignment": 0.0,
    "losses.num_best": 1,
    "losses.pull_strategy": "distant",
    "losses.push_normalize": True,
    "losses.push_single": True,
    "losses.push_intra_target": 0.15,
    "losses.push_inter_target": 0.15,
    "losses.whole_video_margin": 0.1,
    "losses.negative_margin": 0.15,
    "train.batch_size": 32,
    "train.clip_norm": 10.0,
    "train.epochs": 30,
    "train.keep": "last",
    "train.learning_rate": 0.0004,
    "train.max_steps": None,
    "train.update": "joint",
    "train.precision": "fp32",
    "train.warmup_learning_rate": 1e-7,
    "train.warmup_updates": 400,
    "train.weight_decay": 0.0,
}
# how a run is computed, logged or drawn by lot, and never what the method is
NOT_THE_METHOD = {
    "alignment.curve", "alignment.duration_prior", "alignment.frame_ridge", "alignment.position_prior",
    "alignment.change", "alignment.map", "alignment.parts", "alignment.pooling", "alignment.pooling_curve",
    "alignment.reading", "alignment.sentence_ridge",
    "alignment.sentences", "alignment.sharpness", "alignment.smoothing", "inference.alignment_rows",
    "data.planted.frame_dim", "data.planted.noise", "data.planted.num_segments", "data.planted.num_videos",
    "data.planted.seed", "data.residence",
    "inference.batch_size", "inference.capture", "inference.num_bootstrap", "inference.precision", "inference.seed",
    "reconstructor.schedule", "train.capture", "train.checkpoint_every", "train.evaluate_every", "train.log_every",
    "train.seed", "train.tensorboard", "train.trace_every",
}  # fmt: skip
PAPER = {
    "charades": {
        "proposals.num_proposals": 7,
        "proposals.negatives.num_components": 3,
        "proposals.negatives.sigma": 9.0,
        "proposals.sigma": 9.0,
        "proposals.boundary_shrink": 0.0,
        "losses.contrastive": 3.0,
        "losses.pull": 5.0,
        "losses.push_intra": 0.001,
        "losses.push_inter": 1.0,
        "inference.selector": "vote_loss_weighted",
        "inference.iou_thresholds": [0.3, 0.5, 0.7],
    },
    "activitynet": {
        "proposals.num_proposals": 5,
        "proposals.negatives.num_components": 2,
        "proposals.negatives.sigma": 4.0,
        "proposals.sigma": 4.0,
        "proposals.boundary_shrink": 0.15,
        "losses.contrastive": 1.0,
        "losses.pull": 0.2,
        "losses.push_intra": 0.01,
        "losses.push_inter": 0.1,
        "inference.selector": "vote",
        "inference.iou_thresholds": [0.1, 0.3, 0.5],
    },
}
# what the published code does otherwise, on both data sets
PUBLISHED = {
    "generator.width_source",
    "proposals.mask_shape",
    "proposals.negatives.mask_shape",
    "reconstructor.word_cls",
    "reconstructor.target_length",
    "losses.reconstruction",
    "losses.push_single",
}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _differences(first: PPSConfig, second: PPSConfig) -> dict[str, Any]:
    """Returns what `second` holds wherever it differs from `first`."""
    before = _flat(to_dict(first))
    return {path: value for path, value in _flat(to_dict(second)).items() if value != before[path]}


@pytest.mark.parametrize("name", PAPER)
def test_presets_without_a_suffix_are_the_paper_in_every_field_of_the_method(name: str) -> None:
    fields = _flat(to_dict(PRESETS[name]))
    assert {path: value for path, value in fields.items() if path not in NOT_THE_METHOD} == PAPER_BOTH | PAPER[name]


def test_the_list_of_what_is_no_part_of_the_method_has_no_name_too_many() -> None:
    assert NOT_THE_METHOD <= _flat(to_dict(PPSConfig())).keys()


def test_the_defaults_are_the_paper_on_charades() -> None:
    assert PRESETS["charades"] == PPSConfig()


@pytest.mark.parametrize("name", PAPER)
def test_released_presets_depart_from_the_paper_in_the_listed_fields_only(name: str) -> None:
    differences = _differences(PRESETS[name], PRESETS[f"{name}_released"])
    of_data_set = {"proposals.negatives.sigma"} if name == "activitynet" else set()
    assert differences.keys() == PUBLISHED | of_data_set
    assert differences["losses.reconstruction"] == 0.5
    assert differences.get("proposals.negatives.sigma", 3.0) == 3.0


@pytest.mark.parametrize(("name", "inter", "intra"), [("charades", 3.0, 0.0012), ("activitynet", 0.2, 0.005)])
def test_rescaled_presets_have_the_weights_of_the_training_scripts(name: str, inter: float, intra: float) -> None:
    differences = _differences(PRESETS[f"{name}_released"], PRESETS[f"{name}_rescaled"])
    assert differences == {"losses.push_inter": inter, "losses.push_intra": intra}


def test_small_presets_keep_every_rule_of_the_paper() -> None:
    sizes = {"encoder.hidden_dim", "generator.num_layers", "reconstructor.num_layers", "proposals.num_proposals"}
    # short videos have short moments: another stride and another scale of the widths, but no other equation
    sizes |= {"reconstructor.stride", "proposals.sigma", "proposals.negatives.sigma", "encoder.dropout"}
    for name in ("demo", "tiny", "charades_clip_small"):
        differences = _differences(PRESETS["charades"], PRESETS[name])
        free = {path for path in differences if path.startswith(("train.", "data.", "inference."))}
        assert differences.keys() - free <= sizes, name
        assert differences["encoder.hidden_dim"] <= 64, name


# Table J of what their published code does; both have the sizes of the transformers of PPS
ANCESTOR_BOTH = {
    "encoder.hidden_dim": 256,
    "generator.num_layers": 3,
    "generator.width_source": "per_component",
    "proposals.layout": "uniform",
    "proposals.components_per_proposal": 1,
    "proposals.boundary_shrink": 0.0,
    "reconstructor.shares_generator": True,
    "reconstructor.word_cls": "none",
    "reconstructor.word_tokens": "reused",
    "reconstructor.target_length": "exact",
    "losses.whole_video_margin": 0.1,
    "losses.negative_margin": 0.15,
    "losses.pull": 0.0,
    "losses.push_intra": 0.0,
    "inference.selector": "lowest_loss",
}
_CPL = {
    "encoder.frame_summary": "cls",
    "generator.max_width": 1.0,
    "proposals.num_proposals": 8,
    "proposals.mask_shape": "gaussian_peak",
    "proposals.sigma": 9.0,
    "proposals.width_floor": 0.01,
    "proposals.negatives.kind": "sides_apart",
    "proposals.negatives.sigma": 4.5,
    "losses.reconstruction": 0.5,
    "train.batch_size": 32,
    "train.epochs": 30,
    "train.update": "joint",
}
_CNM = {
    "encoder.frame_summary": "last_frame",
    "proposals.num_proposals": 1,
    "proposals.mask_shape": "gaussian",
    "proposals.width_floor": 0.1,
    "proposals.negatives.kind": "complement",
    "losses.reconstruction": 1.0,
    "losses.contrastive": 1.0,
    "losses.push_inter": 0.0,
    "train.batch_size": 128,
    "train.update": "alternating",
}
ANCESTORS = {
    "cpl": {
        **_CPL,
        "proposals.negatives.curriculum": 0.5,
        "losses.contrastive": 1.0,
        "losses.push_inter": 5.0,
        "losses.push_inter_target": 0.146,
        "inference.iou_thresholds": [0.3, 0.5, 0.7],
    },
    "cpl_activitynet": {
        **_CPL,
        "proposals.negatives.curriculum": 0.0,
        "losses.contrastive": 2.0,
        "losses.push_inter": 0.1,
        "losses.push_inter_target": 0.13,
        "inference.iou_thresholds": [0.1, 0.3, 0.5],
    },
    "cnm": {**_CNM, "generator.max_width": 0.45, "train.epochs": 50},
    "cnm_activitynet": {**_CNM, "generator.max_width": 1.0, "train.epochs": 30},
}


@pytest.mark.parametrize("name", ANCESTORS)
def test_presets_of_the_ancestors_hold_their_numbers(name: str) -> None:
    fields = _flat(to_dict(PRESETS[name]))
    expected = {**ANCESTOR_BOTH, **ANCESTORS[name]}
    assert {path: fields[path] for path in expected} == expected


def test_cnm_masks_have_the_published_exponents() -> None:
    """alpha, which stands where sigma squared does."""
    exponents = [PRESETS[name].proposals.sigma ** 2 for name in ("cnm", "cnm_activitynet")]
    assert exponents == pytest.approx([5.5, 5.0], rel=1e-12)


@pytest.mark.parametrize(("method", "changes"), [("cpl", CPL), ("cnm", CNM)])
def test_a_method_on_any_data_set_is_its_overrides_on_that_preset(method: str, changes: dict[str, Any]) -> None:
    assert PRESETS[f"{method}_charades_clip_small"] == override(PRESETS["charades_clip_small"], changes)
    for base, preset in PRESETS.items():
        fields = _flat(to_dict(override(preset, changes)))
        assert {path: fields[path] for path in changes} == changes, base


@pytest.mark.parametrize("method", ["cpl", "cnm"])
def test_demos_of_the_ancestors_train_like_the_demo(method: str) -> None:
    differences = _differences(PRESETS["demo"], PRESETS[f"{method}_demo"])
    kept = ("data.", "encoder.hidden_dim", "generator.num", "reconstructor.num", "reconstructor.stride", "train.")
    assert [path for path in differences if path.startswith(kept)] == (["train.update"] if method == "cnm" else [])


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("charades_align", "charades"),
        ("charades_clip_align_small", "charades_clip_small"),
        ("activitynet_align", "activitynet"),
        ("align_demo", "demo"),
    ],
)
def test_aligned_presets_are_one_list_of_overrides(name: str, base: str) -> None:
    assert PRESETS[name] == override(PRESETS[base], ALIGNED)
    assert not PRESETS[name].reconstructs and uses_alignment(PRESETS[name]) and not uses_alignment(PRESETS[base])


def test_demo_and_tiny_need_no_data_file() -> None:
    assert PRESETS["demo"].data.path is None and PRESETS["tiny"].data.path is None


def test_every_class_of_the_config_is_reached_from_the_whole() -> None:
    classes = {item for item in vars(config).values() if dataclasses.is_dataclass(item)}
    reached, todo = set(), [PPSConfig]
    while todo:
        reached.add(config_class := todo.pop())
        todo += [hint for hint in typing.get_type_hints(config_class).values() if dataclasses.is_dataclass(hint)]
    assert reached == classes


def test_presets_are_independent_of_their_overrides() -> None:
    override(PRESETS["charades"], {"losses.pull": 0.0})
    assert PRESETS["charades"].losses.pull == 5.0


def test_a_name_that_no_preset_has_is_refused_with_the_nearest():
    with pytest.raises(KeyError, match="^no preset 'tinny': perhaps tiny; the presets are demo, tiny, charades,"):
        PRESETS["tinny"]
    with pytest.raises(KeyError, match="^no preset 'xyzzy': the presets are demo"):
        PRESETS["xyzzy"]
    assert PRESETS.get("tinny") is None and "tinny" not in PRESETS
