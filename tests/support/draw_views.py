"""Views of models that say what a test wants, without a model."""

from __future__ import annotations

import torch

from pps_fast.draw.view import View
from pps_fast.equations import gaussian_mask
from pps_fast.predict import predict
from pps_fast.proposals.layout import MixtureLayout, ramp
from pps_fast.types import Components, ModelOutput, Proposals

NUM_POSITIONS = 20
DURATION_S = 40.0


def view_of(
    layout: MixtureLayout | None = None, *, with_negatives: bool = True, moment_s: tuple[float, float] = (8.0, 20.0)
) -> View:
    """Returns a view of a video of 40 s; proposal k of K lies around (k + 1) / (K + 1), the second has the lowest C."""
    layout = layout or ramp(3)
    num_proposals, group = layout.num_proposals, torch.tensor(layout.group)
    middle = (torch.arange(num_proposals) + 1) / (num_proposals + 1)  # [K]
    # from right to left, so that the order of components is not that of their centers
    rank = torch.tensor([k - layout.offsets[group[k]] for k in range(layout.num_components)])
    center = (middle[group] - 0.02 * rank)[None]  # [1, E]
    width = torch.full_like(center, 0.2)
    masks = gaussian_mask(center, width, 9.0, NUM_POSITIONS, 0.01)[0]
    importance = torch.cat([torch.softmax(torch.arange(n).float(), 0) for n in layout.components_per_proposal])[None]
    member = torch.nn.functional.one_hot(group, num_proposals).float()  # [E, K]
    mixture = torch.einsum("bet,be,ek->bkt", masks, importance, member)
    nothing = torch.zeros(0)
    proposals = Proposals(
        components=Components(center=center, width=width, masks=masks, log_masks=nothing),
        importance=importance,
        masks=mixture,
        log_masks=nothing,
        start=(middle - 0.1)[None],
        end=(middle + 0.1)[None],
    )
    nll = (torch.arange(num_proposals) - min(1, num_proposals - 1)).abs().float()[None] + 1
    negatives = torch.full((1, num_proposals, NUM_POSITIONS), 0.25) if with_negatives else None
    output = ModelOutput(proposals=proposals, positive_nll=nll, negative_masks=negatives)
    return View(
        sample=7,
        split="test",
        sentence="person pays $5 for a cup_of_tea .",
        video_id="AB12",
        duration_s=DURATION_S,
        moment_s=moment_s,
        layout=layout,
        output=output,
        prediction=predict(output, "vote"),
    )


def texts(figure) -> list[str]:
    """Returns all that is written in the axes of a figure, titles included."""
    texts_of_figure = []
    for axes in figure.axes:
        texts_of_figure += [text.get_text() for text in axes.texts]
        texts_of_figure += [axes.get_title(loc=loc) for loc in ("left", "center")]
    return [text for text in texts_of_figure if text]


def lines(axes, label: str) -> list:
    """Returns the lines of that label."""
    return [line for line in axes.get_lines() if line.get_label() == label]
