"""What a model saw of a video when it answered: the curve of the sentence, and proposals with their components.

Letters: v windows of a video, n components of a proposal, c proposals of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pps_fast.proposals.layout import MixtureLayout
from pps_fast.types import Proposals

_NUM_POINTS = 400
"""points of a curve that several windows share"""


@dataclass(frozen=True, kw_only=True)
class ProposalShape:
    """One proposal over its window.

    Attributes:
        start, end: fractions of the window.
        mask: [T] its mask, of positions that are equally far apart from the window's start to its end.
        centers: [n] centers of its components, fractions of the window, rising.
        weights: [n] their importance; sums to 1.
        components: [n, T] their masks times their importance.
    """

    start: float
    end: float
    mask: np.ndarray
    centers: np.ndarray
    weights: np.ndarray
    components: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a model saw of one window of a video for one sentence.

    Attributes:
        curve: [S] how well each segment goes with the sentence, comparable between videos; None where the model has no
            alignment.
        proposals: in the order of the answers.
    """

    curve: np.ndarray | None
    proposals: tuple[ProposalShape, ...]


def proposal_shapes(
    proposals: Proposals, order: Tensor, layout: MixtureLayout | None = None
) -> list[tuple[ProposalShape, ...]]:
    """Returns the proposals of each sample of a batch.

    Args:
        proposals: of B samples.
        order: [B, c] the proposals to return, ranked.
        layout: how many components each has; None for one component each, which is the proposal itself.
    """
    layout = layout or MixtureLayout((1,) * proposals.start.shape[1])
    start, end, masks, weights, center, parts = (
        tensor.detach().float().cpu().numpy()
        for tensor in (
            proposals.start.clamp(0, 1),
            proposals.end.clamp(0, 1),
            proposals.masks,
            proposals.importance,
            proposals.components.center,
            proposals.components.masks,
        )
    )
    shapes = []
    for sample, ranked in enumerate(order.tolist()):
        of_sample = []
        for proposal in ranked:
            first, stop = layout.offsets[proposal : proposal + 2]
            rising = first + np.argsort(center[sample, first:stop], kind="stable")
            of_sample.append(
                ProposalShape(
                    start=float(start[sample, proposal]),
                    end=float(end[sample, proposal]),
                    mask=masks[sample, proposal],
                    centers=center[sample, rising],
                    weights=weights[sample, rising],
                    components=parts[sample, rising] * weights[sample, rising, None],
                )
            )
        shapes.append(tuple(of_sample))
    return shapes


def as_evidence(curve: Tensor | None, shapes: Sequence[tuple[ProposalShape, ...]]) -> list[Evidence]:
    """Returns the evidence of windows: their curves [v, S], and the proposals of each."""
    curves = [None] * len(shapes) if curve is None else list(curve.detach().float().cpu().numpy())
    return [Evidence(curve=one, proposals=proposals) for one, proposals in zip(curves, shapes, strict=True)]


def ranks(count: int, num_samples: int) -> Tensor:
    """Returns [num_samples, count] the proposals in their own order, for those that are ranked already."""
    return torch.arange(count).expand(num_samples, -1)


def curve_of_video(
    start: Sequence[float], end: Sequence[float], windows: Sequence[Evidence]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns one curve of a whole video: fractions of the video, rising, and scores; None where there is none.

    A point that several windows show has the mean of their scores.

    Args:
        start, end: [v] the windows, fractions of the video.
        windows: v of them.
    """
    curves = [window.curve for window in windows if window.curve is not None]
    if not curves:
        return None
    # the score of a segment stands in its middle
    middles = [
        first + (last - first) * (np.arange(len(curve)) + 0.5) / len(curve)
        for first, last, curve in zip(start, end, curves, strict=True)
    ]
    if len(curves) == 1:
        return middles[0], curves[0]
    points = (np.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS
    total, count = np.zeros(_NUM_POINTS), np.zeros(_NUM_POINTS)
    for first, last, middle, curve in zip(start, end, middles, curves, strict=True):
        inside = (points >= first) & (points <= last)
        total[inside] += np.interp(points[inside], middle, curve)
        count += inside
    return points[count > 0], total[count > 0] / count[count > 0]
