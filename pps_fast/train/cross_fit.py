"""The alignment inside a model of proposals: fitted before the first update, read by maps that have not seen a pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pps_fast.alignment.confidence import fit_confidence
from pps_fast.alignment.fit import fit_alignment, part_of_pairs
from pps_fast.data.store import Store
from pps_fast.model import PPS
from pps_fast.runs.model_folder import ModelInputs, inputs_of


def begin_alignment(model: PPS, store: Store, samples: np.ndarray, *, is_fitted: bool, progress: bool) -> None:
    """Fits the model's alignment to training pairs, and has the store's batches say which map scores a pair.

    In training a pair is scored by the map that was fitted without its video's part; samples that do not train would
    be scored by the map of all pairs. A model without an alignment needs neither.

    Args:
        samples: [P] int64 training pairs.
        is_fitted: leave out the fit, as that of a checkpoint follows.
        progress: show on stderr how far the fit is.
    """
    if model.alignment is None:
        return
    options = model.config.alignment
    parts = np.full(store.data.num_samples, options.parts)
    parts[samples] = part_of_pairs(store.data.sample_video[samples], options.parts)
    store.set_parts(parts)
    if not is_fitted:
        model.alignment.take(fit_alignment(store.data, samples, options, store.device, progress=progress))


def inputs_of_model(model: PPS, store: Store, samples: np.ndarray) -> ModelInputs:
    """Returns what a model needs besides its weights: with the confidence of its alignment, where it has one.

    Args:
        model: with its alignment fitted.
        samples: [P] int64 training pairs.
    """
    inputs = inputs_of(store.data, samples)
    if model.alignment is None:
        return inputs
    return replace(inputs, confidence=fit_confidence(model.alignment, store.data, samples))
