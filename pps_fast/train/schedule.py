"""The learning rate of every update: linear warm-up, then the inverse square root of the update."""

from __future__ import annotations

import math

from pps_fast.config import TrainConfig


def learning_rate(update: int, config: TrainConfig) -> float:
    """Returns the learning rate after `update` finished updates, that is, the rate of update number `update + 1`.

    With w = warmup_updates: warmup_learning_rate + update * (learning_rate - warmup_learning_rate) / w below w,
    learning_rate * sqrt(w / update) from w on. The two pieces meet at w.

    Args:
        update: updates done so far, 0 or more.
        config: its `learning_rate`, `warmup_updates` and `warmup_learning_rate`.

    Raises:
        ValueError: for a negative update.
    """
    if update < 0:
        raise ValueError(f"learning_rate: update = {update}: expected the number of updates done so far, 0 or more")
    if update < config.warmup_updates:
        slope = (config.learning_rate - config.warmup_learning_rate) / config.warmup_updates
        return config.warmup_learning_rate + update * slope
    return config.learning_rate * math.sqrt(config.warmup_updates / update)
