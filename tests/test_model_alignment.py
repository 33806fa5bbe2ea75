"""A model with an alignment: rewards, input of the generator, cross-fitting, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pps_fast.losses import Objective
from pps_fast.model import PPS
from tests.support import oracles
from tests.support.cases import SIZES, random_batch, randomize, small_config, take
from tests.support.compare import assert_agree
from tests.support.passes import record_reconstructions

BATCH = random_batch(dtype=torch.float64)
BOTH = {"losses__alignment": 1.0}
ALONE = {
    **BOTH,
    "losses__reconstruction": 0.0,
    "losses__contrastive": 0.0,
    "inference__selector": "alignment",
    "reconstructor__importance": "generator",
}


def _model(**changes: object) -> PPS:
    return randomize(PPS(small_config(**changes), SIZES).double().eval())


@pytest.mark.parametrize(("curve", "power"), [("linear", 0.25), ("standardized", 0.5)])
def test_rewards_are_those_of_the_proposals_masks_at_the_mask_positions(curve: str, power: float) -> None:
    model = _model(**BOTH, alignment__curve=curve)
    output = model(BATCH)
    scores = model.alignment(BATCH)[:, model.kept]
    arrays = output.proposals.masks.detach().numpy(), scores.numpy()
    assert_agree("reward", output.reward, oracles.mask_reward(*arrays, power), rtol=1e-10)
    assert_agree("inference", model(BATCH, with_negatives=False).reward, output.reward, rtol=1e-12)


def test_in_training_curves_come_from_the_map_without_the_pairs_part() -> None:
    model = _model(**BOTH, encoder__dropout=0.0)
    evaluated = model(BATCH).reward
    in_training = model.train()(BATCH).reward
    assert (in_training - evaluated).abs().min() > 1e-6
    model.alignment.maps[:-1] = model.alignment.maps[-1]
    assert_agree("one map", model(BATCH).reward, evaluated, rtol=1e-10)


@pytest.mark.parametrize("changes", [{"encoder__curve": "only"}, {"encoder__curve": "added"}, ALONE], ids=str)
def test_training_without_parts_is_refused(changes: dict) -> None:
    batch = replace(BATCH, part=None)
    model = _model(**changes)
    model(batch)
    with pytest.raises(ValueError, match=r"needs the parts of its pairs: call Store\.set_parts"):
        model.train()(batch)


def test_a_reward_trains_what_makes_the_masks_and_no_map() -> None:
    model = _model(**ALONE, encoder__curve="only").train()
    Objective(small_config(**ALONE, losses__pull=0.0, losses__push_intra=0.0, losses__push_inter=0.0))(
        model(BATCH)
    ).total.backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"embed", "generator", "head", "pool", "embed_curve"}
    assert not list(model.alignment.parameters())


def test_masks_learn_to_cover_the_frames_that_score_high() -> None:
    torch.manual_seed(0)
    config = small_config(**ALONE, encoder__curve="only", proposals__sigma=8.0**0.5, reconstructor__stride=1)
    model = randomize(PPS(config, SIZES).double()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model(BATCH).reward.mean().item()
    for _ in range(30):
        optimizer.zero_grad()
        Objective(config)(model(BATCH)).total.backward()
        optimizer.step()
    assert model(BATCH).reward.mean().item() > before + 0.3


def test_the_curve_moves_proposals_and_leaves_the_reconstructor_alone() -> None:
    plain, guided = _model(), _model(encoder__curve="added")
    guided.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(BATCH)
    with torch.no_grad():
        moved = guided(BATCH).proposals.components.center
        assert (moved - expected.proposals.components.center).abs().max() > 1e-6
        # without its rows in the generator nothing else shows the curve
        guided.embed_curve.forward = lambda frames, *others: frames
        assert_agree("C", guided(BATCH).positive_nll, expected.positive_nll, rtol=1e-12)


def test_with_only_the_curve_embedded_frames_do_not_reach_the_generator() -> None:
    only, added = (_model(**ALONE, encoder__curve=curve) for curve in ("only", "added"))
    for model, is_reached in ((only, False), (added, True)):
        # v_cls is embedded as a frame is, and has the token's features alone
        model.embed.frame_cls.data.zero_()
        before = model(BATCH).proposals.components.center
        model.embed.frame_projection.weight.data.normal_()
        assert torch.equal(model(BATCH).proposals.components.center, before) != is_reached


def test_where_no_loss_needs_c_nothing_is_rebuilt() -> None:
    model, both = _model(**ALONE), _model(**BOTH)
    passes, passes_of_both = record_reconstructions(model), record_reconstructions(both)
    for output in (model(BATCH), model(BATCH, with_negatives=False), model.train()(BATCH)):
        assert output.best is None and output.whole_video_nll is None and output.negative_masks is None
        assert torch.equal(output.positive_nll, -output.reward) and not output.positive_nll.requires_grad
    both(BATCH)
    assert not passes and passes_of_both


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model = _model(**ALONE, encoder__curve="only", proposals__boundaries="mask_level").train()
    together = model(BATCH)
    for b in range(4):
        alone = model(take(BATCH, [b]))
        assert_agree(f"reward {b}", alone.reward, together.reward[b : b + 1], atol=1e-12)
        assert_agree(f"start {b}", alone.proposals.start, together.proposals.start[b : b + 1], atol=1e-12)


def test_without_an_alignment_there_is_nothing_of_it() -> None:
    model = _model()
    assert model.alignment is None and model(BATCH).reward is None
    assert not [name for name in model.state_dict() if "alignment" in name or "curve" in name]
