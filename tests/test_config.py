"""Every knob is validated, survives its JSON, and is served by a registry of the same choices."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from pps_fast import config
from pps_fast.alignment.fit import POOLINGS
from pps_fast.alignment.windows import READERS, READING
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.encoder.curve import CURVE_INPUTS
from pps_fast.encoder.embedding import WORD_CLS, WORD_TOKENS
from pps_fast.encoder.frame_input import FRAME_INPUTS
from pps_fast.generator import FRAME_SUMMARIES
from pps_fast.losses import LOSS_TERMS, PULL_STRATEGIES
from pps_fast.model import METHODS
from pps_fast.ops import dispatch as backend
from pps_fast.predict import SELECTORS
from pps_fast.proposals.heads import CENTERS, WIDTHS
from pps_fast.proposals.layout import layout_of
from pps_fast.proposals.mixture import IMPORTANCE
from pps_fast.proposals.negatives import NEGATIVES
from pps_fast.proposals.readings import READINGS
from pps_fast.proposals.shapes import MASK_SHAPES
from pps_fast.train.alternating import TRAIN_STEPS
from tests.support.cases import NEEDED

# field, values it must refuse, the end of the message
REFUSED: dict[str, tuple[list[Any], str]] = {
    "data.fold": ([-1], "0 or more"),
    "data.validation_fraction": ([-0.1, 1.0], "0 to below 1"),
    "data.planted.num_videos": ([9], "at least 10"),
    "data.planted.num_segments": ([15], "at least 16"),
    "data.planted.frame_dim": ([1], "at least 2"),
    "data.planted.noise": ([-0.5], "0 or more"),
    "encoder.hidden_dim": ([0, -2, 255], "even, > 0"),
    "encoder.num_heads": ([0, 3], "a divisor of encoder.hidden_dim = 256"),
    "encoder.dropout": ([-0.1, 1.0], "0 to below 1"),
    "generator.num_layers": ([0], "at least 1"),
    "generator.num_word_layers": ([0], "at least 1"),
    "generator.max_width": ([0.0, 1.1], "above 0, at most 1"),
    "proposals.num_proposals": ([0], "at least 1"),
    "proposals.components_per_proposal": ([0], "at least 1"),
    "proposals.sigma": ([0.0, -9.0], "> 0"),
    "proposals.width_floor": ([0.0], "> 0 (a mask of width 0 is 0/0)"),
    "proposals.boundary_shrink": ([-0.1, 1.0], "0 to below 1"),
    "proposals.negatives.num_components": ([0], "at least 1"),
    "proposals.negatives.sigma": ([0.0], "> 0"),
    "proposals.negatives.curriculum": ([-0.5], "0 or more"),
    "proposals.negatives.kind": (
        ["complement"],
        "proposals of one component: proposals.layout = 'uniform', components_per_proposal = 1",
    ),
    "reconstructor.num_layers": ([0], "at least 1"),
    "reconstructor.num_word_layers": ([0], "at least 1"),
    "reconstructor.word_cls": (
        ["none"],
        "a token, because reconstructor.importance = 'reconstructor' is read from it",
    ),
    "reconstructor.word_tokens": (
        ["reused"],
        "word_cls = 'none' and no target_length = 'end_of_sentence', for both of which it has no slot",
    ),
    "reconstructor.stride": ([0], "at least 1"),
    "reconstructor.label_smoothing": ([-0.1, 1.0], "0 to below 1"),
    "reconstructor.hidden_words_divisor": ([0], "at least 1"),
    "losses.reconstruction": ([-1.0], "0 or more"),
    "losses.contrastive": ([-1.0], "0 or more"),
    "losses.pull": ([-1.0], "0 or more"),
    "losses.push_intra": ([-1.0], "0 or more"),
    "losses.push_inter": ([-1.0], "0 or more"),
    "losses.alignment": ([-1.0], "0 or more"),
    "losses.num_best": ([0], "at least 1"),
    "inference.batch_size": ([0], "at least 1"),
    "inference.num_bootstrap": ([0], "at least 1"),
    "inference.iou_thresholds": (
        [(), (0.0,), (0.5, 1.1), (math.nan,), (math.inf,)],
        "one or more values above 0, at most 1",
    ),
    "alignment.smoothing": ([-0.1, 1.1], "0 to 1"),
    "alignment.frame_ridge": ([0.0], "> 0"),
    "alignment.sentence_ridge": ([0.0], "> 0"),
    "alignment.sharpness": ([0.0], "> 0"),
    "alignment.change": ([-0.1], "0 or more"),
    "alignment.parts": ([1], "at least 2"),
    "alignment.position_prior": ([-0.1], "0 or more"),
    "alignment.duration_prior": ([-0.1], "0 or more"),
    "train.epochs": ([0], "at least 1"),
    "train.max_steps": ([0], "at least 1"),
    "train.batch_size": ([0], "at least 1"),
    "train.learning_rate": ([0.0, -1e-3], "> 0"),
    "train.warmup_updates": ([0], "at least 1"),
    "train.warmup_learning_rate": ([-1e-7], "0 or more"),
    "train.clip_norm": ([0.0], "> 0"),
    "train.weight_decay": ([-0.1], "0 or more"),
    "train.evaluate_every": ([-1], "0 or more"),
    "train.checkpoint_every": ([0], "at least 1"),
    "train.log_every": ([0], "at least 1"),
    "train.trace_every": ([-1], "0 or more"),
}
# every value of their type means something
FREE = {
    "data.path", "data.planted.seed", "inference.seed", "train.seed", "train.tensorboard", "train.capture",
    "inference.capture",
    "losses.push_normalize", "losses.push_single", "losses.whole_video_margin", "losses.negative_margin",
    "inference.alignment_rows", "losses.push_intra_target",
    "losses.push_inter_target", "reconstructor.shares_generator",
}  # fmt: skip
# every value is accepted with the defaults of the others: see `test_what_does_not_fit_together_is_refused`
TOGETHER = {"alignment.map", "train.update", "reconstructor.shares_generator", "inference.selector"}
REGISTRIES = {
    "MaskShape": MASK_SHAPES,
    "CenterSource": CENTERS,
    "WidthSource": WIDTHS,
    "NegativeKind": NEGATIVES,
    "ImportanceSource": IMPORTANCE,
    "PullStrategy": PULL_STRATEGIES,
    "Selector": SELECTORS,
    "FrameSummary": FRAME_SUMMARIES,
    "WordCls": WORD_CLS,
    "WordTokens": WORD_TOKENS,
    "Update": TRAIN_STEPS,
    "Method": METHODS,
    "FramePooling": POOLINGS,
    "CurveKind": READING,
    "CurveReading": READERS,
    "CurveInput": CURVE_INPUTS,
    "FrameInput": FRAME_INPUTS,
    "BoundaryReading": READINGS,
}


def _fields(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and the type of every knob."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            yield from _fields(inner, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, hints[item.name]


FIELDS = dict(_fields(PPSConfig()))
CHOICES = {path: typing.get_args(hint) for path, hint in FIELDS.items() if typing.get_origin(hint) is Literal}


@pytest.mark.parametrize(("path", "bad"), [(path, bad) for path, (values, _) in REFUSED.items() for bad in values])
def test_a_bad_value_is_refused_with_its_field_and_what_was_expected(path: str, bad: Any) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path} = {bad!r}: expected {REFUSED[path][1]}") + "$"):
        override(PPSConfig(), {path: bad})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", [path for path, hint in FIELDS.items() if hint is float])
def test_numbers_that_are_not_finite_are_refused_by_name(path: str, bad: float) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path} = {bad!r}: expected a finite number") + "$"):
        override(PPSConfig(), {path: bad})


@pytest.mark.parametrize("path", CHOICES)
def test_an_unknown_choice_is_refused_with_the_choices(path: str) -> None:
    name = path if "." in path else f"config.{path}"
    expected = f"{name} = 'nonsense': expected one of {', '.join(CHOICES[path])}"
    with pytest.raises(ValueError, match="^" + re.escape(expected) + "$"):
        override(PPSConfig(), {path: "nonsense"})


@pytest.mark.parametrize("path", CHOICES)
def test_every_choice_is_accepted(path: str) -> None:
    for choice in CHOICES[path]:
        changes = NEEDED.get((path, choice), {}) | {path: choice}
        assert dict(_values(override(PPSConfig(), changes)))[path] == choice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.update": "alternating", "losses.reconstruction": 0.0}, "train.update = 'alternating': expected "),
        (
            {"train.update": "alternating"} | {f"losses.{name}": 0.0 for name in list(LOSS_TERMS)[1:]},
            "train.update = 'alternating': expected losses.reconstruction and another loss above 0",
        ),
        (
            {"losses.alignment": 1.0, "losses.reconstruction": 0.0, "losses.contrastive": 0.0},
            "inference.selector = 'vote_loss_weighted': expected alignment or vote, because no loss trains the recons",
        ),
        (
            {"reconstructor.shares_generator": True, "reconstructor.num_word_layers": 2},
            "reconstructor.shares_generator = True: expected as many layers",
        ),
        (
            {**NEEDED["reconstructor.word_tokens", "reused"], "reconstructor.word_tokens": "reused"}
            | {"reconstructor.target_length": "end_of_sentence"},
            "reconstructor.word_tokens = 'reused': expected word_cls = 'none' and no target_length",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        override(PPSConfig(), changes)


def test_a_layout_has_mixtures_where_a_proposal_has_several_components() -> None:
    proposals = PPSConfig().proposals
    for changes, expected in (
        ({}, True),
        ({"num_proposals": 1}, False),
        ({"layout": "uniform"}, False),
        ({"layout": "uniform", "components_per_proposal": 2}, True),
    ):
        changed = override(proposals, changes)
        assert changed.has_mixtures == expected == bool(layout_of(changed).mixed)


def test_more_best_proposals_than_proposals_are_refused() -> None:
    with pytest.raises(ValueError, match=r"losses\.num_best = 8: expected at most proposals\.num_proposals = 7"):
        override(PPSConfig(), {"losses.num_best": 8})
    assert override(PPSConfig(), {"losses.num_best": 7}).losses.num_best == 7


def test_every_knob_has_a_row_of_refused_values_or_is_free_for_a_reason() -> None:
    assert FIELDS.keys() == REFUSED.keys() | FREE | CHOICES.keys()
    assert not FREE & REFUSED.keys()


def test_every_validation_line_has_a_row_of_refused_values() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [call.args[1] for call in calls if ast.unparse(call.func) == "require"]
    plain = {name.value for name in named if isinstance(name, ast.Constant)}
    assert len(plain) > 30
    assert plain <= REFUSED.keys() | TOGETHER


@pytest.mark.parametrize("name", REGISTRIES)
def test_registries_hold_exactly_the_choices_of_the_config(name: str) -> None:
    assert set(REGISTRIES[name]) == set(typing.get_args(getattr(config, name)))


def test_loss_terms_are_the_weights_of_the_config() -> None:
    weights = [
        path for path, (_, expected) in REFUSED.items() if path.startswith("losses.") and expected == "0 or more"
    ]
    assert [f"losses.{name}" for name in LOSS_TERMS] == weights


def test_backends_are_those_of_the_dispatcher() -> None:
    assert typing.get_args(config.Backend) == backend.BACKENDS


def _values(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            yield from _values(inner, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, inner


def test_configs_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPSConfig().train.epochs = 1
