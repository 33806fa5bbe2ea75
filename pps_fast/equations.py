"""The paper's equations in the paper's order: one pure function each, torch only, any floating dtype.

This file is the `torch` backend of every op, the float64 oracle of the kernels' tests and the
documentation of the mathematics. Its guard is `tests/oracles.py`, written independently with loops.

Components of all proposals lie on one flat axis E; `group` [E] tells which proposal each belongs to
(see `layout.py`). Shapes follow the legend of `types.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# the floor under a mask in the attention: keys outside the mask keep this share of their weight
MASK_FLOOR = 1e-10
# the score of a key nobody may attend to; finite, so that a row without any visible key stays finite
HIDDEN_SCORE = -1e30
# sums of masks with a smaller peak are not brought to a peak of 1: 1 / peak would overflow in the gradient
PEAK_FLOOR = 1e-20
# rows with a smaller sum are not normalised further in the push losses: 0 / 0 and its gradient
ROW_SUM_FLOOR = 1e-6


def _full_precision(x: Tensor) -> Tensor:
    """Masks, softmax and losses are computed in fp32 at least, whatever the activations' dtype."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


# --- Gaussian mixture proposal generator ----------------------------------------------------------


def centers(g_cls: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Component centers, Eq. (1): c = sigmoid(W_c g_cls + b_c).

    Args:
        g_cls: [B, D] summary of video and query.
        weight: [n, D].
        bias: [n].
    Returns:
        [B, n] in (0, 1), fractions of the video's length.
    """
    return torch.sigmoid(_full_precision(F.linear(g_cls, weight, bias)))


def widths(g_cls: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Component widths before the division by sigma, Eq. (2): sigma s = sigmoid(W_s g_cls + b_s).

    The division is part of the mask (Eq. 3), because boundaries are read off the undivided width.

    Args:
        g_cls: [B, D].
        weight: [n, D].
        bias: [n].
    Returns:
        [B, n] in (0, 1), fractions of the video's length.
    """
    return torch.sigmoid(_full_precision(F.linear(g_cls, weight, bias)))


def _distance_over_std(center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float) -> Tensor:
    """(t / (T - 1) - c) / s with s = max(width, width_floor) / sigma, as [..., T]."""
    if num_positions < 2:
        raise ValueError(
            f"num_positions = {num_positions}: a mask needs at least 2 positions, which lie at t / (T - 1)"
        )
    center, width = _full_precision(center), _full_precision(width)
    steps = torch.arange(num_positions, device=center.device, dtype=center.dtype)
    position = steps / (num_positions - 1)
    std = width.clamp(min=width_floor) / sigma
    return (position - center.unsqueeze(-1)) / std.unsqueeze(-1)


def _exp_peak_one(exponent: Tensor) -> Tensor:
    """exp(exponent) divided by its largest value on the grid, without 0 / 0: the shift happens before exp.

    The gradient of the maximum goes to one arg-max position, the first of equal ones.
    """
    peak = exponent.gather(-1, exponent.argmax(-1, keepdim=True))
    return torch.exp(exponent - peak)


def gaussian_mask(center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01) -> Tensor:
    """Gaussian masks, Eq. (3): f(t) = exp(-((t / (T - 1) - c) / s)^2), s = max(width, width_floor) / sigma.

    Args:
        center: [...] in [0, 1].
        width: [...] in (0, 1), of center's shape.
        sigma: width / standard deviation.
        num_positions: T, at least 2.
        width_floor: smallest width drawn; below it the width gets no gradient.
    Returns:
        [..., T] in [0, 1], fp32 or fp64. The peak is below 1 when the center lies between positions.
    Raises:
        ValueError: for fewer than 2 positions.
    """
    return torch.exp(-_distance_over_std(center, width, sigma, num_positions, width_floor).square())


def gaussian_peak_mask(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01
) -> Tensor:
    """The published code's Gaussian masks: exp(-d^2 / 2), d as in Eq. (3), divided by the peak on the grid.

    Arguments, result and errors as `gaussian_mask`, but the largest value of every mask is exactly 1.
    """
    distance = _distance_over_std(center, width, sigma, num_positions, width_floor)
    return _exp_peak_one(-0.5 * distance.square())


def laplace_mask(center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01) -> Tensor:
    """The published code's Laplace masks: exp(-|d|), d as in Eq. (3), divided by the peak on the grid.

    Arguments, result and errors as `gaussian_mask`, but the largest value of every mask is exactly 1.
    """
    return _exp_peak_one(-_distance_over_std(center, width, sigma, num_positions, width_floor).abs())


def membership(group: Tensor, num_groups: int) -> Tensor:
    """Returns [K, E] bool: component e belongs to proposal k."""
    return torch.arange(num_groups, device=group.device).unsqueeze(1) == group.unsqueeze(0)


def mixture(masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Gaussian mixture proposals, Eq. (4): P^(k) = M^(k)^T w^(k).

    Args:
        masks: [B, E, T] component masks.
        importance: [B, E] weights, summing to 1 in each group.
        group: [E] int64.
        num_groups: K.
    Returns:
        [B, K, T] proposal masks in [0, 1].
    """
    weights = membership(group, num_groups) * importance.unsqueeze(1)  # [B, K, E]
    # a sum, not a matmul, which autocast would take to bf16
    return (weights.unsqueeze(-1) * masks.unsqueeze(1)).sum(2)


def peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Mixture without importance: the sum of a proposal's masks divided by its peak.

    Args:
        masks: [B, E, T].
        group: [E] int64.
        num_groups: K.
    Returns:
        [B, K, T] in [0, 1], the largest value of each exactly 1. A proposal whose masks all but vanish stays near 0.
    """
    member = membership(group, num_groups).to(masks.dtype)
    summed = (member.unsqueeze(-1) * masks.unsqueeze(1)).sum(2)
    peak = summed.gather(-1, summed.argmax(-1, keepdim=True))
    return summed / peak.clamp(min=PEAK_FLOOR)


# --- losses of the pull-push learning scheme ------------------------------------------------------


def _sorted_by_group(center: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Centers of each group in ascending order, and the groups' sizes: [B, K, E] padded with +inf, [K]."""
    member = membership(group, num_groups)
    padded = center.unsqueeze(1).masked_fill(~member, float("inf"))
    order = padded.detach().argsort(dim=-1, stable=True)
    return padded.gather(-1, order), member.sum(-1)


def _at(ordered: Tensor, rank: Tensor) -> Tensor:
    """ordered [B, K, E] at rank [K] -> [B, K]."""
    return ordered.gather(-1, rank.expand(ordered.shape[0], -1).unsqueeze(-1)).squeeze(-1)


def pull_distant(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Pulling loss, Eq. (5): sum_k (c_lmin - c_lmax)^2, the mean over the batch.

    Args:
        center: [B, E].
        group: [E] int64.
        num_groups: K.
    Returns:
        scalar. The gradient of a tied minimum or maximum goes to one component.
    """
    ordered, size = _sorted_by_group(_full_precision(center), group, num_groups)
    first, last = _at(ordered, torch.zeros_like(size)), _at(ordered, size - 1)
    return (last - first).square().sum(-1).mean()


def pull_middle(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Table 4b, "to mid": the two farthest centers are pulled to the middle one, the lower median.

    Arguments and result as `pull_distant`. The paper names the strategy without a formula; this is our reading.
    """
    ordered, size = _sorted_by_group(_full_precision(center), group, num_groups)
    first, last = _at(ordered, torch.zeros_like(size)), _at(ordered, size - 1)
    middle = _at(ordered, (size - 1) // 2)
    return ((last - middle).square() + (first - middle).square()).sum(-1).mean()


def pull_all(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Table 4b, "all": every pair of centers of a proposal is pulled together.

    Arguments and result as `pull_distant`. The paper names the strategy without a formula; this is our reading.
    """
    center = _full_precision(center)
    same = torch.triu(group.unsqueeze(0) == group.unsqueeze(1), diagonal=1)
    squared = (center.unsqueeze(-1) - center.unsqueeze(-2)).square()
    return (squared * same).sum((-1, -2)).mean()


def push(masks: Tensor, group: Tensor, target: float, normalize: bool = True) -> Tensor:
    """Pushing losses, Eqs. (6) and (7): sum_k || M~ M~^T - target I ||_F^2, the mean over the batch.

    Components in groups give the intra-push of Eq. (6); proposals in one group the inter-push of Eq. (7).

    Args:
        masks: [B, n, T].
        group: [n] int64; only pairs of the same group enter.
        target: lambda.
        normalize: divide every row by its sum first (M~); off is the letter of the paper.
    Returns:
        scalar. A row of zeros stays zero.
    """
    masks = _full_precision(masks)
    if normalize:
        masks = masks / masks.sum(-1, keepdim=True).clamp(min=ROW_SUM_FLOOR)
    same = group.unsqueeze(0) == group.unsqueeze(1)
    identity = torch.eye(masks.shape[1], dtype=masks.dtype, device=masks.device)
    # a sum, not a matmul, which autocast would take to bf16
    distance = (masks.unsqueeze(2) * masks.unsqueeze(1)).sum(-1) - target * identity
    return (distance.square() * same).sum((-1, -2)).mean()


# --- importance-based reconstructor ---------------------------------------------------------------


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Mask-conditioned attention, the core of Eq. (8).

    a = softmax(q k^T / sqrt(h)) over visible keys; a'_j = a_j (g_j + 1e-10) / sum_i a_i (g_i + 1e-10); out = a' v.
    Computed as softmax(scores + log(g + 1e-10)), which is the same number and never 0 / 0.

    Args:
        query: [G, H, Q, h] unscaled.
        key, value: [G, H, T, h].
        key_mask: [G, T] g in [0, 1], shared by heads and queries; None for no mask.
        key_valid: [G, T] bool, False for padding; None when all are valid.
        causal: query i sees keys 0..i only (Q = T).
    Returns:
        [G, H, Q, h] in the dtype of value. Scores and softmax are fp32 at least. A row without a
        visible key averages all keys.
    """
    scale = query.shape[-1] ** -0.5
    scores = _full_precision((query * scale) @ key.transpose(-1, -2))
    if key_mask is not None:
        scores = scores + torch.log(_full_precision(key_mask) + MASK_FLOOR)[:, None, None, :]
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, HIDDEN_SCORE)
    if key_valid is not None:
        scores = scores.masked_fill(~key_valid[:, None, None, :], HIDDEN_SCORE)
    return torch.softmax(scores, -1).to(value.dtype) @ value


def importance_score(r_cls: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """Score of each mask, Eq. (9): h = u^T tanh(U r_cls), the two-layer MLP of the published code.

    Args:
        r_cls: [..., D] reconstructor output at the word CLS.
        inner: [D, D] U.
        outer: [1, D] u.
    Returns:
        [...] scores.
    """
    return _full_precision(F.linear(torch.tanh(F.linear(r_cls, inner)), outer)).squeeze(-1)


def importance(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Importance weights, Eq. (10): w^(k) = softmax of the scores of proposal k's components.

    Args:
        score: [B, E].
        group: [E] int64.
        num_groups: K.
    Returns:
        [B, E], summing to 1 in every group.
    """
    score = _full_precision(score)
    member = membership(group, num_groups)
    return score.unsqueeze(1).masked_fill(~member, float("-inf")).softmax(-1).masked_fill(~member, 0).sum(1)


# --- losses of the reconstruction -----------------------------------------------------------------


def reconstruction_nll(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> Tensor:
    """C(.), label-smoothed cross-entropy of the reconstructed sentence in nats, the mean over its targets.

    Per target: (1 - e) (-log p(y)) + e / V sum_v (-log p(v)).

    Args:
        logits: [B, N, L, V].
        targets: [B, L] int64 classes.
        is_target: [B, L] bool; every row has at least one.
        smoothing: e in [0, 1).
    Returns:
        [B, N].
    """
    log_prob = torch.log_softmax(_full_precision(logits), -1)
    index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    picked = log_prob.gather(-1, index).squeeze(-1)
    per_word = -(1 - smoothing) * picked - smoothing * log_prob.mean(-1)  # [B, N, L]
    count = is_target.sum(-1, keepdim=True)
    return per_word.masked_fill(~is_target.unsqueeze(1), 0).sum(-1) / count


def best_proposals(positive_nll: Tensor, num_best: int = 1) -> Tensor:
    """k* = argmin_k C(P^(k)), or the num_best smallest; the first of equal ones.

    Args:
        positive_nll: [B, K].
    Returns:
        [B, num_best] int64.
    """
    return positive_nll.detach().argsort(dim=-1, stable=True)[:, :num_best]


def reconstruction_loss(best_nll: Tensor, whole_video_nll: Tensor) -> Tensor:
    """L_rec = C(P^(k*)) + C(P_hn) per sample.

    Args:
        best_nll: [B, num_best], C of the best positives; their mean is taken.
        whole_video_nll: [B].
    Returns:
        [B].
    """
    return best_nll.mean(-1) + whole_video_nll


def contrastive_loss(
    best_nll: Tensor, whole_video_nll: Tensor, negative_nll: Tensor, whole_video_margin: float, negative_margin: float
) -> Tensor:
    """L_ivc = max(C(P^(k*)) - C(P_hn) + beta_1, 0) + max(C(P^(k*)) - C(P_en^(k*)) + beta_2, 0), mean of the batch.

    Neither negative is detached: they are pushed to reconstruct worse.

    Args:
        best_nll: [B, num_best].
        whole_video_nll: [B].
        negative_nll: [B, num_best], easy negatives of the same proposals.
    Returns:
        scalar. At the kink of a hinge the gradient is halved.
    """
    zero = torch.zeros_like(best_nll)
    whole_video = torch.maximum(best_nll - whole_video_nll.unsqueeze(-1) + whole_video_margin, zero)
    negative = torch.maximum(best_nll - negative_nll + negative_margin, zero)
    return (whole_video + negative).mean()


# --- inference ------------------------------------------------------------------------------------


def boundaries(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Start and end of each proposal: importance-weighted c -+ width / 2, moved inwards by shrink / 2 of the length.

    Args:
        center, width, importance: [B, E].
        group: [E] int64.
        num_groups: K.
        shrink: gamma in [0, 1).
    Returns:
        start, end: [B, K] in [0, 1].
    """
    member = membership(group, num_groups)
    left = (member * (importance * (center - width / 2)).unsqueeze(1)).sum(-1)
    right = (member * (importance * (center + width / 2)).unsqueeze(1)).sum(-1)
    inwards = shrink * (right - left) / 2
    return (left + inwards).clamp(min=0), (right - inwards).clamp(max=1)
