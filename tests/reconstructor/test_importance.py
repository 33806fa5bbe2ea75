"""Importance weights: their three sources, and what they make of component masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.layout import MixtureLayout
from pps_fast.reconstructor.importance import IMPORTANCE, AttentivePooling
from pps_fast.reconstructor.reconstructor import Reconstructor, ReconstructorInput
from tests import oracles
from tests.cases import LAYOUTS, SIZES, randomize, small_config
from tests.compare import assert_agree

EVERY = [(source, name) for source in sorted(IMPORTANCE) for name in sorted(LAYOUTS)]


class Setup:
    """A pooling with all it reads: 3 samples, 4 positions."""

    def __init__(self, source: str, layout: MixtureLayout) -> None:
        config = small_config(reconstructor__importance=source)
        rng = np.random.default_rng(0)
        self.layout = layout
        self.pool = randomize(AttentivePooling(config, layout).double().eval())
        self.reconstructor = randomize(Reconstructor(config, SIZES.vocab_size).double().eval(), seed=1)
        self.g_cls = torch.from_numpy(rng.normal(size=(3, 8)))
        self.masks = torch.from_numpy(rng.random((3, layout.num_components, 4)))
        num_words = torch.tensor([2, 4, 1])
        self.shared = ReconstructorInput(
            frames=torch.from_numpy(rng.normal(size=(3, 4, 8))),
            frame_valid=torch.ones(3, 4, dtype=torch.bool),
            query=torch.from_numpy(rng.normal(size=(3, 6, 8))),
            word_valid=torch.arange(6) < (num_words + 1).unsqueeze(1),
            num_words=num_words,
        )
        self.passes: list[Tensor] = []
        features = self.reconstructor.features

        def counted(shared: ReconstructorInput, masks: Tensor) -> Tensor:
            self.passes.append(masks)
            return features(shared, masks)

        self.reconstructor.features = counted

    def run(self) -> tuple[Tensor, Tensor]:
        return self.pool(self.g_cls, self.masks, self.reconstructor, self.shared)


@pytest.mark.parametrize(("source", "name"), EVERY)
def test_weights_sum_to_one_in_every_proposal_and_a_component_alone_has_one(source: str, name: str) -> None:
    setup = Setup(source, LAYOUTS[name])
    weights, _ = setup.run()
    sums = [part.sum(1) for part in weights.split(setup.layout.components_per_proposal, 1)]
    assert_agree("sums", torch.stack(sums), torch.ones(len(sums), 3), atol=1e-12)
    for first, count in zip(setup.layout.offsets, setup.layout.components_per_proposal, strict=False):
        if count == 1:
            assert_agree("alone", weights[:, first], torch.ones(3))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_scores_from_the_reconstructor_are_an_mlp_on_the_summary_of_each_mask_alone(name: str) -> None:
    setup = Setup("reconstructor", LAYOUTS[name])
    weights, proposals = setup.run()
    scorer, score = setup.pool.scorer, np.zeros((3, setup.layout.num_components))
    for e in range(setup.layout.num_components):
        summary = setup.reconstructor.summaries(setup.shared, setup.masks[:, e : e + 1])
        arrays = [value.detach().numpy() for value in (summary, scorer.inner.weight, scorer.outer.weight)]
        score[:, e] = oracles.importance_score(*arrays)[:, 0]
    group = np.array(setup.layout.group)
    expected = oracles.importance(oracles.ragged(score, group))
    assert_agree("weights", weights, oracles.flat(expected, group), atol=1e-12)
    masks = oracles.ragged(setup.masks.numpy(), group)
    assert_agree("proposals", proposals, oracles.mixture(masks, expected), atol=1e-12)


def test_scores_from_the_generator_are_linear_in_the_summary_of_video_and_query() -> None:
    setup = Setup("generator", LAYOUTS["ramp3"])
    weights, proposals = setup.run()
    linear, group = setup.pool.scorer.score, np.array(setup.layout.group)
    score = (setup.g_cls @ linear.weight.T + linear.bias).detach().numpy()
    expected = oracles.importance(oracles.ragged(score, group))
    assert_agree("weights", weights, oracles.flat(expected, group), atol=1e-12)
    masks = oracles.ragged(setup.masks.numpy(), group)
    assert_agree("proposals", proposals, oracles.mixture(masks, expected), atol=1e-12)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_without_importance_masks_count_the_same_and_are_summed_over_the_peak(name: str) -> None:
    setup = Setup("none", LAYOUTS[name])
    weights, proposals = setup.run()
    group = np.array(setup.layout.group)
    share = [1 / setup.layout.components_per_proposal[k] for k in group]
    assert_agree("weights", weights, np.tile(share, (3, 1)), atol=1e-12)
    assert_agree("proposals", proposals, oracles.peak_mixture(oracles.ragged(setup.masks.numpy(), group)), atol=1e-12)


def test_only_components_of_mixtures_are_reconstructed_and_all_in_one_pass() -> None:
    setup = Setup("reconstructor", LAYOUTS["ramp3"])
    setup.run()
    assert_agree("masks", torch.stack(setup.passes), setup.masks[None, :, 1:])


@pytest.mark.parametrize(
    ("source", "name"),
    [("reconstructor", "single5"), ("reconstructor", "ramp1"), ("generator", "ramp3"), ("none", "ramp3")],
)
def test_no_pass_is_made_where_none_is_needed(source: str, name: str) -> None:
    setup = Setup(source, LAYOUTS[name])
    setup.run()
    assert setup.passes == []
