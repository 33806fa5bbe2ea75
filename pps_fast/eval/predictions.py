"""Runs a model over samples, in batches whose shape depends on nothing but the samples.

Letters: M samples.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pps_fast.config import PPSConfig
from pps_fast.data.store import Store
from pps_fast.devices import free_memory_of
from pps_fast.distributed import ALONE, World
from pps_fast.eval.metrics import clip_prediction
from pps_fast.eval.predictor import Predictor, is_captured
from pps_fast.machine import note_memory
from pps_fast.predict import evaluation_batch_size
from pps_fast.types import Batch, Prediction


def predict_samples(
    model: nn.Module,
    store: Store,
    samples: np.ndarray,
    config: PPSConfig,
    *,
    videos: np.ndarray | None = None,
    progress: bool = False,
    world: World = ALONE,
    predictor: Predictor | None = None,
) -> Prediction:
    """Runs the model on M samples, negatives and dropout off, and selects their moments.

    Hidden words depend on `config.inference.seed` and the sample alone, and so does the shape of the batch it is in:
    samples with as many word columns go together, and every batch is filled up to `evaluation_batch_size` by
    repeating its last sample, whose further answers are dropped.

    Args:
        videos: [M] videos to pair the sentences with; their own when not given.
        world: processes that divide the batches among them; all of them get the same answers as one would.
        predictor: of this model and config, for what it has recorded; by default a new one.
    Returns:
        Prediction of the M samples in their order, on the CPU, moments clipped to [0, 1].
    Raises:
        ValueError: without samples, or for batches far beyond the free memory.
    """
    if len(samples) == 0:
        raise ValueError("predict_samples: no samples; choose a split that has samples")
    note_batch_memory(config, store)
    parts = []
    batches = _of_one_shape(store.num_columns(samples), evaluation_batch_size(config, store.device))
    # a process without a batch computes the first one, for the shapes of an answer
    mine = batches[world.place.rank :: world.size] or batches[:1]
    with (predictor or Predictor(model, config, store.device)).evaluating() as answer:
        in_turn = store.announced(mine, samples, videos)
        for members in tqdm(in_turn, "evaluate", len(mine), disable=None if progress else True, leave=False):
            batch = _filled_batch(store, samples, videos, members, config)
            parts.append(take(answer(batch), slice(len(members))))
    rows = np.concatenate(mine) if world.place.rank < len(batches) else np.arange(0)
    return clip_prediction(_complete(_join(parts), torch.from_numpy(rows), len(samples), world))


def _filled_batch(
    store: Store, samples: np.ndarray, videos: np.ndarray | None, members: np.ndarray, config: PPSConfig
) -> Batch:
    """Returns the batch of some of the samples, filled up with the last of them."""
    size = evaluation_batch_size(config, store.device)
    filled = members[np.minimum(np.arange(size), len(members) - 1)]
    paired = None if videos is None else videos[filled]
    return store.batch(samples[filled], seed=config.inference.seed, videos=paired)


def note_batch_memory(config: PPSConfig, store: Store) -> None:
    """Says, or refuses, where a batch of an evaluation needs more memory than is free; see `machine.note_memory`.

    Counted are its frames and, where sentences are rebuilt, the logits of all proposals: nothing in it is larger.
    """
    size, sizes = evaluation_batch_size(config, store.device), store.sizes
    # a captured batch is copied to where it is read from
    values = sizes.num_segments * sizes.frame_dim * (2 if is_captured(config, store.device) else 1)
    if config.method == "proposals" and config.reconstructs:
        values += config.proposals.num_proposals * store.data.word_ids.shape[1] * sizes.vocab_size
    what = f"an evaluation batch of {size:,} samples"
    note_memory(4 * size * values, free_memory_of(store.device), what, "lower inference.batch_size")


def _of_one_shape(num_columns: np.ndarray, size: int) -> list[np.ndarray]:
    """Divides positions 0 to M - 1 into batches of at most `size`, each with a single number of word columns.

    The largest come first, so that the memory of batches does not have to grow.
    """
    batches = []
    for columns in np.unique(num_columns)[::-1]:
        positions = np.flatnonzero(num_columns == columns)
        batches += [positions[start : start + size] for start in range(0, len(positions), size)]
    return batches


def take(prediction: Prediction, positions: Tensor | slice) -> Prediction:
    """Returns the prediction of some samples."""
    return Prediction(**{item.name: getattr(prediction, item.name)[positions] for item in fields(Prediction)})


def _join(parts: list[Prediction]) -> Prediction:
    """Returns the predictions of all batches as one, on the CPU."""
    return Prediction(
        **{item.name: torch.cat([getattr(part, item.name) for part in parts]).cpu() for item in fields(Prediction)}
    )


def _complete(part: Prediction, rows: Tensor, count: int, world: World) -> Prediction:
    """Returns the prediction of `count` samples from those of the processes' rows, [n] int64 positions of `part`."""
    whole = {}
    for item in fields(Prediction):
        values = getattr(part, item.name)
        whole[item.name] = values.new_zeros(count, *values.shape[1:])
        whole[item.name][rows] = values[: len(rows)]
        world.merge_(whole[item.name])
    return Prediction(**whole)
