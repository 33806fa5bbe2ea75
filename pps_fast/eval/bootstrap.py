"""95 % bootstrap intervals by video: sentences of one video are not independent, so whole videos are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.machine import require_memory

# bounds of the 95 % percentile interval
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean (or a difference of means) with its 95 % interval, in the unit of the values."""

    value: float
    low: float
    high: float


class VideoBootstrap:
    """Resamples whole videos; all rows of a report and their differences share the same resamplings.

    Args:
        video: [B] int64, the video of each sample; any integers.
        num_resamples: resamplings with replacement, each as many videos as there are.
        seed: of the resamplings.

    Raises:
        ValueError: without samples, or for more resamples than fit into the free memory.
    """

    def __init__(self, video: Tensor, *, num_resamples: int, seed: int) -> None:
        if len(video) == 0:
            raise ValueError("VideoBootstrap: no samples to resample; choose a split that has samples")
        _, self._row = torch.unique(video, return_inverse=True)
        self.num_videos = int(self._row.max()) + 1
        # numbers drawn, ones and counts
        size = 3 * 8 * num_resamples * self.num_videos
        require_memory(size, f"a bootstrap of {num_resamples:,} resamples", "lower inference.num_bootstrap")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(self.num_videos, (num_resamples, self.num_videos), generator=generator)
        ones = torch.ones_like(drawn, dtype=torch.float64)
        counts = torch.zeros(num_resamples, self.num_videos, dtype=torch.float64)
        # [R, N] how often each video stands in each resampling
        self._counts = counts.scatter_add_(1, drawn, ones)
        sizes = torch.zeros(self.num_videos, dtype=torch.float64)
        sizes.index_add_(0, self._row, torch.ones(len(video), dtype=torch.float64))
        self._num_samples = self._counts @ sizes  # [R]

    def estimate(self, values: Tensor) -> Estimate:
        """Returns the mean of `values` over samples and its interval.

        The mean of a resampling is over its samples, so a video with many sentences weighs more, as it
        does in the metric itself. The paired interval of a difference of two predictors is the estimate
        of the difference of their values.

        Args:
            values: [B] one value per sample, in the order of `video`.

        Raises:
            ValueError: if there is not one value per sample.
        """
        if values.shape != self._row.shape:
            raise ValueError(
                f"VideoBootstrap.estimate: values of shape {list(values.shape)} for {len(self._row)} samples; "
                "pass one value per sample"
            )
        values = values.double()
        sums = torch.zeros(self.num_videos, dtype=torch.float64).index_add_(0, self._row, values)
        means = self._counts @ sums / self._num_samples
        low, high = torch.quantile(means, torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
        return Estimate(value=values.mean().item(), low=low, high=high)
