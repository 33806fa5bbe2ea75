"""From a model's output to ranked moments and one answer per sample: overlaps, votes and the choice.

Paper: Section 4, "Implementation details" (votes); CPL for the IoU-weighted rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.types import ModelOutput, Prediction

# samples of an evaluation batch where the config names no number. A GPU is told to do as much for 512 as for 32
_BATCH_SIZE, _BATCH_SIZE_OF_GPU = 32, 512
# of the published metric: makes the overlap of a moment of length 0 with itself 1 instead of 0/0
_SMOOTHING = 1e-10


def mixes_samples(config: PPSConfig) -> bool:
    """Whether the answer to a sample depends on the others of its batch, as in the published code."""
    is_mixing = config.generator.width_source == "across_batch"
    return is_mixing or config.reconstructor.word_cls == "scalar_per_batch_position"


def evaluation_batch_size(config: PPSConfig, device: torch.device) -> int:
    """Returns how many samples an evaluation asks the model at once."""
    if config.inference.batch_size is not None:
        return config.inference.batch_size
    return _BATCH_SIZE if device.type == "cpu" or mixes_samples(config) else _BATCH_SIZE_OF_GPU


def temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of moments, elementwise with broadcasting.

    The denominator is the smallest interval that contains both moments: their union if they overlap; if not, the result
    is 0. Numerator and denominator are smoothed by 1e-10 as in the published code.

    Args:
        first: [..., 2] start and end, in any unit of time, start <= end.
        second: [..., 2] in the same unit.

    Returns:
        [...] in [0, 1], in the promoted dtype of the inputs.
    """
    overlap = torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])
    hull = torch.maximum(first[..., 1], second[..., 1]) - torch.minimum(first[..., 0], second[..., 0])
    return ((overlap + _SMOOTHING) / (hull + _SMOOTHING)).clamp_min(0)


def pairwise_iou(spans: Tensor) -> Tensor:
    """Overlap of every proposal with every proposal of the same sample: [B, K, 2] -> [B, K, K] in [0, 1]."""
    return temporal_iou(spans[:, :, None], spans[:, None])


def _vote(spans: Tensor, nll: Tensor) -> Tensor:
    """Every proposal votes with its overlap (ActivityNet): [B, K, 2], [B, K] -> [B, K]."""
    return pairwise_iou(spans).sum(dim=2)


def _vote_loss_weighted(spans: Tensor, nll: Tensor) -> Tensor:
    """Votes weighted by 1 - C / max C, so that the worst proposal has none (Charades): -> [B, K]."""
    worst = nll.amax(dim=1, keepdim=True).clamp_min(torch.finfo(nll.dtype).tiny)
    return (pairwise_iou(spans) * (1 - nll / worst)[:, None]).sum(dim=2)


def _vote_iou_weighted(spans: Tensor, nll: Tensor) -> Tensor:
    """Votes weighted by the voter's overlap with the proposal of lowest C (CPL): -> [B, K]."""
    overlap = pairwise_iou(spans)
    return (overlap * overlap[:, :1]).sum(dim=2)


def _lowest_loss(spans: Tensor, nll: Tensor) -> Tensor:
    """All votes are 0; ties go to the first in rank, the proposal of lowest C: -> [B, K]."""
    return torch.zeros_like(nll)


def _most_reward(spans: Tensor, nll: Tensor) -> Tensor:
    """The reward itself, for proposals that are ranked by it: -> [B, K]."""
    return -nll


SELECTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vote": _vote,
    "vote_loss_weighted": _vote_loss_weighted,
    "vote_iou_weighted": _vote_iou_weighted,
    "lowest_loss": _lowest_loss,
    "alignment": _most_reward,
}
"""Rules by the strings of `config.Selector`: spans [B, K, 2] and nll [B, K], both by increasing C, to
votes [B, K]. The answer is the first proposal with the largest vote. 'alignment' has minus the reward in place of C."""


def predict(output: ModelOutput, selector: str) -> Prediction:
    """Ranks the proposals of each sample by C, or for 'alignment' by reward, and lets `selector` choose one of them.

    The ranking is a stable ascending sort (equal C keep the order of the proposals), the choice is the
    first of the largest votes; both are computed in the dtype of the output and see one sample only.

    Args:
        output: with start, end and positive_nll of shape [B, K]; negatives are not looked at.
        selector: a key of `SELECTORS`.

    Returns:
        Prediction with spans [B, K, 2], nll [B, K], order [B, K], votes [B, K], top1 [B, 2].

    Raises:
        ValueError: for an unknown selector; the message lists the known ones. For 'alignment' and a model without one.
    """
    if selector not in SELECTORS:
        raise ValueError(f"predict: selector = {selector!r}: expected one of {', '.join(SELECTORS)}")
    cost = output.positive_nll
    if selector == "alignment":
        if output.reward is None:
            raise ValueError(
                "inference.selector = 'alignment': this model has no alignment; train one with --losses.alignment 1"
            )
        cost = -output.reward
    nll, order = torch.sort(cost, dim=1, stable=True)
    spans = torch.stack([output.proposals.start, output.proposals.end], dim=2)  # [B, K, 2]
    spans = spans.gather(1, order[:, :, None].expand_as(spans))
    votes = SELECTORS[selector](spans, nll)
    chosen = votes.argmax(dim=1)  # [B]
    top1 = spans.gather(1, chosen[:, None, None].expand(-1, 1, 2)).squeeze(1)
    return Prediction(spans=spans, nll=nll, order=order, votes=votes, top1=top1)
