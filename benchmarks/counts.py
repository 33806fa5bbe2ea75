"""The least bytes and floating-point operations of every op: what a perfect kernel would move and compute.

Bytes: what is needed is read once and what is asked for is written once, in the dtypes given, nothing in between. The
backward pass reads what its formula needs (inputs, or results where they are smaller), the incoming gradients, and
writes the gradients of the floating inputs. Operations: a multiply-add is two, exp, log, tanh and a division are one
each, comparisons of a maximum one, integer arithmetic none. Padding is work, except for words that are no target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# ops that multiply matrices in the dtype of the activations; the arithmetic of the others is fp32
PRODUCTS = ("masked_attention", "shared_attention")
# masks, importance weights and losses are fp32
_WIDE = 4


@dataclass(frozen=True)
class Work:
    """Bytes moved and operations done."""

    bytes: int
    flops: int

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops)


def _size(*values: Tensor | None) -> int:
    """Bytes of tensors."""
    return sum(x.numel() * x.element_size() for x in values if x is not None)


def _pairs_of(group: Tensor) -> tuple[int, int]:
    """Unordered pairs of different entries of the same group, and ordered pairs with equal ones."""
    counts = torch.bincount(group.cpu())
    return int((counts * (counts - 1) // 2).sum()), int((counts * counts).sum())


def _masks(per_position: int) -> Callable[..., tuple[Work, Work]]:
    def count(center: Tensor, width: Tensor, num_positions: int, **others: Any) -> tuple[Work, Work]:
        values = center.numel() * num_positions
        # a mask and its log out; on the way back their gradients in, and a row is a center and a width
        moved, rows = 2 * _WIDE * values, _size(center, width)
        # again the mask, then g' + l' / (g + eps) (3), times df/dc and df/dw (2 and 2), both summed (2)
        return Work(rows + moved, per_position * values), Work(2 * rows + moved, (per_position + 9) * values)

    return count


def _importance(score: Tensor, group: Tensor, **others: Any) -> tuple[Work, Work]:
    num = score.numel()
    # maximum, exp of a difference, sum, division: 5; backward w (g - sum w g): a multiply-add, a difference, a product
    out = _WIDE * num
    return Work(_size(score, group) + out, 5 * num), Work(2 * out + _size(group, score), 4 * num)


def _mixture(masks: Tensor, log_masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> tuple[Work, Work]:
    batch_size, num, length = masks.shape
    out = 2 * masks.element_size() * batch_size * num_groups * length
    needed = _size(masks, importance, group)
    # a multiply-add per component; the log is that of the sum + eps, as the masks' logs say nothing new
    forward = 2 * masks.numel() + 2 * batch_size * num_groups * length
    # w g' (1), w (m + eps) l' / p (3), and the weight's sums of m g' and (m + eps) l' / p (4)
    grads = _size(masks, log_masks, importance)
    return Work(needed + out, forward), Work(needed + out + grads, 8 * masks.numel())


def _gaussian_exponent(center: Tensor, width: Tensor, num_positions: int, **others: Any) -> tuple[Work, Work]:
    values = center.numel() * num_positions
    rows, moved = _size(center, width), _WIDE * values
    # distance and its division (2), square; back the distance again, times df/dc and df/dw (2 and 2), both summed (2)
    return Work(rows + moved, 3 * values), Work(2 * rows + moved, 8 * values)


def _mixture_exponent(exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> tuple[Work, Work]:
    batch_size, num, length = exponents.shape
    values, out = batch_size * num_groups * length, _WIDE * batch_size * num_groups * length
    needed = _size(exponents, importance, group)
    # a weight's log; + log w, maximum, exp of a difference (2), sum: 5 per value; a log and its sum per result
    forward = importance.numel() + 5 * exponents.numel() + 2 * values
    # exp of the difference to the result (3), times its gradient (1), summed (1); a weight's sum divided by it
    backward = importance.numel() + 5 * exponents.numel()
    return Work(needed + out, forward), Work(needed + 2 * out + _size(exponents, importance), backward)


def _peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> tuple[Work, Work]:
    batch_size, num, length = masks.shape
    values = batch_size * num_groups * length
    out, peaks = masks.element_size() * values, _WIDE * batch_size * num_groups
    # a sum over components, then maximum, division, + eps, log
    forward = Work(_size(masks, group) + 2 * out, masks.numel() + 4 * values)
    # from the mixture and its peak: g' + l' / (p + eps) (3), sum with p (2), / peak (1); components get copies
    return forward, Work(3 * out + peaks + _size(group, masks), 6 * values)


def _boundaries(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, **others: Any
) -> tuple[Work, Work]:
    rows, num = _size(center, width, importance), center.numel()
    out = 2 * center.element_size() * len(center) * num_groups
    # width / 2, both ends, two multiply-adds: 7 per component; length, shrink (2), both moves, both clamps: 7
    forward = Work(rows + _size(group) + out, 7 * num + 7 * len(center) * num_groups)
    # per component w (l + r) (2), w (r - l) / 2 (3), both ends again (3) times l and r (3); per proposal l and r (4)
    return forward, Work(2 * rows + _size(group) + out, 11 * num + 4 * len(center) * num_groups)


def _pull(strategy: str) -> Callable[..., tuple[Work, Work]]:
    def count(center: Tensor, group: Tensor, num_groups: int) -> tuple[Work, Work]:
        batch_size, (pairs, _) = len(center), _pairs_of(group)
        # distant: minimum and maximum, and a squared difference (3) per group; middle: ranks from all pairs, and two
        # of them; all: one per pair. Backward: two gradients per squared difference
        forward, backward = {
            "distant": (2 * center.numel() + 3 * batch_size * num_groups, 2 * batch_size * num_groups),
            "middle": (batch_size * (pairs + 6 * num_groups), 4 * batch_size * num_groups),
            "all": (3 * batch_size * pairs, 3 * batch_size * pairs),
        }[strategy]
        read = _size(center, group)
        return Work(read + _WIDE, forward), Work(read + _WIDE + _size(center), backward)

    return count


def _push(masks: Tensor, group: Tensor, **others: Any) -> tuple[Work, Work]:
    batch_size, num, length = masks.shape
    different, ordered = _pairs_of(group)
    pairs = different + num
    # rows summed and divided (2); a product of rows per unordered pair, less the target, squared and added (3)
    normalize, gram = 2 * masks.numel(), batch_size * pairs * (2 * length + 3)
    # the Gram matrix again, times the rows (2 per ordered pair and position), through the division (4)
    backward = gram + batch_size * ordered * 2 * length + normalize + 4 * masks.numel()
    read = _size(masks, group)
    return Work(read + _WIDE, normalize + gram), Work(read + _WIDE + _size(masks), backward)


def _num_visible(query: Tensor, key: Tensor, causal: bool) -> int:
    """Pairs of query and key that may see each other, over all heads and sequences."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    pairs = num_queries * (num_queries + 1) // 2 if causal else num_queries * num_keys
    return query.shape[0] * query.shape[1] * pairs


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> tuple[Work, Work]:
    inputs, gradients = _size(query, key, value, key_bias, key_valid), _size(query, key, value, key_bias)
    out = query.numel() * value.element_size()
    # q k and p v: two products; backward the first again, p dout, dout v, ds k, ds q: five
    product = 2 * query.shape[-1] * _num_visible(query, key, causal)
    return Work(inputs + out, 2 * product), Work(inputs + out + gradients, 5 * product)


def _shared_attention(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, key_valid: Tensor | None = None, causal: bool = False
) -> tuple[Work, Work]:
    num_masks = key_bias.shape[1]
    inputs, gradients = _size(query, key, value, key_bias, key_valid), _size(query, key, value, key_bias)
    out = num_masks * query.numel() * value.element_size()
    # q k once, p v per mask; backward q k, ds k and ds q once (ds summed over masks), p dout and dout v per mask
    product = 2 * query.shape[-1] * _num_visible(query, key, causal)
    return (
        Work(inputs + out, (1 + num_masks) * product),
        Work(inputs + out + gradients, (3 + 2 * num_masks) * product),
    )


def _reconstruction_nll(logits: Tensor, targets: Tensor, is_target: Tensor, **others: Any) -> tuple[Work, Work]:
    batch_size, num_masks, _, num_classes = logits.shape
    values = int(is_target.sum()) * num_masks * num_classes
    # words that are no target are not read; their gradients are zeros, and written
    read = values * logits.element_size() + _size(targets, is_target)
    out = _WIDE * batch_size * num_masks
    # maximum, exp of a difference, sum, mean: 5 per logit; backward exp of a difference, less a share, times w: 4
    return Work(read + out, 5 * values), Work(read + out + _size(logits), 4 * values)


def _contrastive_loss(
    best_nll: Tensor, whole_video_nll: Tensor, negative_nll: Tensor, **others: Any
) -> tuple[Work, Work]:
    inputs, hinges = _size(best_nll, whole_video_nll, negative_nll), best_nll.numel() + negative_nll.numel()
    # difference, margin, maximum, sum; back difference, margin, comparison, and two gradients
    return Work(inputs + _WIDE, 4 * hinges), Work(2 * inputs + _WIDE, 5 * hinges)


def _residual_norm(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout_key: Tensor | None = None,
    first_row: Tensor | None = None,
    **others: Any,
) -> tuple[Work, Work]:
    parameters, selectors = _size(weight, bias), _size(dropout_key, first_row)
    # scale and add (2), mean (1), difference (1), variance (2), normalize (1), weight and bias (2)
    forward = Work(_size(x, branch) + parameters + selectors + _size(x), 9 * x.numel())
    # from the normalized rows, one tensor, and 1 / std: dn (1), its two means (3), dz (4), scale (1), dweight (2),
    # dbias (1)
    rows, read = _WIDE * x.shape[0] * x.shape[1], 2 * _size(x) + _size(weight) + selectors
    return forward, Work(read + rows + _size(x, branch) + parameters, 12 * x.numel())


def _mask_reward(masks: Tensor, curve: Tensor, frame_valid: Tensor | None = None, **others: Any) -> tuple[Work, Work]:
    inputs, rewards = _size(masks, curve, frame_valid), _WIDE * masks.shape[0] * masks.shape[1]
    # the curve's mean (1), difference (1), variance (2) and scale (1); two sums of products per mask (4)
    forward = Work(inputs + rewards, 5 * curve.numel() + 4 * masks.numel())
    # rewards and their gradients in; the curve again, and its gradient's mean (1), share (2), two differences and two
    # products (4); per mask the sum of squares again (2), two products and a difference (3), the curve's sum (2)
    read, flops = inputs + 2 * rewards, 12 * curve.numel() + 7 * masks.numel()
    return forward, Work(read + _size(masks, curve), flops)


_COUNTS: dict[str, Callable[..., tuple[Work, Work]]] = {
    # distance and its division (2), square, exp, + eps, log
    "gaussian_mask": _masks(6),
    # the same, halved and less the peak, which is a maximum
    "gaussian_peak_mask": _masks(9),
    # no halving
    "laplace_mask": _masks(8),
    "gaussian_exponent": _gaussian_exponent,
    "importance": _importance,
    "mixture": _mixture,
    "mixture_exponent": _mixture_exponent,
    "peak_mixture": _peak_mixture,
    "boundaries": _boundaries,
    "pull_distant": _pull("distant"),
    "pull_middle": _pull("middle"),
    "pull_all": _pull("all"),
    "push": _push,
    "masked_attention": _attention,
    "shared_attention": _shared_attention,
    "reconstruction_nll": _reconstruction_nll,
    "contrastive_loss": _contrastive_loss,
    "residual_norm": _residual_norm,
    "mask_reward": _mask_reward,
}
MODES = ("forward", "backward", "both")


def count(op: str, inputs: dict[str, Any]) -> dict[str, Work]:
    """Returns the least work of an op on these inputs for each of MODES; "both" is the sum.

    Raises:
        ValueError: for an op nobody has counted.
    """
    if op not in _COUNTS:
        raise ValueError(f"count: op = {op!r}: expected one of {', '.join(_COUNTS)}; write its formula here")
    forward, backward = _COUNTS[op](**inputs)
    return {"forward": forward, "backward": backward, "both": forward + backward}
