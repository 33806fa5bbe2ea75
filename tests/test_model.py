"""The whole model: who influences whom, and what is computed."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast import config as config_module
from pps_fast.config import PPSConfig
from pps_fast.encoder.embedding import WORD_CLS
from pps_fast.generator.heads import CENTERS, WIDTHS
from pps_fast.layout import LAYOUTS
from pps_fast.losses.objective import Objective
from pps_fast.losses.pull_push import PULL_STRATEGIES
from pps_fast.model import PPS
from pps_fast.proposals.negatives import NEGATIVES
from pps_fast.proposals.shapes import MASK_SHAPES
from pps_fast.reconstructor.importance import IMPORTANCE
from pps_fast.reconstructor.reconstructor import Reconstructor
from pps_fast.reconstructor.targets import TARGET_LENGTHS
from pps_fast.types import ModelOutput
from tests.cases import SIZES, pad_columns, random_batch, randomize, small_config, take
from tests.compare import assert_agree

BATCH = random_batch(dtype=torch.float64)
REGISTRIES = {
    "MaskShape": MASK_SHAPES,
    "CenterSource": CENTERS,
    "WidthSource": WIDTHS,
    "LayoutKind": LAYOUTS,
    "NegativeKind": NEGATIVES,
    "ImportanceSource": IMPORTANCE,
    "WordCls": WORD_CLS,
    "TargetLength": TARGET_LENGTHS,
    "PullStrategy": PULL_STRATEGIES,
}


def _model(config: PPSConfig | None = None, dtype: torch.dtype = torch.float64) -> PPS:
    return randomize(PPS(config or small_config(), SIZES).to(dtype).eval())


def _flat(record: Any) -> dict[str, Tensor]:
    """Returns the tensors of a record by dotted name, without those that are None."""
    found = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{item.name}.{name}": tensor for name, tensor in _flat(value).items()}
        elif value is not None:
            found[item.name] = value
    return found


def _assert_same(got: ModelOutput, expected: ModelOutput, atol: float) -> None:
    got_fields, expected_fields = _flat(got), _flat(expected)
    assert list(got_fields) == list(expected_fields)
    for name, value in got_fields.items():
        assert_agree(name, value, expected_fields[name], atol=atol)


@pytest.mark.parametrize("name", sorted(REGISTRIES))
def test_every_registry_has_the_choices_of_the_config(name: str) -> None:
    assert set(REGISTRIES[name]) == set(typing.get_args(getattr(config_module, name)))


def test_shapes_and_ranges_of_the_output() -> None:
    output = _model()(BATCH)
    shapes = {name: tuple(value.shape) for name, value in _flat(output).items()}
    assert shapes == {
        "proposals.components.center": (4, 6),
        "proposals.components.width": (4, 6),
        "proposals.components.masks": (4, 6, 4),
        "proposals.importance": (4, 6),
        "proposals.masks": (4, 3, 4),
        "proposals.start": (4, 3),
        "proposals.end": (4, 3),
        "positive_nll": (4, 3),
        "negative_masks": (4, 3, 4),
        "negative_nll": (4, 3),
        "whole_video_nll": (4,),
    }
    for name, value in _flat(output).items():
        is_fraction = not name.endswith("nll")
        assert (value >= 0).all() and (not is_fraction or (value <= 1).all()), name
    assert (output.proposals.start < output.proposals.end).all()


@pytest.mark.parametrize("target_length", ["exact", "end_of_sentence"])
def test_a_sample_does_not_depend_on_its_batch(target_length: str) -> None:
    model = _model(small_config(reconstructor__target_length=target_length))
    together = model(BATCH)
    for b in range(4):
        alone = _flat(model(take(BATCH, [b])))
        for name, value in _flat(together).items():
            assert_agree(f"{name} of {b}", alone[name], value[b : b + 1], atol=1e-12)
    moved = _flat(model(take(BATCH, [2, 0, 3, 1])))
    for name, value in _flat(together).items():
        assert_agree(name, moved[name], value[[2, 0, 3, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("generator__width_source", "across_batch", "proposals.components.width"),
        ("reconstructor__word_cls", "scalar_per_batch_position", "proposals.importance"),
        ("reconstructor__target_length", "plus_one", "positive_nll"),
    ],
)
def test_each_published_quirk_makes_a_sample_depend_on_its_batch(field: str, value: str, changed: str) -> None:
    model = _model(small_config(**{field: value}))
    together, alone = _flat(model(BATCH)), _flat(model(take(BATCH, [3])))
    assert (together[changed][3] - alone[changed][0]).abs().max() > 1e-4


def test_the_released_preset_depends_on_the_batch() -> None:
    model = _model(small_config("charades_released", proposals__num_proposals=3))
    assert (model(BATCH).positive_nll[3] - model(take(BATCH, [3])).positive_nll[0]).abs().max() > 1e-4


@pytest.mark.parametrize("target_length", sorted(TARGET_LENGTHS))
def test_more_empty_word_columns_change_nothing(target_length: str) -> None:
    model = _model(small_config(reconstructor__target_length=target_length))
    _assert_same(model(pad_columns(BATCH, 6)), model(BATCH), 1e-12)


def test_frames_behind_the_end_of_a_video_change_nothing() -> None:
    model = _model()
    batch = replace(BATCH, num_frames=torch.tensor([16, 9, 16, 5]))
    frames = batch.frames.clone()
    frames[torch.arange(16) >= batch.num_frames.unsqueeze(1)] = 7.0
    _assert_same(model(replace(batch, frames=frames)), model(batch), 1e-12)
    assert (model(batch).positive_nll[1] - model(BATCH).positive_nll[1]).abs().max() > 1e-6


def test_words_behind_the_end_of_a_sentence_change_nothing() -> None:
    model = _model()
    is_padding = torch.arange(9) >= BATCH.num_words.unsqueeze(1)
    words = BATCH.words.masked_fill(is_padding.unsqueeze(-1), 7.0)
    changed = replace(BATCH, words=words, word_ids=BATCH.word_ids.masked_fill(is_padding, 3))
    _assert_same(model(changed), model(BATCH), 1e-12)


def test_the_reconstructor_reads_the_kept_segments_and_every_token_but_q_cls_as_keys() -> None:
    model, seen = _model(), []
    model.reconstruct.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    batch = replace(BATCH, num_frames=torch.tensor([16, 9, 16, 5]))
    model(batch)
    kept = [0, 5, 10, 15]
    assert_agree("frames", seen[0].frames, model.embed.frames(batch)[:, kept])
    assert_agree("frame keys", seen[0].frame_valid, torch.tensor([[k < n for k in kept] for n in (16, 9, 16, 5)]))
    # the start token and the words; q_cls stands behind them
    expected = torch.tensor([[slot <= n for slot in range(11)] for n in BATCH.num_words.tolist()])
    assert_agree("word keys", seen[0].word_valid, expected)


def test_hidden_words_are_not_seen_by_the_reconstructor() -> None:
    model = _model()
    first = replace(BATCH, word_noise=BATCH.word_noise.roll(1, 1))
    assert (model(first).positive_nll - model(BATCH).positive_nll).abs().max() > 1e-4
    assert_agree("centers", model(first).proposals.components.center, model(BATCH).proposals.components.center)


@pytest.mark.parametrize("preset", ["tiny", "charades_released"])
def test_without_negatives_the_positives_are_the_same(preset: str) -> None:
    model = _model(small_config(preset, proposals__num_proposals=3))
    output = model(BATCH, with_negatives=False)
    assert output.negative_masks is None and output.negative_nll is None and output.whole_video_nll is None
    expected = replace(model(BATCH), negative_masks=None, negative_nll=None, whole_video_nll=None)
    _assert_same(output, expected, 1e-12)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, [(4, 5, 4), (4, 7, 4)]),
        ({"proposals__num_proposals": 7}, [(4, 27, 4), (4, 15, 4)]),
        ({"proposals__layout": "uniform"}, [(4, 7, 4)]),
        ({"reconstructor__importance": "generator"}, [(4, 7, 4)]),
    ],
    ids=str,
)
def test_the_reconstructor_runs_at_most_twice(
    changes: dict, passes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, features = [], Reconstructor.features

    def counted(self: Reconstructor, shared: Any, masks: Tensor) -> Tensor:
        seen.append(tuple(masks.shape))
        return features(self, shared, masks)

    monkeypatch.setattr(Reconstructor, "features", counted)
    _model(small_config(**changes))(BATCH)
    assert seen == passes


def test_the_whole_video_is_scored_with_a_mask_of_ones() -> None:
    model, seen = _model(), []
    model.reconstruct.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    output = model(BATCH)
    expected = torch.cat((output.proposals.masks, output.negative_masks, torch.ones(4, 1, 4)), 1)
    assert_agree("masks", seen[0], expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", torch.zeros(4, 15, 6)),
        ("frames", torch.zeros(4, 16, 7)),
        ("words", torch.zeros(4, 9, 4)),
        ("frames", torch.zeros(4, 16)),
    ],
)
def test_a_batch_of_other_sizes_is_refused(field: str, value: Tensor) -> None:
    batch = replace(random_batch(), **{field: value})
    with pytest.raises(ValueError, match=r"frames \[B, 16, 6\] and words \[B, L, 5\]; prepare the data with the same"):
        _model(dtype=torch.float32)(batch)


def test_too_few_segments_for_the_stride_are_refused() -> None:
    sizes = replace(SIZES, num_segments=7)
    with pytest.raises(ValueError, match="7 segments at reconstructor.stride = 4"):
        PPS(small_config(), sizes)


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_any_stride_works(stride: int) -> None:
    output = _model(small_config(reconstructor__stride=stride))(BATCH)
    assert output.proposals.masks.shape == (4, 3, 16 // stride)


def test_only_the_best_positive_and_its_negative_are_trained_by_the_reconstruction() -> None:
    model = _model(small_config(losses__contrastive=1.0, losses__negative_margin=9.0))
    output = model(BATCH)
    for value in (output.positive_nll, output.negative_nll, output.negative_masks):
        value.retain_grad()
    Objective(model.config)(output).total.backward()
    is_best = torch.zeros(4, 3, dtype=torch.bool)
    is_best[torch.arange(4), output.positive_nll.argmin(1)] = True
    for name in ("positive_nll", "negative_nll", "negative_masks"):
        reached = getattr(output, name).grad.reshape(4, 3, -1).abs().amax(2) > 0
        assert_agree(name, reached, is_best)


def test_the_state_holds_parameters_only() -> None:
    model = _model()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
