"""Evidence: the curve and the proposals are those that the answers came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pps_fast
from pps_fast.ground.evidence import Evidence, as_evidence, curve_of_video, proposal_shapes, ranks
from pps_fast.proposals.layout import MixtureLayout
from pps_fast.types import Components, Proposals
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run, network_run


@pytest.mark.parametrize("method", ["linear", "standardized", "tiny", "cpl_demo", "cnm_demo", "aligned"])
def test_the_first_proposals_are_the_answers(method: str) -> None:
    is_alignment = method in ("linear", "standardized")
    run, width = (alignment_run(method), 6) if is_alignment else (network_run(method)[0], None)
    grounder = pps_fast.load(run)
    random = np.random.default_rng(0)
    frames = DATA.features[3] if width else random.normal(size=(16, grounder.sizes.frame_dim))
    videos = [grounder.encode(frames, name="a"), grounder.encode(frames[::-1], name="b")]
    sentence = DATA.sentences[0]
    seen = grounder.evidence(videos, sentence, count=4)
    for windows, (answer,) in zip(seen, grounder.ground_all(videos, [sentence], top=4), strict=True):
        (window,) = windows
        spans = [(shape.start, shape.end) for shape in window.proposals]
        assert (answer[0].start, answer[0].end) == pytest.approx(spans[0])
        assert {(round(m.start, 5), round(m.end, 5)) for m in answer} <= {(round(a, 5), round(b, 5)) for a, b in spans}
        has_curve = method not in ("tiny", "cpl_demo", "cnm_demo")
        assert (window.curve is not None) == has_curve
        for shape in window.proposals:
            assert shape.weights.sum() == pytest.approx(1, abs=1e-5)
            assert shape.components.shape == (len(shape.weights), len(shape.mask))


def test_the_curve_of_an_alignment_is_its_own_and_that_of_a_network_that_of_the_alignment_in_it() -> None:
    grounder = pps_fast.load(network_run("aligned")[0])
    frames = np.random.default_rng(1).normal(size=(16, grounder.sizes.frame_dim))
    ((window,),) = grounder.evidence([grounder.encode(frames)], DATA.sentences[0])
    inside = grounder._scorer._model.alignment
    query = grounder._queries([DATA.sentences[0]], None)
    batch = query.take(torch.zeros(1, dtype=torch.int64), grounder.encode(frames).frames)
    np.testing.assert_allclose(window.curve, inside(batch)[0].numpy(), rtol=1e-5)


def _proposals() -> tuple[Proposals, MixtureLayout]:
    random = torch.Generator().manual_seed(0)
    layout = MixtureLayout((1, 2))
    center = torch.tensor([[0.5, 0.9, 0.1]])
    components = Components(
        center=center, width=center, masks=torch.rand(1, 3, 5, generator=random), log_masks=torch.zeros(1, 3, 5)
    )
    masks = torch.rand(1, 2, 5, generator=random)
    return Proposals(
        components=components,
        importance=torch.tensor([[1.0, 0.3, 0.7]]),
        masks=masks,
        log_masks=masks,
        start=torch.tensor([[0.2, -0.1]]),
        end=torch.tensor([[0.4, 1.2]]),
    ), layout


def test_components_are_those_of_their_proposal_by_rising_center_and_weighted() -> None:
    proposals, layout = _proposals()
    ((second, first),) = proposal_shapes(proposals, torch.tensor([[1, 0]]), layout)
    assert second.centers.tolist() == pytest.approx([0.1, 0.9]) and second.weights.tolist() == pytest.approx([0.7, 0.3])
    for row, component in enumerate((2, 1)):
        expected = proposals.components.masks[0, component] * proposals.importance[0, component]
        np.testing.assert_allclose(second.components[row], expected.numpy())
    assert (second.start, second.end) == (0.0, 1.0) and first.start == pytest.approx(0.2)
    np.testing.assert_allclose(first.mask, proposals.masks[0, 0].numpy())


def test_windows_without_a_curve_have_none() -> None:
    assert [window.curve for window in as_evidence(None, [(), ()])] == [None, None]
    assert ranks(2, 3).tolist() == [[0, 1]] * 3
    assert curve_of_video([0.0], [1.0], as_evidence(None, [()])) is None


def test_the_curve_of_windows_that_overlap_is_their_mean() -> None:
    windows = [Evidence(curve=np.full(8, value), proposals=()) for value in (1.0, 3.0, 5.0)]
    points, scores = curve_of_video([0.0, 0.25, 0.5], [0.5, 0.75, 1.0], windows)
    expected = np.select([points < 0.25, points < 0.5, points < 0.75], [1.0, 2.0, 4.0], 5.0)
    np.testing.assert_allclose(scores, expected)
    assert (np.diff(points) > 0).all()
    # one window is shown as it is, each score in the middle of its segment
    points, scores = curve_of_video([0.0], [1.0], [Evidence(curve=np.arange(4.0), proposals=())])
    assert points.tolist() == [0.125, 0.375, 0.625, 0.875] and scores.tolist() == [0, 1, 2, 3]
