"""How a model answers: from curves of its alignment, or from the proposals of its networks.

Letters: v windows of videos, q sentences, c moments of each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pps_fast.alignment.confidence import Confidence, clarity_evidence, match_evidence
from pps_fast.alignment.equations import linear_curve
from pps_fast.alignment.model import Alignment, as_proposals
from pps_fast.config import PPSConfig
from pps_fast.eval.predictor import Predictor
from pps_fast.ground.evidence import Evidence, as_evidence, proposal_shapes, ranks
from pps_fast.ground.sentences import Queries
from pps_fast.model import PPS
from pps_fast.predict import evaluation_batch_size, mixes_samples, predict
from pps_fast.proposals.layout import layout_of
from pps_fast.types import Prediction

# windows whose curves are read at a time
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Moments of v windows for q sentences, on the CPU.

    Attributes:
        spans: [v, q, c, 2] fractions of the window, ranked.
        score: [v, q, c] what ranks them.
        match: [v, q] probabilities of the first moments, None where the model cannot tell.
        clarity: [v, q] shares, None likewise.
    """

    spans: Tensor
    score: Tensor
    match: Tensor | None = None
    clarity: Tensor | None = None


class Scorer(Protocol):
    """Encodes windows of videos once, and answers any number of sentences about them."""

    def encode(self, windows: Tensor) -> Tensor:
        """Returns windows [v, S, F] as `score` takes them."""
        ...

    def score(self, frames: Tensor, queries: Queries, count: int) -> Scored:
        """Returns at most `count` moments of every encoded window for every sentence."""
        ...

    def evidence(self, frames: Tensor, query: Queries, count: int) -> list[Evidence]:
        """Returns what moments of every encoded window for one sentence are read from.

        The proposals of a model are all of them; an alignment has none, and `count` moments in their place.
        """
        ...


class AlignmentScorer:
    """Reads moments from curves.

    Args:
        alignment: fitted.
        confidence: of it, or None where it is not calibrated.
    """

    def __init__(self, alignment: Alignment, confidence: Confidence | None) -> None:
        self._alignment, self._confidence = alignment, confidence
        self._options = alignment.options

    def encode(self, windows: Tensor) -> Tensor:
        """Returns smoothed unit frames, of a standardized curve less their mean and divided by their spread."""
        frames = self._alignment.frames(windows)
        if self._options.curve == "linear":
            return frames
        away = frames - self._alignment.frame_mean
        deviation = torch.linalg.vector_norm(away @ self._alignment.spread, dim=-1, keepdim=True)
        return away / deviation.masked_fill(deviation == 0, 1)

    def score(self, frames: Tensor, queries: Queries, count: int) -> Scored:
        sentence = self._alignment.sentence(queries.batch)  # [q, n]
        parts = [self._score(block, sentence, count) for block in frames.split(_BLOCK)]
        has_confidence = self._confidence is not None
        return Scored(
            spans=torch.cat([part.spans for part in parts]),
            score=torch.cat([part.score for part in parts]),
            match=torch.cat([part.match for part in parts if part.match is not None]) if has_confidence else None,
            clarity=torch.cat([part.clarity for part in parts if part.clarity is not None]) if has_confidence else None,
        )

    def evidence(self, frames: Tensor, query: Queries, count: int) -> list[Evidence]:
        sentence = self._alignment.sentence(query.batch)  # [1, n]
        direction = (sentence @ self._alignment.maps[-1].T).expand(len(frames), 1, -1)
        curve = linear_curve(frames, direction).squeeze(1)  # [v, S]
        moments = self._alignment.read(curve, sentence.expand(len(frames), -1), count)
        return as_evidence(curve, proposal_shapes(as_proposals(moments), ranks(count, len(frames))))

    def _score(self, frames: Tensor, sentence: Tensor, count: int) -> Scored:
        shape = (len(frames), len(sentence))
        direction = sentence @ self._alignment.maps[-1].T  # [q, F]
        curve = linear_curve(frames, direction.expand(len(frames), -1, -1)).flatten(0, 1)  # [v * q, S]
        moments = self._alignment.read(curve, sentence.repeat(len(frames), 1), count)
        spans = torch.stack([moments.start, moments.end], dim=-1).unflatten(0, shape).cpu()
        score = moments.reward.unflatten(0, shape).cpu()
        if self._confidence is None:
            return Scored(spans=spans, score=score)
        along = direction.repeat(len(frames), 1)
        evidence = match_evidence(self._alignment, curve, moments.start[:, :1], moments.end[:, :1], along).squeeze(1)
        return Scored(
            spans=spans,
            score=score,
            match=self._confidence.match(evidence).unflatten(0, shape).cpu(),
            clarity=self._confidence.clarity(clarity_evidence(curve)).unflatten(0, shape),
        )


class NetworkScorer:
    """Ranks the proposals of a model with networks as its evaluation does: the answer first, then by rising C.

    Match and clarity are those of the alignment in it, where it has one: of the video and the sentence, whichever
    moment the networks choose.
    """

    def __init__(self, model: PPS, config: PPSConfig, confidence: Confidence | None) -> None:
        self._model, self._selector = model, config.inference.selector
        self._layout = layout_of(config.proposals)
        self._alignment: AlignmentScorer | None = None
        if model.alignment is not None and confidence is not None:
            self._alignment = AlignmentScorer(model.alignment, confidence)
        device = next(model.parameters()).device
        self._batch_size = 1 if mixes_samples(config) else evaluation_batch_size(config, device)
        # as its evaluation
        self._predictor = Predictor(model, config, device)

    def encode(self, windows: Tensor) -> Tensor:
        """Returns the windows as they are."""
        return windows

    def score(self, frames: Tensor, queries: Queries, count: int) -> Scored:
        num_windows, num_sentences = len(frames), len(queries.sentences)
        pairs = torch.cartesian_prod(torch.arange(num_windows), torch.arange(num_sentences)).to(frames.device)
        spans, score = [], []
        with self._predictor.evaluating() as answer:
            for window, sentence in (block.unbind(dim=1) for block in pairs.split(self._batch_size)):
                ranked = _answer_first(answer(queries.take(sentence, frames[window])))
                spans.append(ranked.spans[:, :count])
                score.append(-ranked.nll[:, :count])
        shape = (num_windows, num_sentences)
        scored = Scored(
            spans=torch.cat(spans).cpu().clamp(0, 1).unflatten(0, shape),
            score=torch.cat(score).cpu().unflatten(0, shape),
        )
        if self._alignment is None:
            return scored
        sure = self._alignment.score(self._alignment.encode(frames), queries, 1)
        return replace(scored, match=sure.match, clarity=sure.clarity)

    def evidence(self, frames: Tensor, query: Queries, count: int) -> list[Evidence]:
        windows = []
        for block in frames.split(self._batch_size):
            batch = query.take(torch.zeros(len(block), dtype=torch.int64, device=block.device), block)
            with self._predictor.evaluating():
                output = self._model(batch, with_negatives=False)
            order = _answer_first(predict(output, self._selector)).order
            curve = None if self._model.alignment is None else self._model.alignment(batch)
            windows += as_evidence(curve, proposal_shapes(output.proposals, order, self._layout))
        return windows


def _answer_first(prediction: Prediction) -> Prediction:
    """Returns the moments with the one that the selector chose moved to the front."""
    chosen = prediction.votes.argmax(dim=1, keepdim=True)
    rank = torch.arange(prediction.nll.shape[1], device=chosen.device).expand_as(prediction.nll)
    order = torch.where(rank == chosen, -1, rank).argsort(dim=1)
    return Prediction(
        spans=prediction.spans.gather(1, order[:, :, None].expand_as(prediction.spans)),
        nll=prediction.nll.gather(1, order),
        order=prediction.order.gather(1, order),
        votes=prediction.votes.gather(1, order),
        top1=prediction.top1,
    )
