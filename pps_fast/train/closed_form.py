"""Fits a model that has a closed form, and leaves a run directory like that of a training."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from pps_fast.alignment.confidence import fit_confidence
from pps_fast.alignment.fit import fit_alignment
from pps_fast.alignment.model import AlignmentModel
from pps_fast.config import PPSConfig
from pps_fast.data.identity import describe_data
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.files import Note
from pps_fast.runs.answering import read_confidence
from pps_fast.runs.checkpoint import Header, load_weights, read_header, save_checkpoint
from pps_fast.runs.environment import environment
from pps_fast.runs.lock import owning
from pps_fast.runs.model_folder import inputs_of
from pps_fast.runs.pointers import point
from pps_fast.runs.run_directory import open_run, rewrite_deleted
from pps_fast.train.loop import TrainResult

SUFFICIENT_PAIRS = 735
"""the fewest training pairs of real videos that were tried, by an earlier recipe whose results are not kept here"""


def fit_in_closed_form(
    config: PPSConfig, store: Store, splits: Splits, directory: str | Path, *, resume: bool, progress: bool
) -> TrainResult:
    """Fits an alignment to `splits.train` and leaves config and checkpoint in `directory`.

    Args:
        store: data on the device that fits.
        directory: run directory; empty or new without `resume`.
        resume: take the fitted model in the directory, or fit where there is none yet.
        progress: show on stderr how far the fit is.
    Raises:
        ValueError: for a run directory that cannot be used or is in use.
    Warns:
        Note: for fewer pairs than were seen to suffice.
    """
    run, data = Path(directory), describe_data(store.data)
    model = AlignmentModel(config, store.sizes).to(store.device).eval()
    header = _header(config, store, data)
    with owning(run) as lock:
        checkpoint = open_run(run, config, data, store.device.type, resume)
        if checkpoint is None:
            header = replace(header, elapsed_s=_fit(model, store, splits, config, progress))
            confidence = fit_confidence(model.alignment, store.data, splits.train)
        else:
            load_weights(checkpoint, model)
            header, confidence = read_header(checkpoint), read_confidence(checkpoint)

        def save() -> None:
            inputs = replace(inputs_of(store.data, splits.train), confidence=confidence)
            saved = save_checkpoint(run, model, {}, header, inputs)
            point(run, "latest", saved, step=0)

        def ensure_saved() -> None:
            if rewrite_deleted(run, config, lock):
                save()

        if checkpoint is None:
            save()
    return TrainResult(model=model, step=0, stopped_by=None, ensure_saved=ensure_saved)


def _fit(model: AlignmentModel, store: Store, splits: Splits, config: PPSConfig, progress: bool) -> float:
    """Fits the model's alignment and returns how many seconds that took."""
    _warn_of_few_pairs(len(splits.train), config)
    began = time.perf_counter()
    model.alignment.take(fit_alignment(store.data, splits.train, config.alignment, store.device, progress=progress))
    return time.perf_counter() - began


def _header(config: PPSConfig, store: Store, data: dict[str, Any]) -> Header:
    return Header(
        step=0,
        epoch=0,
        batch=0,
        elapsed_s=0.0,
        device=store.device.type,
        config=config,
        sizes=store.sizes,
        data=data,
        environment=environment(),
    )


def _warn_of_few_pairs(count: int, config: PPSConfig) -> None:
    is_fitted = config.alignment.map == "fitted"
    if is_fitted and count < SUFFICIENT_PAIRS and config.data.path is not None:
        text = (
            f"{count} training pairs: on real videos {SUFFICIENT_PAIRS} were seen to suffice for an alignment, and "
            "fewer were not tried; more pairs, also without times, make it better"
        )
        warnings.warn(text, Note, stacklevel=4)
