"""Divides the samples of an epoch into batches.

Letters: M samples of an epoch.
"""

from __future__ import annotations

import numpy as np

from pps_fast.randomness import counter_hash


def epoch_batches(samples: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Returns the batches of one epoch, every sample in exactly one of them.

    The order is a function of (seed, epoch) and of the set of samples alone, so a resumed run continues at the same
    batch.

    Args:
        samples: [M] int64 distinct sample indices.
        batch_size: at least 1; the last batch is smaller where it does not divide M.
        seed: of the run.
        epoch: number of the pass over the data, from 0.
    Returns:
        ceil(M / batch_size) int64 arrays; none for no samples.
    Raises:
        ValueError: for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"epoch_batches: batch_size = {batch_size}: expected at least 1")
    samples = np.sort(np.asarray(samples, dtype=np.int64))
    shuffled = samples[np.argsort(counter_hash(seed, epoch, samples), kind="stable")]
    return [shuffled[first : first + batch_size] for first in range(0, len(shuffled), batch_size)]
