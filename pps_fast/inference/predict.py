"""From a model's output to ranked moments and one answer per sample."""

from __future__ import annotations

import torch

from pps_fast.inference.selection import SELECTORS
from pps_fast.types import ModelOutput, Prediction


def predict(output: ModelOutput, selector: str) -> Prediction:
    """Ranks the proposals of each sample by C and lets `selector` choose one of them.

    The ranking is a stable ascending sort (equal C keep the order of the proposals), the choice is the
    first of the largest votes; both are computed in the dtype of the output and see one sample only.

    Args:
        output: with start, end and positive_nll of shape [B, K]; negatives are not looked at.
        selector: a key of `SELECTORS`.

    Returns:
        Prediction with spans [B, K, 2], nll [B, K], order [B, K], votes [B, K], top1 [B, 2].

    Raises:
        ValueError: for an unknown selector; the message lists the known ones.
    """
    if selector not in SELECTORS:
        raise ValueError(f"predict: selector = {selector!r}: expected one of {', '.join(SELECTORS)}")
    nll, order = torch.sort(output.positive_nll, dim=1, stable=True)
    spans = torch.stack([output.proposals.start, output.proposals.end], dim=2)  # [B, K, 2]
    spans = spans.gather(1, order[:, :, None].expand_as(spans))
    votes = SELECTORS[selector](spans, nll)
    chosen = votes.argmax(dim=1)  # [B]
    top1 = spans.gather(1, chosen[:, None, None].expand(-1, 1, 2)).squeeze(1)
    return Prediction(spans=spans, nll=nll, order=order, votes=votes, top1=top1)
