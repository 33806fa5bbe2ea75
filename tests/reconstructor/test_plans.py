"""The shared plan gives what the plain one gives: losses, all gradients, whatever the config, dropout included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.config_tree import override
from pps_fast.data.sampler import epoch_batches
from pps_fast.encoder.transformer import Stack
from pps_fast.equations import best_proposals
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.presets import CNM, CPL, PRESETS
from pps_fast.randomness import mix
from pps_fast.reconstructor import plans
from pps_fast.reconstructor.plans import PLANS, PlainPlan, ReconstructorInput, Scores, SharedPlan
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, MaskSet, Reconstruction
from tests.support.cases import SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree
from tests.support.train_runs import small_input

# relative, as norms, of values; measured 2e-16 and 2.4e-6
NEAR = {torch.float64: 1e-12, torch.float32: 5e-6}
# of all gradients together, and ten times that of each; measured 6e-15 and 3e-5. In float32 each plan alone is up to
# 1e-5 away from float64, since the plans round in another order and the gradients partly cancel: equality is shown
# in float64, float32 shows that the shared plan loses no more digits than that
NEAR_GRADIENTS = {torch.float64: 1e-12, torch.float32: 5e-5}

# every choice of the config that the reconstructor or what it is given depends on
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


def _run(plan: str, dtype: torch.dtype, is_training: bool, changes: dict[str, Any]) -> dict[str, Tensor]:
    """Everything the losses and inference read, and the gradient of every parameter, by name."""
    config = override(small_config(), {**changes, "reconstructor.plan": plan})
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
def test_plans_agree(changes: dict[str, Any], dtype: torch.dtype, dropout: float, is_training: bool) -> None:
    changes = {**changes, "encoder.dropout": dropout}
    got, expected = (_run(plan, dtype, is_training, changes) for plan in ("shared", "plain"))
    _assert_same(got, expected, NEAR[dtype], NEAR_GRADIENTS[dtype])


def test_plans_of_every_choice_of_the_config_are_compared() -> None:
    from pps_fast.proposals.mixture import IMPORTANCE

    assert set(PLANS) == {"shared", "plain"}
    seen = {key: {changes.get(key) for changes in CHANGES} for changes in CHANGES for key in changes}
    assert set(IMPORTANCE) - {"reconstructor"} <= seen["reconstructor.importance"]


# --- what makes the comparison worth something ----------------------------------------------------


class _OtherKeys(SharedPlan):
    """A plan that trains the best with other dropout than they were scored with."""

    @staticmethod
    def score(nll_of: Any, positives: MaskSet, negatives: MaskSet, whole_video: MaskSet, num_best: int) -> Scores:
        calls = []

        def second_call_differs(masks: MaskSet) -> Reconstruction:
            calls.append(masks)
            if len(calls) == 2 and masks.dropout_key is not None:
                masks = replace(masks, dropout_key=mix(masks.dropout_key, 1))
            return nll_of(masks)

        return SharedPlan.score(second_call_differs, positives, negatives, whole_video, num_best)


class _OtherNegatives(SharedPlan):
    """A plan that compares the best with the negatives of other proposals."""

    @staticmethod
    def score(nll_of: Any, positives: MaskSet, negatives: MaskSet, whole_video: MaskSet, num_best: int) -> Scores:
        return SharedPlan.score(nll_of, positives, _rolled(negatives), whole_video, num_best)


class _OtherRow(SharedPlan):
    """A plan that reads the row before that of q_cls."""

    @staticmethod
    def summaries(stacks: Any, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        return SharedPlan.summaries(stacks, replace(shared, num_words=shared.num_words - 1), masks)


def _rolled(masks: MaskSet) -> MaskSet:
    key = None if masks.dropout_key is None else masks.dropout_key.roll(1, 1)
    return MaskSet(log_masks=masks.log_masks.roll(1, 1), dropout_key=key)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (_OtherKeys, "differs by"),
        (_OtherNegatives, "negative_nll: differs by|loss: differs by"),
        (_OtherRow, "differs"),
    ],
)
def test_the_comparison_sees_a_wrong_plan(wrong: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _run("plain", torch.float64, True, {})
    monkeypatch.setitem(PLANS, "shared", wrong)
    got = _run("shared", torch.float64, True, {})
    # the first thing seen must not be another choice of the best
    got["best"] = expected["best"]
    with pytest.raises(AssertionError, match=found):
        _assert_same(got, expected, 1e-3, 1e-3)


def test_dropout_matters_to_the_comparison() -> None:
    dropped, kept = (_run("shared", torch.float64, is_training, {}) for is_training in (True, False))
    with pytest.raises(AssertionError, match="loss: differs"):
        _assert_same(dropped | {"best": kept["best"]}, kept, 1e-3, 1e-3)


# --- one plan by itself ---------------------------------------------------------------------------


def _scored(num_best: int) -> tuple[Scores, list[tuple[int, bool]], MaskSet]:
    """Scores of the shared plan from a made-up C, and how many masks each call had, and whether for gradients."""
    generator = torch.Generator().manual_seed(0)
    calls = []

    def drawn(number: int) -> MaskSet:
        key = torch.randint(-(2**31), 2**31, (2, number), generator=generator).to(torch.int32)
        return MaskSet(log_masks=-torch.rand(2, number, 3, generator=generator), dropout_key=key)

    def nll_of(masks: MaskSet) -> Reconstruction:
        calls.append((masks.log_masks.shape[1], torch.is_grad_enabled()))
        # of a mask and its key alone
        return Reconstruction(logits=torch.empty(0), nll=masks.log_masks.sum(-1) + masks.dropout_key.double() / 2**31)

    positives = drawn(4)
    return SharedPlan.score(nll_of, positives, drawn(4), drawn(1), num_best), calls, positives


@pytest.mark.parametrize("num_best", [1, 2, 3])
def test_only_what_the_losses_read_is_computed_with_gradients(num_best: int) -> None:
    scores, calls, _ = _scored(num_best)
    assert calls == [(4, False), (2 * num_best + 1, True)]
    assert torch.equal(scores.best, best_proposals(scores.positive, num_best))
    assert_agree("best", scores.best_positive, scores.positive.gather(1, scores.best))
    assert scores.best_negative.shape == (2, num_best, 1) and scores.whole_video.shape == (2,)


def test_summaries_are_a_row_of_the_features() -> None:
    config = small_config(reconstructor__num_layers=2)
    width, generator = config.encoder.hidden_dim, torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    class Stacks:
        video_stack = randomize(Stack(config, 2, has_memory=False).double())
        word_stack = randomize(Stack(config, 2, has_memory=True).double())

    num_words = torch.tensor([3, 1])
    shared = ReconstructorInput(
        frames=draw(2, 5, width),
        frame_valid=torch.arange(5) < torch.tensor([[5], [2]]),
        query=draw(2, 5, width),
        word_valid=torch.arange(5) < (num_words + 1).unsqueeze(1),
        num_words=num_words,
    )
    keys = torch.randint(-(2**31), 2**31, (2, 3), generator=generator).to(torch.int32)
    masks = MaskSet(log_masks=-draw(2, 3, 5).abs(), dropout_key=keys)
    for plan in (SharedPlan, PlainPlan):
        features, summaries = (made(Stacks, shared, masks) for made in (plan.features, plan.summaries))
        assert features.shape == (2, 3, 5, width) and summaries.shape == (2, 3, width)
        for sample, length in enumerate(num_words.tolist()):
            assert_agree("row", summaries[sample], features[sample, :, length + 1], atol=1e-12)
        some = masks.take(torch.tensor([[2, 0], [1, 1]]))
        expected = features[torch.arange(2).unsqueeze(1), torch.tensor([[2, 0], [1, 1]])]
        assert_agree("some masks", plan.features(Stacks, shared, some), expected, atol=1e-12)


def test_fifty_updates_have_the_same_losses() -> None:
    losses = {}
    for plan in ("shared", "plain"):
        config = override(PRESETS["tiny"], {"reconstructor.plan": plan})
        store, splits = small_input(config)
        torch.manual_seed(0)
        model = PPS(config, store.sizes).train()
        step = TrainStep(model, Objective(config), Adam(model.parameters(), lr=1e-3), config.train.clip_norm)
        batches = [(batch, epoch) for epoch in range(10) for batch in epoch_batches(splits.train, 8, 0, epoch)]
        reports = [step(store.batch(batch, seed=0, epoch=epoch)) for batch, epoch in batches[:50]]
        losses[plan] = torch.stack([report.loss.total for report in reports])
    assert len(losses["plain"]) == 50 and losses["plain"][-1] < losses["plain"][0]
    assert_agree("losses", losses["shared"], losses["plain"], rtol=1e-4)


# --- masks in chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bytes", [1, 3000])
@pytest.mark.parametrize("changes", [{}, {"reconstructor.num_layers": 2}], ids=["one layer", "two layers"])
def test_few_masks_at_a_time_give_the_same(
    num_bytes: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run("shared", torch.float64, True, {**changes, "encoder.dropout": 0.1})
    seen = []
    words = SharedPlan._words
    monkeypatch.setattr(plans, "_CHUNK_BYTES", num_bytes)
    monkeypatch.setattr(
        SharedPlan, "_words", staticmethod(lambda *given: (seen.append(given[2].log_masks.shape[1]), words(*given))[1])
    )
    chunked = _run("shared", torch.float64, True, {**changes, "encoder.dropout": 0.1})
    # 5 components of mixtures, 3 positives, then the best, its negative and the whole video
    assert sum(seen) == 5 + 3 + 3 and len(seen) > 3
    _assert_same(chunked, whole, NEAR[torch.float64], NEAR_GRADIENTS[torch.float64])


def test_chunks_are_as_large_as_the_memory_of_their_widest_result_allows() -> None:
    # 32 samples of 50 positions, 768 values of a packed projection: 4.9 MB a mask in fp32
    assert plans.masks_at_once(torch.empty(32, 50, 256)) == 4
    assert plans.masks_at_once(torch.empty(32, 50, 256, dtype=torch.bfloat16)) == 8
    assert plans.masks_at_once(torch.empty(4096, 50, 256)) == 1
    assert plans.masks_at_once(torch.empty(32, 50, 256, device="meta")) > 1e6
