"""The paper's equations in the paper's order: one pure function each, torch only, any floating dtype.

This file is the `torch` backend of every op, the float64 oracle of the kernels' tests and the
documentation of the mathematics. Its guard is `tests/support/oracles.py`, written independently with loops.

Components of all proposals lie on one flat axis E; `group` [E] tells which proposal each belongs to
(see `proposals/layout.py`). Shapes follow the legend of `types.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.randomness import add_dropout, mix

# the floor under a mask in the attention: keys outside the mask keep this share of their weight
MASK_FLOOR = 1e-10
# the score of a key nobody may attend to; finite, so that a row without any visible key stays finite
HIDDEN_SCORE = -1e30
# under the root of every LayerNorm
NORM_EPS = 1e-5
# sums of masks with a smaller peak are not brought to a peak of 1: 1 / peak would overflow in the gradient
PEAK_FLOOR = 1e-20
# rows with a smaller sum are not normalized in the push losses: they are 0 in fp32, and 1 / sum overflows
ROW_SUM_FLOOR = 1e-37


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


def _peak_at_zero(exponent: Tensor) -> Tensor:
    """Subtracts the largest value on the grid from the exponent, so that exp of it has the peak 1 and is never 0 / 0.

    The gradient of the maximum goes to one arg-max position, the first of equal ones. There the result is a constant,
    so that the gradient of an inverse mask's log, of order 1e10 where the mask is 0, has nothing to cancel against.
    """
    peak = exponent.argmax(-1, keepdim=True)
    return (exponent - exponent.gather(-1, peak)).scatter(-1, peak, 0.0)


def log_mask(mask: Tensor) -> Tensor:
    """log(g + 1e-10): what a mask g in [0, 1] adds to the scores of the attention it conditions (Eq. 8).

    It lies in [-23.1, 0], so that no softmax over it is 0 / 0.
    """
    return torch.log(mask + MASK_FLOOR)


def _with_log(exponent: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """exp(exponent), or 1 - exp(exponent) without loss of digits near 0, and its log."""
    mask = -torch.expm1(exponent) if inverse else torch.exp(exponent)
    return mask, log_mask(mask)


def gaussian_exponent(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01
) -> Tensor:
    """log f(t) of Eq. (3), exact where f itself underflows to 0 at every position.

    Arguments and errors as `gaussian_mask`; the result is [..., T], fp32 or fp64, and at most 0.
    """
    return -_distance_over_std(center, width, sigma, num_positions, width_floor).square()


def gaussian_mask(
    center: Tensor,
    width: Tensor,
    sigma: float,
    num_positions: int,
    width_floor: float = 0.01,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gaussian masks, Eq. (3): f(t) = exp(-((t / (T - 1) - c) / s)^2), s = max(width, width_floor) / sigma.

    CNM's exp(-alpha d^2 / max(width, 0.1)^2) is the same with sigma = sqrt(alpha), width_floor = 0.1.

    Args:
        center: [...] in [0, 1].
        width: [...] in (0, 1), of center's shape.
        sigma: width / standard deviation.
        num_positions: T, at least 2.
        width_floor: smallest width drawn; below it the width gets no gradient.
        inverse: 1 - f(t) instead.
    Returns:
        masks [..., T] in [0, 1] and their `log_mask`, fp32 or fp64; with a center between positions all below 1.
    Raises:
        ValueError: for fewer than 2 positions.
    """
    return _with_log(gaussian_exponent(center, width, sigma, num_positions, width_floor), inverse)


def gaussian_peak_mask(
    center: Tensor,
    width: Tensor,
    sigma: float,
    num_positions: int,
    width_floor: float = 0.01,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The published code's Gaussian masks: exp(-d^2 / 2), d as in Eq. (3), divided by the peak on the grid.

    Arguments, result and errors as `gaussian_mask`, but the largest value of every mask is exactly 1.
    """
    distance = _distance_over_std(center, width, sigma, num_positions, width_floor)
    return _with_log(_peak_at_zero(-0.5 * distance.square()), inverse)


def laplace_mask(
    center: Tensor,
    width: Tensor,
    sigma: float,
    num_positions: int,
    width_floor: float = 0.01,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The published code's Laplace masks: exp(-|d|), d as in Eq. (3), divided by the peak on the grid.

    Arguments, result and errors as `gaussian_mask`, but the largest value of every mask is exactly 1.
    """
    distance = _distance_over_std(center, width, sigma, num_positions, width_floor)
    return _with_log(_peak_at_zero(-distance.abs()), inverse)


def membership(group: Tensor, num_groups: int) -> Tensor:
    """Returns [K, E] bool: component e belongs to proposal k."""
    return torch.arange(num_groups, device=group.device).unsqueeze(1) == group.unsqueeze(0)


def mixture(
    masks: Tensor, log_masks: Tensor, importance: Tensor, group: Tensor, num_groups: int
) -> tuple[Tensor, Tensor]:
    """Gaussian mixture proposals, Eq. (4): P^(k) = M^(k)^T w^(k).

    As the weights sum to 1, log(P + 1e-10) is the log of the weighted sum of M + 1e-10. The second result is taken
    from the masks' logs in this way, because the gradient of a mask that vanishes stays bounded in them.

    Args:
        masks: [B, E, T] component masks.
        log_masks: [B, E, T] their `log_mask`.
        importance: [B, E] weights, summing to 1 in each group.
        group: [E] int64.
        num_groups: K.
    Returns:
        proposal masks [B, K, T] in [0, 1] and their `log_mask`.
    """
    weights = (membership(group, num_groups) * importance.unsqueeze(1)).unsqueeze(-1)  # [B, K, E, 1]
    # sums, not matmuls, which autocast would take to bf16
    mixed = (weights * masks.unsqueeze(1)).sum(2)
    floored = (weights * log_masks.exp().unsqueeze(1)).sum(2)
    # a proposal without components is 0 everywhere
    return mixed, floored.masked_fill(floored == 0, MASK_FLOOR).log()


def mixture_exponent(exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """log P of Eq. (4) by log-sum-exp, exact where P itself underflows to 0.

    Args:
        exponents: [B, E, T] logs of the component masks, without a floor; finite.
        importance: [B, E] weights; a constant factor per group is a constant summand of the result.
        group: [E] int64; every group has a component.
        num_groups: K.
    Returns:
        [B, K, T], fp32 or fp64.
    """
    importance = _full_precision(importance)
    log_weight = importance.clamp(min=torch.finfo(importance.dtype).tiny).log()
    terms = (_full_precision(exponents) + log_weight.unsqueeze(-1)).unsqueeze(1)
    return terms.masked_fill(~membership(group, num_groups).unsqueeze(-1), float("-inf")).logsumexp(2)


def peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Mixture without importance: the sum of a proposal's masks divided by its peak.

    Args:
        masks: [B, E, T].
        group: [E] int64.
        num_groups: K.
    Returns:
        masks [B, K, T] in [0, 1], the largest value of each exactly 1, and their `log_mask`. A proposal whose masks
        all but vanish stays near 0.
    """
    member = membership(group, num_groups).to(masks.dtype)
    summed = (member.unsqueeze(-1) * masks.unsqueeze(1)).sum(2)
    peak = summed.gather(-1, summed.argmax(-1, keepdim=True))
    mixed = summed / peak.clamp(min=PEAK_FLOOR)
    return mixed, log_mask(mixed)


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


def push(
    masks: Tensor, group: Tensor, target: float, normalize: bool = True, exponents: Tensor | None = None
) -> Tensor:
    """Pushing losses, Eqs. (6) and (7): sum_k || M~ M~^T - target I ||_F^2, the mean over the batch.

    Components in groups give the intra-push of Eq. (6); proposals in one group the inter-push of Eq. (7).

    Args:
        masks: [B, n, T].
        group: [n] int64; only pairs of the same group enter.
        target: lambda.
        normalize: divide every row by its sum first (M~); off is the letter of the paper.
        exponents: [B, n, T] logs of the masks without a floor, up to a constant per row, with a finite value in every
            row. Rows are then normalized as softmax(exponents), whose gradient does not go through masks, and which is
            right for masks that underflow. Not read where rows are not normalized.
    Returns:
        scalar. Without exponents, a row whose sum is below 1e-37 counts as it is, a row of zeros as zeros.
    """
    masks = _full_precision(masks)
    if normalize and exponents is not None:
        masks = _full_precision(exponents).softmax(-1)
    elif normalize:
        masks = masks / masks.sum(-1, keepdim=True).clamp(min=ROW_SUM_FLOOR)
    same = group.unsqueeze(0) == group.unsqueeze(1)
    identity = torch.eye(masks.shape[1], dtype=masks.dtype, device=masks.device)
    # a sum, not a matmul, which autocast would take to bf16
    distance = (masks.unsqueeze(2) * masks.unsqueeze(1)).sum(-1) - target * identity
    return (distance.square() * same).sum((-1, -2)).mean()


# --- importance-based reconstructor ---------------------------------------------------------------


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """q k^T / sqrt(h): [G, H, Q, T], fp32 at least."""
    return _full_precision((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2))


def _hide(scores: Tensor, key_valid: Tensor | None, causal: bool) -> Tensor:
    """Sets scores [G, ..., Q, T] of hidden keys so low that softmax gives them weight 0 and no gradient."""
    hidden = None if key_valid is None else ~key_valid.unflatten(0, (len(key_valid), *(1,) * (scores.dim() - 2)))
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        hidden = future if hidden is None else hidden | future
    return scores if hidden is None else scores.masked_fill(hidden, HIDDEN_SCORE)


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Mask-conditioned attention, the core of Eq. (8).

    a = softmax(q k^T / sqrt(h)) over visible keys; a'_j = a_j (g_j + 1e-10) / sum_i a_i (g_i + 1e-10); out = a' v.
    Computed as softmax(scores + log(g + 1e-10)), which is the same number and never 0 / 0.

    Args:
        query: [G, H, Q, h] unscaled.
        key, value: [G, H, T, h].
        key_bias: [G, T] `log_mask` of a mask g, shared by heads and queries; None for no mask.
        key_valid: [G, T] bool, False for padding; None when all are valid.
        causal: query i sees keys 0..i only (Q = T).
    Returns:
        [G, H, Q, h] in value's dtype; scores and softmax are fp32 at least. A row without visible keys averages all.
    """
    scores = _scores(query, key)
    if key_bias is not None:
        scores = scores + _full_precision(key_bias)[:, None, None, :]
    return torch.softmax(_hide(scores, key_valid, causal), -1).to(value.dtype) @ value


def shared_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Mask-conditioned attention of one sequence under N masks: `masked_attention` for each, with common scores.

    Args:
        query: [B, H, Q, h] unscaled.
        key, value: [B, H, T, h].
        key_bias: [B, N, T] `log_mask` of each mask.
        key_valid: [B, T] bool; None when all are valid.
        causal: query i sees keys 0..i only (Q = T).
    Returns:
        [B, N, H, Q, h] in the dtype of value.
    """
    scores = _scores(query, key).unsqueeze(1) + _full_precision(key_bias)[:, :, None, None, :]
    return torch.softmax(_hide(scores, key_valid, causal), -1).to(value.dtype) @ value.unsqueeze(1)


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


def residual_norm(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout_key: Tensor | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Tensor | None = None,
) -> Tensor:
    """End of every sub-layer of the transformers: LayerNorm(x + dropout(branch)), post-LN with eps 1e-5.

    Args:
        x, branch: [G, n, D].
        weight, bias: [D].
        dropout_key: [G] int32 dropout keys of the sequences (see `randomness.py`); None for no dropout.
        site: number of the dropout site in the model; different sites decide independently.
        rate: of the dropout.
        first_row: [G] int64 position of the first of the n rows in its sequence; 0 when not given.
    Returns:
        [G, n, D] in x's dtype; statistics are fp32 at least.
    """
    site_key = None if dropout_key is None else mix(dropout_key, site)
    summed = _full_precision(add_dropout(x, branch, site_key, rate, 0 if first_row is None else first_row))
    # never half-precision rows with fp32 weights: CUDA refuses them, and a CPU adds up the weights' gradients in half
    # precision, which is 18 % off after 24,000 rows
    weight, bias = weight.to(summed.dtype), bias.to(summed.dtype)
    return F.layer_norm(summed, weight.shape, weight, bias, NORM_EPS).to(x.dtype)


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

    Each easy negative has a hinge of its own. Negatives are not detached, so they learn to reconstruct worse.

    Args:
        best_nll: [B, num_best].
        whole_video_nll: [B].
        negative_nll: [B, num_best, J], easy negatives of the same proposals.
    Returns:
        scalar, fp32 or fp64. At the kink of a hinge the gradient is halved.
    """
    best_nll, whole_video_nll, negative_nll = map(_full_precision, (best_nll, whole_video_nll, negative_nll))
    zero = torch.zeros_like(best_nll)
    whole_video = torch.maximum(best_nll - whole_video_nll.unsqueeze(-1) + whole_video_margin, zero)
    negative = torch.maximum(best_nll.unsqueeze(-1) - negative_nll + negative_margin, zero.unsqueeze(-1))
    return (whole_video + negative.sum(-1)).mean()


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
