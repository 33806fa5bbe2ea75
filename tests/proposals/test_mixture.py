"""Importance weights: their three sources, and what they make of component masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.proposals.layout import MixtureLayout
from pps_fast.proposals.mixture import IMPORTANCE, ProposalMixture
from pps_fast.reconstructor.reconstructor import SCHEDULES, Reconstructor
from pps_fast.types import Components, MaskSet, Proposals, ReconstructorInput
from tests.support import oracles
from tests.support.cases import LAYOUTS, SIZES, randomize, small_config
from tests.support.compare import assert_agree

EVERY = [(source, name) for source in sorted(IMPORTANCE) for name in sorted(LAYOUTS)]


class Setup:
    """A pooling with all it reads: 3 samples, 4 positions."""

    def __init__(self, source: str, layout: MixtureLayout, schedule: str = "shared") -> None:
        config = small_config(reconstructor__importance=source, reconstructor__schedule=schedule)
        rng = np.random.default_rng(0)
        self.layout = layout
        self.pool = randomize(ProposalMixture(config, layout).double().eval())
        self.reconstructor = randomize(Reconstructor(config, SIZES.vocab_size).double().eval(), seed=1)
        self.g_cls = torch.from_numpy(rng.normal(size=(3, 8)))
        # so wide that no mask vanishes at all 4 positions
        center, width = (torch.from_numpy(rng.uniform(0.4, 0.9, (3, layout.num_components))) for _ in range(2))
        masks, log_masks = equations.gaussian_mask(center, width, 9.0, 4)
        self.components = Components(center=center, width=width, masks=masks, log_masks=log_masks)
        num_words = torch.tensor([2, 4, 1])
        self.inputs = ReconstructorInput(
            frames=torch.from_numpy(rng.normal(size=(3, 4, 8))),
            frame_valid=torch.ones(3, 4, dtype=torch.bool),
            query=torch.from_numpy(rng.normal(size=(3, 6, 8))),
            word_valid=torch.arange(6) < (num_words + 1).unsqueeze(1),
            num_words=num_words,
        )
        self.dropout_key = torch.from_numpy(rng.integers(-(2**31), 2**31, center.shape, dtype=np.int32))
        self.passes: list[MaskSet] = []
        self.reconstructor.summaries = self._counted(self.reconstructor.summaries)
        self.reconstructor.features = self._counted(self.reconstructor.features)

    def _counted(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(inputs: ReconstructorInput, masks: MaskSet) -> Tensor:
            self.passes.append(masks)
            return original(inputs, masks)

        return call

    def run(self, dropout_key: Tensor | None = None) -> Proposals:
        return self.pool(self.g_cls, self.components, dropout_key, self.reconstructor, self.inputs)

    def ragged_masks(self) -> oracles.Ragged:
        return oracles.ragged(self.components.masks.numpy(), np.array(self.layout.group))


def _assert_masks(proposals: Proposals, expected: tuple[oracles.Array, oracles.Array]) -> None:
    """Masks and their logs."""
    for name, loops in zip(("masks", "log_masks"), expected, strict=True):
        assert_agree(name, getattr(proposals, name), loops, atol=1e-10)


@pytest.mark.parametrize(("source", "name"), EVERY)
def test_weights_sum_to_one_in_every_proposal_and_a_component_alone_has_one(source: str, name: str) -> None:
    setup = Setup(source, LAYOUTS[name])
    weights = setup.run().importance
    sums = [part.sum(1) for part in weights.split(setup.layout.components_per_proposal, 1)]
    assert_agree("sums", torch.stack(sums), torch.ones(len(sums), 3), atol=1e-12)
    for first, count in zip(setup.layout.offsets, setup.layout.components_per_proposal, strict=False):
        if count == 1:
            assert_agree("alone", weights[:, first], torch.ones(3))


@pytest.mark.parametrize("is_dropping", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_scores_from_the_reconstructor_are_an_mlp_on_the_summary_of_each_mask_alone(
    name: str, schedule: str, is_dropping: bool
) -> None:
    setup = Setup("reconstructor", LAYOUTS[name], schedule)
    keys = setup.dropout_key if is_dropping else None
    proposals = setup.run(keys)
    scorer, score = setup.pool.scorer, np.zeros((3, setup.layout.num_components))
    for e in range(setup.layout.num_components):
        alone = slice(e, e + 1)
        dropout_key = None if keys is None else keys[:, alone]
        masks = MaskSet(log_masks=setup.components.log_masks[:, alone], dropout_key=dropout_key)
        summary = setup.reconstructor.summaries(setup.inputs, masks)
        if not setup.layout.mixed:
            # nothing is weighed, so that there is nothing to weigh with
            assert scorer.inner is None and scorer.outer is None
            continue
        arrays = [value.detach().numpy() for value in (summary, scorer.inner.weight, scorer.outer.weight)]
        score[:, e] = oracles.importance_score(*arrays)[:, 0]
    group = np.array(setup.layout.group)
    expected = oracles.importance(oracles.ragged(score, group))
    assert_agree("importance", proposals.importance, oracles.flat(expected, group), atol=1e-12)
    _assert_masks(proposals, oracles.mixture(setup.ragged_masks(), expected))


def test_scores_from_the_generator_are_linear_in_the_summary_of_video_and_query() -> None:
    setup = Setup("generator", LAYOUTS["ramp3"])
    proposals = setup.run()
    linear, group = setup.pool.scorer.score, np.array(setup.layout.group)
    score = (setup.g_cls @ linear.weight.T + linear.bias).detach().numpy()
    expected = oracles.importance(oracles.ragged(score, group))
    assert_agree("importance", proposals.importance, oracles.flat(expected, group), atol=1e-12)
    _assert_masks(proposals, oracles.mixture(setup.ragged_masks(), expected))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_without_importance_masks_count_the_same_and_are_summed_over_the_peak(name: str) -> None:
    setup = Setup("none", LAYOUTS[name])
    proposals = setup.run()
    group = np.array(setup.layout.group)
    share = [1 / setup.layout.components_per_proposal[k] for k in group]
    assert_agree("importance", proposals.importance, np.tile(share, (3, 1)), atol=1e-12)
    _assert_masks(proposals, oracles.peak_mixture(setup.ragged_masks()))


def test_only_components_of_mixtures_are_reconstructed_and_all_in_one_pass() -> None:
    setup = Setup("reconstructor", LAYOUTS["ramp3"])
    setup.run(setup.dropout_key)
    assert_agree(
        "masks", torch.stack([masks.log_masks for masks in setup.passes]), setup.components.log_masks[None, :, 1:]
    )
    assert_agree("keys", torch.stack([masks.dropout_key for masks in setup.passes]), setup.dropout_key[None, :, 1:])


@pytest.mark.parametrize(
    ("source", "name"),
    [("reconstructor", "single5"), ("reconstructor", "ramp1"), ("generator", "ramp3"), ("none", "ramp3")],
)
def test_no_pass_is_made_where_none_is_needed(source: str, name: str) -> None:
    setup = Setup(source, LAYOUTS[name])
    setup.run()
    assert setup.passes == []
