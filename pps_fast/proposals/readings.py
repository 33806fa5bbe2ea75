"""How the moment of a proposal is read: from the centers and widths of its components, or from its mask.

Paper: Section 4, "Implementation details", has 'center_width'; the others are this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.config import Backend, BoundaryReading
from pps_fast.ops.boundaries import boundaries
from pps_fast.types import Components

# a level of e^-2 is two standard deviations from the center of a single Gaussian
LOG_LEVEL = -2.0
# share of the mass before the start, and behind the end
TAIL = 0.1


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What a moment may be read from.

    Attributes:
        components: the E components.
        importance: [B, E].
        masks: [B, K, T] mixtures; position t stands for the moment t / (T - 1) of the video.
        group: [E] int64, proposal of each component.
        shrink: gamma in [0, 1), share of the length that is cut off the two ends.
    """

    components: Components
    importance: Tensor
    masks: Tensor
    group: Tensor
    shrink: float


Span = tuple[Tensor, Tensor]


def center_width(mixed: Mixed, backend: Backend) -> Span:
    """Returns importance-weighted c -+ width / 2, shrunk: start and end [B, K]; see `equations.boundaries`."""
    components, num_groups = mixed.components, mixed.masks.shape[1]
    return boundaries(
        components.center,
        components.width,
        mixed.importance,
        mixed.group,
        num_groups,
        mixed.shrink,
        backend=backend,
    )


def mask_level(mixed: Mixed, backend: Backend) -> Span:
    """Returns the outermost points where the mixture is e^-2 of its peak, shrunk: start and end [B, K].

    Between two positions log masks are interpolated linearly. A mixture that is above the level at an end of the video
    has its boundary there. No gradient.
    """
    with torch.no_grad():
        # far below any level, so that a mask of zeros between positions stays finite
        relative = torch.log(mixed.masks + 1e-30)
        relative = relative - relative.amax(dim=2, keepdim=True) - LOG_LEVEL
        start = _first_crossing(relative)
        end = 1 - _first_crossing(relative.flip(2))
        return _shrunk(start, end, mixed.shrink)


def mass(mixed: Mixed, backend: Backend) -> Span:
    """Returns where a tenth and nine tenths of the mixture's mass lie before, shrunk: start and end [B, K].

    The mass between two positions is that of a trapezoid, spread evenly. No gradient.
    """
    with torch.no_grad():
        pieces = (mixed.masks[..., 1:] + mixed.masks[..., :-1]) / 2
        total = torch.nn.functional.pad(pieces.cumsum(-1), (1, 0))  # [B, K, T], 0 at the first position
        start, end = (_quantile(total, share) for share in (TAIL, 1 - TAIL))
        return _shrunk(start, end, mixed.shrink)


def mean(mixed: Mixed, backend: Backend) -> Span:
    """Returns the means of the starts and of the ends of `center_width` and `mass`, [B, K]."""
    first, second = center_width(mixed, backend), mass(mixed, backend)
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2


READINGS: dict[BoundaryReading, Callable[[Mixed, Backend], Span]] = {
    "center_width": center_width,
    "mask_level": mask_level,
    "mass": mass,
    "mean": mean,
}
"""by the strings of `config.BoundaryReading`"""


def _first_crossing(relative: Tensor) -> Tensor:
    """Returns the point in [0, 1] where values [B, K, T] first reach 0, interpolated linearly: [B, K]."""
    after = (relative >= 0).int().argmax(dim=2, keepdim=True)
    before = (after - 1).clamp(min=0)
    high, low = relative.gather(2, after), relative.gather(2, before)
    share = -low / (high - low).masked_fill(after == before, 1)
    point = torch.where(after == 0, 0, before + share)
    return (point / (relative.shape[2] - 1)).squeeze(2)


def _quantile(total: Tensor, share: float) -> Tensor:
    """Returns the point in [0, 1] before which a share of the mass lies: running mass [B, K, T] -> [B, K]."""
    wanted = share * total[..., -1:]
    after = torch.searchsorted(total.contiguous(), wanted.contiguous()).clamp(1, total.shape[2] - 1)
    low, high = total.gather(2, after - 1), total.gather(2, after)
    # a mask of zeros has no mass and is read as the whole video
    step = (high - low).masked_fill(high == low, 1)
    point = (after - 1 + ((wanted - low) / step)) / (total.shape[2] - 1)
    return point.masked_fill(total[..., -1:] == 0, round(share)).squeeze(2)


def _shrunk(start: Tensor, end: Tensor, shrink: float) -> Span:
    inwards = shrink * (end - start) / 2
    return (start + inwards).clamp(min=0), (end - inwards).clamp(max=1)
