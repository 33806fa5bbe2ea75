"""The whole model: who influences whom, and what is computed."""

from __future__ import annotations

import dataclasses
import sys
import typing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast import config as config_module
from pps_fast import equations
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.encoder.embedding import WORD_CLS
from pps_fast.losses import PULL_STRATEGIES, Objective
from pps_fast.model import PPS
from pps_fast.proposals.heads import CENTERS, WIDTHS
from pps_fast.proposals.layout import LAYOUTS
from pps_fast.proposals.mixture import IMPORTANCE
from pps_fast.proposals.negatives import NEGATIVES
from pps_fast.proposals.shapes import MASK_SHAPES
from pps_fast.reconstructor.reconstructor import SCHEDULES
from pps_fast.reconstructor.words import TARGET_LENGTHS
from pps_fast.types import ModelOutput
from tests.support import oracles
from tests.support.cases import SIZES, pad_columns, random_batch, randomize, small_config, take
from tests.support.compare import assert_agree
from tests.support.passes import record_passes, record_reconstructions

BATCH = random_batch(dtype=torch.float64)
# log(1e-10) to log(1 + 1e-10), with room for rounding
LOG_RANGE = (-23.03, 1e-9)
REGISTRIES = {
    "MaskShape": MASK_SHAPES,
    "CenterSource": CENTERS,
    "WidthSource": WIDTHS,
    "LayoutKind": LAYOUTS,
    "NegativeKind": NEGATIVES,
    "ImportanceSource": IMPORTANCE,
    "WordCls": WORD_CLS,
    "TargetLength": TARGET_LENGTHS,
    "ReconstructorSchedule": SCHEDULES,
    "PullStrategy": PULL_STRATEGIES,
}


def _model(config: PPSConfig | None = None, dtype: torch.dtype = torch.float64) -> PPS:
    return randomize(PPS(config or small_config(), SIZES).to(dtype).eval())


def _flat(record: Any) -> dict[str, Tensor]:
    """Returns the tensors of a record by dotted name, without those that are None."""
    flat = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{item.name}.{name}": tensor for name, tensor in _flat(value).items()}
        elif value is not None:
            flat[item.name] = value
    return flat


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
        "proposals.components.log_masks": (4, 6, 4),
        "proposals.components.exponents": (4, 6, 4),
        "proposals.importance": (4, 6),
        "proposals.masks": (4, 3, 4),
        "proposals.log_masks": (4, 3, 4),
        "proposals.start": (4, 3),
        "proposals.end": (4, 3),
        "positive_nll": (4, 3),
        "negative_masks": (4, 3, 4),
        "best": (4, 1),
        "best_nll": (4, 1),
        "negative_nll": (4, 1, 1),
        "whole_video_nll": (4,),
    }
    for name, value in _flat(output).items():
        highest = torch.inf if name.endswith("nll") else 2 if name == "best" else 1
        low, high = {"log_masks": LOG_RANGE, "exponents": (-8.1e5, 0)}.get(name.split(".")[-1], (0, highest))
        assert (low <= value).all() and (value <= high).all(), name
    for part in (output.proposals, output.proposals.components):
        assert_agree("log", part.log_masks, torch.log(part.masks + 1e-10), atol=1e-10)
    assert (output.proposals.start < output.proposals.end).all()


def test_components_have_exponents_where_the_losses_need_them() -> None:
    components = _model()(BATCH).proposals.components
    assert_agree("masks", components.exponents.exp(), components.masks, atol=1e-14)
    assert _model()(BATCH, with_negatives=False).proposals.components.exponents is None
    # masks with a peak of 1 never vanish
    assert _model(small_config(proposals__mask_shape="gaussian_peak"))(BATCH).proposals.components.exponents is None


@pytest.mark.parametrize("target_length", ["exact", "end_of_sentence"])
def test_a_sample_does_not_depend_on_its_batch(target_length: str) -> None:
    model = _model(small_config(reconstructor__target_length=target_length))
    together = model(BATCH)
    for b in range(4):
        alone = _flat(model(take(BATCH, [b])))
        for name, value in _flat(together).items():
            assert_agree(f"{name} of {b}", alone[name], value[b : b + 1], atol=1e-12, rtol=1e-15)  # logs near -1,000
    moved = _flat(model(take(BATCH, [2, 0, 3, 1])))
    for name, value in _flat(together).items():
        assert_agree(name, moved[name], value[[2, 0, 3, 1]], atol=1e-12, rtol=1e-15)


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


def test_the_reconstructor_reads_the_kept_segments_and_every_token_but_q_cls_as_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, passes = _model(), record_passes(monkeypatch)
    batch = replace(BATCH, num_frames=torch.tensor([16, 9, 16, 5]))
    model(batch)
    kept = [0, 5, 10, 15]
    inputs = passes[0].inputs
    assert_agree("frames", inputs.frames, model.embed.frames(batch, None)[:, kept])
    assert_agree("frame keys", inputs.frame_valid, torch.tensor([[k < n for k in kept] for n in (16, 9, 16, 5)]))
    # the start token and the words; q_cls stands behind them
    expected = torch.tensor([[slot <= n for slot in range(11)] for n in BATCH.num_words.tolist()])
    assert_agree("word keys", inputs.word_valid, expected)


def test_hidden_words_are_not_seen_by_the_reconstructor() -> None:
    model = _model()
    first = replace(BATCH, word_noise=BATCH.word_noise.roll(1, 1))
    assert (model(first).positive_nll - model(BATCH).positive_nll).abs().max() > 1e-4
    assert_agree("centers", model(first).proposals.components.center, model(BATCH).proposals.components.center)


@pytest.mark.parametrize("preset", ["tiny", "charades_released"])
def test_without_negatives_the_positives_are_the_same(preset: str) -> None:
    model = _model(small_config(preset, proposals__num_proposals=3))
    output = model(BATCH, with_negatives=False)
    only_training = dict.fromkeys(("negative_masks", "best", "best_nll", "negative_nll", "whole_video_nll"))
    assert all(getattr(output, name) is None for name in only_training)
    trained = replace(model(BATCH), **only_training)
    components = replace(trained.proposals.components, exponents=None)
    _assert_same(output, replace(trained, proposals=replace(trained.proposals, components=components)), 1e-12)


# changes, number of components that are in a mixture, K, num_best
PASSES = [
    ({}, 5, 3, 1),
    ({"proposals__num_proposals": 7, "losses__num_best": 2}, 27, 7, 2),
    ({"proposals__layout": "uniform"}, 0, 3, 1),
    ({"reconstructor__importance": "generator", "losses__num_best": 3}, 0, 3, 3),
    ({"reconstructor__num_layers": 2}, 5, 3, 1),
]


@pytest.mark.parametrize(("changes", "num_mixed", "num_proposals", "num_best"), PASSES, ids=str)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_reconstructor_makes_no_more_passes_than_the_schedule_needs(
    schedule: str, changes: dict, num_mixed: int, num_proposals: int, num_best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = record_passes(monkeypatch)
    _model(small_config(reconstructor__schedule=schedule, **changes))(BATCH)
    # whether one row is wanted, the masks' shape, whether gradients are recorded
    expected = [(True, (4, num_mixed, 4), True)] if num_mixed else []
    if schedule == "plain" or num_best == num_proposals:
        expected += [(False, (4, 2 * num_proposals + 1, 4), True)]
    else:
        expected += [(False, (4, num_proposals, 4), False), (False, (4, 2 * num_best + 1, 4), True)]
    seen = [(one.is_summary, tuple(one.masks.log_masks.shape), one.has_gradients) for one in passes]
    assert seen == expected


@pytest.mark.parametrize(("changes", "num_mixed", "num_proposals", "num_best"), PASSES, ids=str)
def test_the_shared_schedule_builds_a_graph_for_mixtures_the_best_and_what_they_must_beat_only(
    changes: dict, num_mixed: int, num_proposals: int, num_best: int
) -> None:
    model, with_graph, without = _model(small_config(**changes)).train(), [], []

    def count(module: torch.nn.Module, args: Any, result: Tensor) -> None:
        (with_graph if result.requires_grad else without).append(len(result))

    # every sequence passes the norm at the end of each stack once
    for stack in (model.reconstruct.video_stack, model.reconstruct.word_stack):
        stack.blocks[-1].ffn_norm.register_forward_hook(count)
    output = model(BATCH)
    assert sum(with_graph) == 2 * 4 * (num_mixed + 2 * num_best + 1)
    # where all are trained, all are scored with a graph at once
    is_scored_apart = num_best < num_proposals
    assert sum(without) == 2 * 4 * num_proposals * is_scored_apart
    assert output.positive_nll.requires_grad != is_scored_apart
    assert output.best_nll.requires_grad and output.negative_nll.requires_grad and output.whole_video_nll.requires_grad


def test_the_last_block_of_the_generator_computes_one_row() -> None:
    model, rows = _model(small_config(generator__num_layers=3)), []
    for block in model.generator.video_stack.blocks:
        block.ffn_norm.register_forward_hook(lambda module, args, result: rows.append(tuple(result.shape)))
    model(BATCH)
    assert rows == [(4, 17, 8), (4, 17, 8), (4, 1, 8)]


@pytest.mark.parametrize("num_best", [1, 2])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_the_masks_scored_are_positives_negatives_and_one_of_ones(
    schedule: str, num_best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = record_passes(monkeypatch)
    output = _model(small_config(reconstructor__schedule=schedule, losses__num_best=num_best))(BATCH)
    seen = [one.masks.log_masks for one in passes if not one.is_summary]
    positives, negatives, ones = output.proposals.log_masks, torch.log(output.negative_masks + 1e-10), torch.zeros(4, 4)
    if schedule == "plain":
        expected = [torch.cat((positives, negatives, ones.unsqueeze(1)), 1)]
    else:
        best = oracles.best_proposals(output.positive_nll.detach().numpy(), num_best)
        trained = [[*(x[b, k] for x in (positives, negatives) for k in ks), ones[b]] for b, ks in enumerate(best)]
        expected = [positives, torch.stack([torch.stack(rows) for rows in trained])]
    assert len(seen) == len(expected)
    for logs, wanted in zip(seen, expected, strict=True):
        assert_agree("logs", logs, wanted, atol=1e-14)


@pytest.mark.parametrize("num_best", [1, 2, 3])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_the_best_are_those_of_smallest_c_with_their_own_negatives(
    schedule: str, num_best: int, is_training: bool
) -> None:
    config = small_config(losses__num_best=num_best, reconstructor__schedule=schedule)
    model = _model(config).train(is_training)
    output = model(BATCH)
    best = oracles.best_proposals(output.positive_nll.detach().numpy(), num_best)
    assert_agree("best", output.best, best)
    # the plain schedule scores every negative
    plain = _model(override(config, {"reconstructor.schedule": "plain"})).train(is_training)
    passes = record_reconstructions(plain)
    plain(BATCH)
    positive, negative, whole = passes[0].nll.split((3, 3, 1), 1)
    for b, ks in enumerate(best):
        assert_agree("positive", output.positive_nll[b], positive[b], atol=1e-12)
        assert_agree("best positive", output.best_nll[b], positive[b, list(ks)], atol=1e-12)
        assert_agree("their negatives", output.negative_nll[b, :, 0], negative[b, list(ks)], atol=1e-12)
    assert_agree("whole video", output.whole_video_nll, whole.squeeze(1), atol=1e-12)


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


@pytest.mark.parametrize("num_best", [1, 2])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_only_the_best_positives_and_their_negatives_are_trained_by_the_reconstruction(
    schedule: str, num_best: int
) -> None:
    losses = {"losses__contrastive": 1.0, "losses__negative_margin": 9.0, "losses__num_best": num_best}
    model = _model(small_config(reconstructor__schedule=schedule, **losses))
    output = model(BATCH)
    # what pushes proposals apart reads the masks and not their logs
    reached = {"proposals": output.proposals.log_masks, "negatives": output.negative_masks}
    for value in (*reached.values(), output.best_nll, output.negative_nll):
        value.retain_grad()
    Objective(model.config)(output).total.backward()
    is_best = torch.zeros(4, 3, dtype=torch.bool)
    for b, ks in enumerate(oracles.best_proposals(output.positive_nll.detach().numpy(), num_best)):
        is_best[b, list(ks)] = True
    for name, value in reached.items():
        assert_agree(name, value.grad.abs().amax(2) > 0, is_best)
    for value in (output.best_nll, output.negative_nll):
        assert (value.grad != 0).all()


def test_the_state_holds_parameters_only() -> None:
    model = _model()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def _deepest_stacks(model: PPS) -> dict[str, list[str]]:
    """For each equation, the most functions of this package that are open when it is entered in a training pass."""
    package = str(Path(config_module.__file__).parent)
    deepest: dict[str, list[str]] = {}

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or frame.f_code.co_filename != equations.__file__:
            return
        names, outer = [], frame
        while outer is not None:
            if outer.f_code.co_filename.startswith(package):
                names.append(f"{Path(outer.f_code.co_filename).stem}.{outer.f_code.co_name}")
            outer = outer.f_back
        # helpers inside the equations are not entered from an op
        is_entry = frame.f_back is None or frame.f_back.f_code.co_filename != equations.__file__
        if is_entry and len(names) > len(deepest.get(frame.f_code.co_name, ())):
            deepest[frame.f_code.co_name] = names[::-1]

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        model(random_batch())
    finally:
        sys.setprofile(previous)
    return deepest


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_batch_goes_down_to_an_equation_in_eleven_frames_at_most(schedule: str) -> None:
    """And once: nobody whom the model calls calls back up."""
    config = small_config("charades", proposals__num_proposals=3, reconstructor__schedule=schedule)
    deepest = _deepest_stacks(PPS(config, SIZES).train())
    assert {"masked_attention", "residual_norm", "reconstruction_nll", "mixture"} <= deepest.keys()
    assert all(names[0] == "model.forward" for names in deepest.values())
    too_deep = {name: names for name, names in deepest.items() if len(names) > 11}
    assert not too_deep
    order = ["model", "mixture", "reconstructor", schedule, "transformer", "dropout", "dispatch", "equations"]
    for name in ("masked_attention", "residual_norm"):
        rooms = [order.index(entry.split(".")[0]) for entry in deepest[name]]
        assert rooms == sorted(rooms), deepest[name]
