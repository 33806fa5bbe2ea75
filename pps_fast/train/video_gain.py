"""What the video tells a model: pairs with their own videos against the same sentences with videos of other pairs.

A model can lower its losses without looking at the video, by the words of the sentence and their neighbors alone. Then
all proposals of a video rebuild the sentence equally well, and the contrastive loss has nothing to compare. No time of
a moment is read.

Letters: P pairs of the measurement.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.files import Note
from pps_fast.model import PPS

MAX_PAIRS = 64
"""pairs of a measurement, each of another video"""
ENOUGH_PAIRS = 32
"""fewer are no reason to warn"""


def one_pair_per_video(sample_video: np.ndarray, samples: np.ndarray, limit: int = MAX_PAIRS) -> np.ndarray:
    """Returns [P] int64: the first of some samples of each video, of `limit` videos at equal distances.

    Args:
        sample_video: [n] video of every sample of the data set.
        samples: int64 samples to choose from.
    """
    _, first = np.unique(sample_video[samples], return_index=True)
    chosen = np.linspace(0, len(first) - 1, min(limit, len(first))).round().astype(np.int64)
    return np.asarray(samples[first[chosen]], dtype=np.int64)


class VideoGain:
    """Measures a model in training, without an effect on it: no dropout, and random numbers follow from counters.

    The pairs are of the validation split; where there is none they are training pairs, of which a model that learns
    them by heart can know the videos: then what is measured is at most too much.

    Args:
        config: of the run.
        store: data on the model's device.
        splits: of the run.
    """

    def __init__(self, config: PPSConfig, store: Store, splits: Splits) -> None:
        self.config, self.store = config, store
        self.split = "validation" if len(splits.validation) else "train"
        sample_video = store.data.sample_video
        self.samples = one_pair_per_video(sample_video, getattr(splits, self.split))
        """[P] int64"""
        self._other_videos = np.roll(sample_video[self.samples], 1)
        self._has_warned = False

    @property
    def margins(self) -> dict[str, float]:
        """Margins of the contrastive loss, in nats; none where it is not computed."""
        losses = self.config.losses
        if losses.contrastive == 0:
            return {}
        return {"whole_video_margin": losses.whole_video_margin, "negative_margin": losses.negative_margin}

    def measure(self, model: PPS) -> dict[str, float]:
        """Returns means over the pairs and their standard errors; nothing for a single video, or features not finite.

        `nats`: C of the other video less C of the pair's own, of the proposal of smallest C, with the margins.
        `reward`: R of the answer to the pair's own video less that of the answer to the other, both against the curve
        of the pair's own video; the answer is the proposal of largest R, and curves come from maps that have not seen
        the pair. Each only where the model computes it.

        Args:
            model: in train mode, and left in it.
        """
        if len(self.samples) < 2:
            return {}
        size = self.config.train.batch_size
        model.eval()
        with torch.no_grad():
            parts = [self._gains(model, slice(first, first + size)) for first in range(0, len(self.samples), size)]
        model.train()
        gains: dict[str, float] = {}
        for name in parts[0]:
            gains |= _mean(name, torch.cat([part[name] for part in parts]).double().cpu())
        if "nats" in gains:
            gains |= self.margins
        # the step that meets a video whose features are not finite will name it
        return gains if all(math.isfinite(value) for value in gains.values()) else {}

    def line(self, model: PPS, step: int, epoch: int) -> dict[str, Any] | None:
        """Returns the measurement as a line of metrics.jsonl, None where there is nothing to measure."""
        gains = self.measure(model)
        if not gains:
            return None
        return {"step": step, "epoch": epoch, "split": self.split, "num_pairs": len(self.samples), "video_gain": gains}

    def warn(self, gains: dict[str, float]) -> None:
        """Says once, in words, that the margins exceed what the video tells.

        Warns:
            Note: see `too_little`.
        """
        text = None if self._has_warned else too_little(gains, self.split, len(self.samples))
        if text is not None:
            self._has_warned = True
            warnings.warn(Note(text), stacklevel=2)

    def _gains(self, model: PPS, rows: slice) -> dict[str, Tensor]:
        """Returns what each pair of a batch gains by its own video, [B] by the names of `measure`."""
        samples, seed = self.samples[rows], self.config.inference.seed
        batches = [self.store.batch(samples, seed=seed, videos=videos) for videos in (None, self._other_videos[rows])]
        matched, mixed = (model(batch, with_negatives=False, is_cross_fitted=True) for batch in batches)
        gains: dict[str, Tensor] = {}
        if self.config.reconstructs:
            gains["nats"] = mixed.positive_nll.amin(1) - matched.positive_nll.amin(1)
        if model.alignment is not None:
            curve = model.alignment(batches[0], is_cross_fitted=True)[:, model.kept]
            is_valid = torch.ones_like(curve, dtype=torch.bool)
            reward = model.alignment.reward(mixed.proposals.masks, curve, is_valid, self.config.backend)  # [B, K]
            answer = mixed.reward.argmax(1, keepdim=True)
            gains["reward"] = matched.reward.amax(1) - reward.gather(1, answer).squeeze(1)
        return gains


def _mean(name: str, differences: Tensor) -> dict[str, float]:
    """Returns mean and standard error of [P] differences by their names."""
    error = differences.std(correction=1) / len(differences) ** 0.5
    return {name: float(differences.mean()), f"{name}_error": float(error)}


def too_little(gains: dict[str, float], split: str, num_pairs: int) -> str | None:
    """Returns a sentence where both margins are larger than what the video tells by two standard errors, else None.

    Args:
        gains: what `VideoGain.measure` returns.
        split: of the pairs.
        num_pairs: P; nothing is said of fewer than ENOUGH_PAIRS.
    """
    margins = [gains[name] for name in ("whole_video_margin", "negative_margin") if name in gains]
    if num_pairs < ENOUGH_PAIRS or not margins or "nats" not in gains:
        return None
    nats, error = gains["nats"], gains["nats_error"]
    if nats + 2 * error >= min(margins):
        return None
    return (
        f"the model hardly looks at the video: with its own video a sentence is rebuilt only {nats:.3f} +- "
        f"{error:.3f} nats better than with another ({num_pairs} pairs of the {split} split), but the contrastive loss "
        f"asks for margins of {' and '.join(f'{margin:g}' for margin in margins)} nats between parts of one video, so "
        "that its moments are likely no better than guesses; train with an alignment, which does see the video (a "
        "preset with `align` in its name, or --losses.alignment 1 --inference.selector alignment), or fit one alone "
        "in seconds: python -m pps_fast.align"
    )
