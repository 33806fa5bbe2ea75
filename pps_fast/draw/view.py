"""What pictures of one query show: the query, its true moment, and a model's answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pps_fast.proposals.layout import MixtureLayout
from pps_fast.types import ModelOutput, Prediction


@dataclass(frozen=True, kw_only=True)
class View:
    """One sample under one model.

    Attributes:
        sample: position in the data set.
        split: train, validation or test, as the model's training used the sample.
        sentence, video_id: as annotated.
        duration_s: length of the video, > 0.
        moment_s: true start and end, in seconds.
        layout: how many components each proposal has.
        output: of a batch of this one sample, on the CPU; easy negatives are drawn where it has them.
        prediction: ranked from `output`.
    """

    sample: int
    split: str
    sentence: str
    video_id: str
    duration_s: float
    moment_s: tuple[float, float]
    layout: MixtureLayout
    output: ModelOutput
    prediction: Prediction

    def __post_init__(self) -> None:
        proposals, layout = self.output.proposals, self.layout
        shapes = (*proposals.start.shape, *proposals.importance.shape)
        expected = (1, layout.num_proposals, 1, layout.num_components)
        if shapes != expected:
            raise ValueError(f"View: proposals and components [B, K], [B, E] are {shapes}, the layout says {expected}")

    def spans_s(self) -> list[tuple[float, float]]:
        """Start and end of the K proposals in their own order, in seconds."""
        proposals = self.output.proposals
        return [
            (start * self.duration_s, end * self.duration_s)
            for start, end in zip(proposals.start[0].tolist(), proposals.end[0].tolist(), strict=True)
        ]

    def votes(self) -> list[float]:
        """The vote of each of the K proposals, in their own order."""
        prediction = self.prediction
        return torch.empty_like(prediction.votes).scatter(1, prediction.order, prediction.votes)[0].tolist()

    def chosen(self) -> int:
        """The proposal that was voted for: the first in rank of the largest votes."""
        return int(self.prediction.order[0, self.prediction.votes[0].argmax()])

    def answer_s(self) -> tuple[float, float]:
        """The voted moment, in seconds."""
        start, end = self.prediction.top1[0].tolist()
        return start * self.duration_s, end * self.duration_s

    def overlap(self) -> float:
        """Intersection over union of the voted moment and the truth."""
        (start, end), (true_start, true_end) = self.answer_s(), self.moment_s
        shared = max(0.0, min(end, true_end) - max(start, true_start))
        union = (end - start) + (true_end - true_start) - shared
        return shared / union if union > 0 else 0.0

    def components(self, proposal: int) -> list[int]:
        """Positions of a proposal's components on the flat axis, by increasing center."""
        first, end = self.layout.offsets[proposal : proposal + 2]
        center = self.output.proposals.components.center[0].tolist()
        return sorted(range(first, end), key=lambda component: center[component])
