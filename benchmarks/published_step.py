"""The published training step and evaluation step: losses, logged numbers, clipping, Adam, ranking and votes.

"Item n" is a number of the list of facts about the published code; shapes are in the legend of `pps_fast.types`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.published import Positives, PublishedOutput, PublishedPPS
from benchmarks.published_parts import Hidden
from pps_fast.config import LossesConfig, PPSConfig
from pps_fast.types import Batch, Prediction

_IOU_SMOOTHING = 1e-10


@dataclass(frozen=True, kw_only=True)
class PublishedLosses:
    """The published losses.

    Attributes:
        total: scalar, what is differentiated (item 38).
        terms: unweighted scalars by our names of the terms, reconstruction with its factor 1/2.
        logged: scalars by the published names; `ivc_loss` is not the contrastive loss (item 39).
        positive_nll, negative_nll: [B, K].
        whole_video_nll: [B].
        best: [B, num_best] int64.
    """

    total: Tensor
    terms: dict[str, Tensor]
    logged: dict[str, Tensor]
    positive_nll: Tensor
    negative_nll: Tensor
    whole_video_nll: Tensor
    best: Tensor


def reconstruction_nll(logits: Tensor, output: PublishedOutput, smoothing: float) -> Tensor:
    """C: smoothed cross-entropy, the mean over the targets of a sentence (item 32); [B, N, L, V] -> [B, N]."""
    log_prob = torch.log_softmax(logits, -1)
    ids = output.word_ids[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    of_word, of_all = -log_prob.gather(-1, ids).squeeze(-1), -log_prob.sum(-1)
    each = (1 - smoothing) * of_word + smoothing / logits.shape[-1] * of_all  # [B, N, L]
    each = each.masked_fill(~output.is_target.unsqueeze(1), 0)
    return each.sum(-1) / output.is_target.sum(-1, keepdim=True)


def pull_loss(centers: list[Tensor]) -> Tensor:
    """Squared distance of the outer centers, proposal by proposal from k = 2 (item 35): K times [B, k] -> scalar."""
    loss = centers[0].new_zeros(())
    for center in centers[1:]:
        ordered = center.sort(-1)[0]
        loss = loss + ((ordered[:, -1] - ordered[:, 0]) ** 2).mean()
    return loss


def push_loss(masks: Tensor, target: float) -> Tensor:
    """||target I - M~ M~^T||^2 with rows divided by their sums (items 36, 37): [B, n, T] -> scalar."""
    rows = masks / masks.sum(-1, keepdim=True)
    identity = torch.eye(masks.shape[1], dtype=masks.dtype, device=masks.device)
    difference = target * identity - torch.bmm(rows, rows.transpose(1, 2))
    return (difference**2).sum((1, 2)).mean()


def published_losses(output: PublishedOutput, config: PPSConfig) -> PublishedLosses:
    """The losses of a batch (items 32 to 39)."""
    options, smoothing = config.losses, config.reconstructor.label_smoothing
    positive = reconstruction_nll(output.logits, output, smoothing)
    negative = reconstruction_nll(output.negative_logits, output, smoothing)
    whole = reconstruction_nll(output.whole_video_logits, output, smoothing)  # [B, 1]
    best = positive.argsort(dim=-1, stable=True)[:, : options.num_best]
    best_nll = positive.gather(1, best)
    hinges = _hinges(best_nll, whole, negative.gather(1, best), options)
    terms = {
        "reconstruction": 0.5 * (best_nll + whole).mean(),
        "contrastive": hinges[0] + hinges[1],
        **_pull_and_push(output.positives, options),
    }
    contrast = options.contrastive * terms["contrastive"]
    logged = {
        "final_loss": terms["reconstruction"],
        "nll_loss": best_nll.mean(),
        "hneg_nll_loss": whole.mean(),
        "ivc_loss": contrast,
        "hneg_loss": hinges[0],
        "neg_loss": hinges[1],
        "push_loss": terms["push_inter"] + terms["push_intra"],
        "pull_loss": terms["pull"],
    }
    # in place, so that the tensor to be logged as the contrastive loss becomes the sum of four (item 39)
    for name in ("pull", "push_inter", "push_intra"):
        contrast += getattr(options, name) * terms[name]
    return PublishedLosses(
        total=terms["reconstruction"] + contrast,
        terms=terms,
        logged=logged,
        positive_nll=positive,
        negative_nll=negative,
        whole_video_nll=whole.squeeze(1),
        best=best,
    )


def _hinges(best: Tensor, whole: Tensor, negative: Tensor, options: LossesConfig) -> tuple[Tensor, Tensor]:
    """The two hinges of item 34, against the whole video and the easy negative."""
    zero = torch.zeros_like(best)
    against_whole = torch.maximum(best - whole + options.whole_video_margin, zero).mean()
    return against_whole, torch.maximum(best - negative + options.negative_margin, zero).mean()


def _pull_and_push(positives: Positives, options: LossesConfig) -> dict[str, Tensor]:
    """Items 35 to 37; the sums over proposals are Python loops that leave out k = 1."""
    intra = positives.masks.new_zeros(())
    for masks in positives.component_masks[1:]:
        intra = intra + push_loss(masks, options.push_intra_target)
    inter = push_loss(positives.masks, options.push_inter_target)
    return {"pull": pull_loss(positives.centers), "push_intra": intra, "push_inter": inter}


class PublishedAdam:
    """Adam in a Python loop over the parameters; one without gradient is skipped (item 40).

    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), t the updates of this parameter.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.betas, self.eps = (0.9, 0.999), 1e-8
        self._state: dict[nn.Parameter, tuple[int, Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Updates the parameters from their gradients."""
        beta1, beta2 = self.betas
        for parameter in self.parameters:
            if parameter.grad is None:
                continue
            if parameter not in self._state:
                self._state[parameter] = (0, torch.zeros_like(parameter), torch.zeros_like(parameter))
            count, first, second = self._state[parameter]
            count += 1
            first.mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
            second.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
            rate = self.learning_rate * (1 - beta2**count) ** 0.5 / (1 - beta1**count)
            parameter.addcdiv_(first, second.sqrt().add_(self.eps), value=-rate)
            self._state[parameter] = (count, first, second)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None


class PublishedStep:
    """Forward, losses, reads for the log, backward, clipping at 10 and Adam (items 38 to 42).

    Args:
        model: in train mode, on the device of its batches.
        optimizer: over the model's parameters.
    """

    def __init__(self, model: PublishedPPS, optimizer: PublishedAdam) -> None:
        self.model = model
        self.optimizer = optimizer

    def __call__(self, batch: Batch, hidden: Hidden | None = None) -> dict[str, float]:
        """Trains on one batch and returns the logged numbers, each read from the device by itself.

        Args:
            batch: B samples.
            hidden: as for the model's forward.
        """
        train, device = self.model.config.train, batch.frames.device.type
        self.optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=train.precision == "bf16"):
            losses = published_losses(self.model(batch, hidden), self.model.config)
        logged = {name: value.item() for name, value in losses.logged.items()}
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()
        return logged


@torch.no_grad()
def published_predictions(model: PublishedPPS, batch: Batch, hidden: Hidden | None = None) -> Prediction:
    """The evaluation step: a whole forward, negatives too (item 48), then ranking by C and votes (items 43 to 45).

    Args:
        model: in eval mode; words are hidden at random all the same (item 47).
        batch: B samples.
        hidden: as for the model's forward.
    Returns:
        Ranked moments on the CPU; votes in fp64.
    """
    output = model(batch, hidden)
    nll = reconstruction_nll(output.logits, output, model.config.reconstructor.label_smoothing)
    nll, order = nll.cpu().sort(dim=-1, stable=True)
    spans = torch.stack((output.positives.start, output.positives.end), -1).cpu()  # [B, K, 2]
    spans = spans.gather(1, order.unsqueeze(-1).expand_as(spans))
    votes = _votes(spans.double(), nll.double(), model.config.inference.selector)
    chosen = votes.argmax(-1)[:, None, None].expand(-1, 1, 2)
    return Prediction(spans=spans, nll=nll, order=order, votes=votes, top1=spans.gather(1, chosen).squeeze(1))


def _votes(spans: Tensor, nll: Tensor, selector: str) -> Tensor:
    """Each votes with its overlap, on Charades times 1 - C / max C (items 44, 46): [B, K, 2], [B, K] -> [B, K]."""
    if selector not in ("vote", "vote_loss_weighted"):
        raise ValueError(f"inference.selector = {selector!r}: the published code has vote and vote_loss_weighted")
    start, end = spans.unbind(-1)
    overlap = torch.minimum(end[:, :, None], end[:, None]) - torch.maximum(start[:, :, None], start[:, None])
    hull = torch.maximum(end[:, :, None], end[:, None]) - torch.minimum(start[:, :, None], start[:, None])
    iou = ((overlap + _IOU_SMOOTHING) / (hull + _IOU_SMOOTHING)).clamp(min=0)
    weight = torch.ones_like(nll) if selector == "vote" else 1 - nll / nll.amax(-1, keepdim=True)
    return (iou * weight[:, None]).sum(-1)
