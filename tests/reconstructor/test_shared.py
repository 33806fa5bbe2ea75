"""The shared schedule gives what the plain one gives: losses, all gradients, whatever the config, dropout included."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.config_tree import override
from pps_fast.data.sampler import epoch_batches
from pps_fast.encoder.transformer import Keys, Stack
from pps_fast.equations import best_proposals
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.presets import CNM, CPL, PRESETS
from pps_fast.randomness import mix
from pps_fast.reconstructor import shared
from pps_fast.reconstructor.plain import Layers
from pps_fast.reconstructor.reconstructor import SCHEDULES
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, Candidates, CandidateScores, MaskSet, Reconstruction, ReconstructorInput
from tests.support.cases import SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree
from tests.support.passes import record_passes
from tests.support.train_runs import small_input

# relative, as norms, of values; measured 2e-16 and 2.4e-6
NEAR = {torch.float64: 1e-12, torch.float32: 5e-6}
# of all gradients together, and ten times that of each; measured 6e-15 and 3e-5. In float32 each schedule alone is
# up to 1e-5 away from float64, since they round in another order and the gradients partly cancel: equality is shown
# in float64, float32 shows that the shared schedule loses no more digits than that
NEAR_GRADIENTS = {torch.float64: 1e-12, torch.float32: 5e-5}

# every choice of the config that the reconstructor or its inputs depend on
CHANGES: list[dict[str, Any]] = [
    {},
    {"reconstructor.num_layers": 2},
    {"reconstructor.num_layers": 3, "reconstructor.num_word_layers": 1},
    {"reconstructor.num_layers": 1, "reconstructor.num_word_layers": 3},
    {"reconstructor.importance": "generator", "losses.num_best": 2},
    {"reconstructor.importance": "none", "reconstructor.num_layers": 2},
    {"reconstructor.target_length": "plus_one", "losses.num_best": 2},
    {"reconstructor.target_length": "end_of_sentence"},
    {"reconstructor.word_cls": "scalar_per_batch_position"},
    {"reconstructor.stride": 1, "reconstructor.num_layers": 2},
    {"proposals.negatives.kind": "learned_inverse", "losses.num_best": 2},
    {"proposals.negatives.kind": "inverse"},
    {"proposals.negatives.kind": "sides"},
    {"proposals.negatives.kind": "sides_saturated"},
    {"proposals.layout": "uniform", "proposals.components_per_proposal": 1},
    {"proposals.num_proposals": 1, "reconstructor.num_layers": 2},
    {"losses.num_best": 3},
    {**CPL, "generator.num_layers": 2, "reconstructor.num_layers": 2},
    {**CPL, "losses.num_best": 2},
    {**CNM, "generator.num_layers": 2, "reconstructor.num_layers": 2},
]
# of a change that is a whole method, its name
METHODS = {"sides_apart": "CPL", "complement": "CNM"}


def _named(changes: dict[str, Any]) -> str:
    method = METHODS.get(changes.get("proposals.negatives.kind", ""))
    values = [f"{value}" for name, value in changes.items() if not method or name not in CPL | CNM]
    return "-".join([method] * bool(method) + values) or "paper"


def _batch(dtype: torch.dtype) -> Batch:
    """Sentences of 1 to 7 words, videos of 2 to all segments."""
    batch = random_batch((4, 7, 1, 5), dtype=dtype)
    return replace(batch, num_frames=torch.tensor([SIZES.num_segments, 9, 2, 5]))


def _run(schedule: str, dtype: torch.dtype, is_training: bool, changes: dict[str, Any]) -> dict[str, Tensor]:
    """Everything the losses and inference read, and the gradient of every parameter, by name."""
    config = override(small_config(), {**changes, "reconstructor.schedule": schedule})
    model = randomize(PPS(config, SIZES).to(dtype), seed=1).train(is_training)
    output = model(_batch(dtype))
    total = Objective(config)(output).total
    total.backward()
    values = {
        "loss": total,
        "positive_nll": output.positive_nll,
        "best": output.best,
        "best_nll": output.best_nll,
        "negative_nll": output.negative_nll,
        "whole_video_nll": output.whole_video_nll,
        "importance": output.proposals.importance,
    }
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in (values | gradients).items()}


def _assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], near: float, near_gradients: float) -> None:
    """Values agree, so do the gradients together, and each of them to ten times that."""
    assert got.keys() == expected.keys()
    assert torch.equal(got["best"], expected["best"])
    differences = {name: _norm(got[name] - value) for name, value in expected.items()}
    gradients = [name for name in expected if name.startswith("gradient")]
    scale_of_all = sum(_norm(expected[name]) ** 2 for name in gradients) ** 0.5
    for name, difference in differences.items():
        scale, allowed = _norm(expected[name]), near
        if name in gradients:
            # some are zero but for rounding, such as that of a bias before a softmax
            scale, allowed = max(scale, 1e-3 * scale_of_all), 10 * near_gradients
        if not difference <= allowed * scale:
            raise AssertionError(f"{name}: differs by {difference:.3e}, scale {scale:.3e}, allowed {allowed:.0e} of it")
    difference_of_all = sum(differences[name] ** 2 for name in gradients) ** 0.5
    assert difference_of_all <= near_gradients * scale_of_all, (
        f"gradients differ by {difference_of_all:.3e} of {scale_of_all:.3e}"
    )


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x.double()).item()


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dropout", [0.1, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("changes", CHANGES, ids=_named)
def test_schedules_agree(changes: dict[str, Any], dtype: torch.dtype, dropout: float, is_training: bool) -> None:
    changes = {**changes, "encoder.dropout": dropout}
    got, expected = (_run(schedule, dtype, is_training, changes) for schedule in ("shared", "plain"))
    _assert_same(got, expected, NEAR[dtype], NEAR_GRADIENTS[dtype])


def test_schedules_of_every_choice_of_the_config_are_compared() -> None:
    from pps_fast.proposals.mixture import IMPORTANCE

    assert set(SCHEDULES) == {"shared", "plain"}
    seen = {name: {changes.get(name) for changes in CHANGES} for changes in CHANGES for name in changes}
    assert set(IMPORTANCE) - {"reconstructor"} <= seen["reconstructor.importance"]


# --- what makes the comparison worth something ----------------------------------------------------


def _other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best are trained with other dropout than they were scored with."""
    original = shared.features

    def features(layers: Layers, inputs: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
        if row is None and torch.is_grad_enabled() and masks.dropout_key is not None:
            masks = replace(masks, dropout_key=mix(masks.dropout_key, 1))
        return original(layers, inputs, masks, row)

    monkeypatch.setattr(shared, "features", features)


def _other_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best are compared with the negatives of other proposals."""
    original = shared.score

    def score(layers: Layers, inputs: ReconstructorInput, candidates: Candidates, *others: Any) -> CandidateScores:
        return original(layers, inputs, replace(candidates, negatives=_rolled(candidates.negatives)), *others)

    monkeypatch.setattr(shared, "score", score)


def _other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row before that of q_cls is read."""
    original = shared.features

    def features(layers: Layers, inputs: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
        return original(layers, inputs, masks, None if row is None else row - 1)

    monkeypatch.setattr(shared, "features", features)


def _rolled(masks: MaskSet) -> MaskSet:
    dropout_key = None if masks.dropout_key is None else masks.dropout_key.roll(1, 1)
    return MaskSet(log_masks=masks.log_masks.roll(1, 1), dropout_key=dropout_key)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_other_keys, "differs by"),
        (_other_negatives, "negative_nll: differs by|loss: differs by"),
        (_other_row, "differs"),
    ],
)
def test_the_comparison_sees_a_wrong_schedule(break_it: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _run("plain", torch.float64, True, {})
    break_it(monkeypatch)
    got = _run("shared", torch.float64, True, {})
    # the first thing seen must not be another choice of the best
    got["best"] = expected["best"]
    with pytest.raises(AssertionError, match=message):
        _assert_same(got, expected, 1e-3, 1e-3)


def test_dropout_matters_to_the_comparison() -> None:
    dropped, kept = (_run("shared", torch.float64, is_training, {}) for is_training in (True, False))
    with pytest.raises(AssertionError, match="loss: differs"):
        _assert_same(dropped | {"best": kept["best"]}, kept, 1e-3, 1e-3)


# --- the schedule by itself -----------------------------------------------------------------------


class _MaskSum:
    """In the place of a vocabulary: C is a function of a mask and its key alone, which `_features` hands on."""

    @staticmethod
    def reconstruct(features: Tensor, batch: None, ragged: None) -> Reconstruction:
        return Reconstruction(logits=torch.empty(0), nll=features)


def _scored(num_best: int, monkeypatch: pytest.MonkeyPatch) -> tuple[CandidateScores, list[tuple[int, bool]]]:
    """Scores by a made-up C of K = 4, and how many masks each pass had, and whether for gradients."""
    generator = torch.Generator().manual_seed(0)
    passes = []

    def drawn(number: int) -> MaskSet:
        dropout_key = torch.randint(-(2**31), 2**31, (2, number), generator=generator).to(torch.int32)
        return MaskSet(log_masks=-torch.rand(2, number, 3, generator=generator), dropout_key=dropout_key)

    def features(layers: Layers, inputs: SimpleNamespace, masks: MaskSet) -> Tensor:
        passes.append((masks.log_masks.shape[1], torch.is_grad_enabled()))
        return masks.log_masks.sum(-1) + masks.dropout_key.double() / 2**31

    monkeypatch.setattr(shared, "features", features)
    candidates = Candidates(positives=drawn(4), negatives=drawn(4), whole_video=drawn(1))
    layers = Layers(video_stack=None, word_stack=None, vocabulary=_MaskSum)
    return shared.score(layers, SimpleNamespace(ragged=None), candidates, None, num_best), passes


@pytest.mark.parametrize("num_best", [1, 2, 3])
def test_only_what_the_losses_read_is_computed_with_gradients(num_best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, passes = _scored(num_best, monkeypatch)
    assert passes == [(4, False), (2 * num_best + 1, True)]
    assert torch.equal(scores.best, best_proposals(scores.positive_nll, num_best))
    assert_agree("best", scores.best_nll, scores.positive_nll.gather(1, scores.best))
    assert scores.negative_nll.shape == (2, num_best, 1) and scores.whole_video_nll.shape == (2,)


def test_where_all_proposals_are_trained_one_pass_has_all_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, passes = _scored(4, monkeypatch)
    assert passes == [(9, True)]
    assert_agree("best", scores.best_nll, scores.positive_nll.sort(1).values)


def test_fifty_updates_have_the_same_losses() -> None:
    """In float64: fp32 rounds the schedules apart until two proposals change places at a tie."""
    losses = {}
    for schedule in ("shared", "plain"):
        config = override(PRESETS["tiny"], {"reconstructor.schedule": schedule})
        store, splits = small_input(config)
        torch.manual_seed(0)
        model = PPS(config, store.sizes).double().train()
        step = TrainStep(model, Objective(config), Adam(model.parameters(), lr=1e-3), config.train.clip_norm)
        batches = [(batch, epoch) for epoch in range(10) for batch in epoch_batches(splits.train, 8, 0, epoch)]
        steps = [store.batch(batch, seed=0, epoch=epoch).to(dtype=torch.float64) for batch, epoch in batches[:50]]
        reports = [step(batch) for batch in steps]
        losses[schedule] = torch.stack([report.loss.total for report in reports])
    assert len(losses["plain"]) == 50 and losses["plain"][-1] < losses["plain"][0]
    assert_agree("losses", losses["shared"], losses["plain"], rtol=1e-9)


# --- masks in chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bytes", [1, 3000])
@pytest.mark.parametrize("changes", [{}, {"reconstructor.num_layers": 2}], ids=["one layer", "two layers"])
def test_few_masks_at_a_time_give_the_same(
    num_bytes: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run("shared", torch.float64, True, {**changes, "encoder.dropout": 0.1})
    monkeypatch.setattr(shared, "_CHUNK_BYTES", num_bytes)
    passes, chunks = record_passes(monkeypatch), []
    forward = Stack.forward_shared

    def counted(self: Stack, x: Tensor, keys: Keys, num_masks: int, *others: Any) -> Tensor:
        chunks.append(num_masks)
        return forward(self, x, keys, num_masks, *others)

    monkeypatch.setattr(Stack, "forward_shared", counted)
    chunked = _run("shared", torch.float64, True, {**changes, "encoder.dropout": 0.1})
    # 5 components of mixtures, 3 positives, then the best, its negative and the whole video; each through two stacks
    assert [one.masks.log_masks.shape[1] for one in passes] == [5, 3, 3]
    assert sum(chunks) == 2 * (5 + 3 + 3) and len(chunks) > 2 * 3
    _assert_same(chunked, whole, NEAR[torch.float64], NEAR_GRADIENTS[torch.float64])


def test_chunks_are_as_large_as_the_memory_of_their_widest_result_allows() -> None:
    # 32 samples of 50 positions, 768 values of a packed projection: 4.9 MB a mask in fp32
    assert shared.masks_at_once(torch.empty(32, 50, 256)) == 4
    assert shared.masks_at_once(torch.empty(32, 50, 256, dtype=torch.bfloat16)) == 8
    assert shared.masks_at_once(torch.empty(4096, 50, 256)) == 1
    assert shared.masks_at_once(torch.empty(32, 50, 256, device="meta")) > 1e6
