"""What training pairs tell about moments without their videos: where they lie, for a sentence, and how long they are.

The curves of the training pairs, by maps that were fitted without them, are the only source; no time is read.

Letters: p pairs of a block, n width of a sentence vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pps_fast.alignment.equations import zscored_curve
from pps_fast.alignment.windows import best_log_radius
from pps_fast.config import AlignmentConfig

if TYPE_CHECKING:
    from pps_fast.alignment.pairs import TrainingPairs


def fit_priors(pairs: TrainingPairs, maps: Tensor, options: AlignmentConfig, progress: bool) -> dict[str, Tensor]:
    """Returns what the priors of the reading need, from linear curves of maps without the pairs of their part.

    With Z [P, S] the z-scored curves and Y [P, n] the sentences: m = mean Z over the pairs, and the ridge regression
    (A + tr(A) / n I)^-1 Y^T (Z - m) / P with A = Y^T Y / P.
    """
    num_segments, width = pairs.num_segments, maps.shape[2]
    # of the products of [y, 1] with [y, zeta, log radius]
    sums = torch.zeros(width + 1, width + num_segments + 1, dtype=torch.float64, device=maps.device)
    if options.position_prior > 0 or options.duration_prior > 0:
        for curve, sentences in pairs.curves(maps, progress):
            zeta = zscored_curve(curve)
            values = torch.cat([sentences, zeta, best_log_radius(curve, options.curve)[:, None]], dim=1)
            sums += torch.cat([sentences, torch.ones_like(values[:, :1])], dim=1).double().T @ values.double()
    count = pairs.count
    moment, mean = sums[:width, :width] / count, sums[width, width:-1] / count
    cross = sums[:width, width:-1] / count - torch.outer(sums[width, :width] / count, mean)
    ridge = (moment.trace() / width).masked_fill(moment.trace() <= 0, 1)
    position_map = torch.linalg.solve(moment + ridge * torch.eye(width).to(moment), cross)
    # over pairs and segments; the sentences' mean is 0
    variance = (position_map * (moment @ position_map)).sum() / num_segments
    scale = mean.std(correction=0)
    return {
        "position_mean": (mean / scale.masked_fill(scale == 0, 1)).float().cpu(),
        "position_map": (position_map / variance.sqrt().masked_fill(variance <= 0, 1)).float().cpu(),
        "log_radius": (sums[width, -1] / count).float().cpu(),
    }
