"""Small models that can be asked: fitted or trained on planted data, loaded from their folders."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.presets import ALIGNED, PRESETS
from pps_fast.train.closed_form import fit_in_closed_form
from tests.support.eval_fakes import CONFIG, DATA, SPLITS
from tests.support.train_runs import run_small, small_config

_FOLDER = TemporaryDirectory(prefix="pps_fast_grounders_")
ALIGNMENT: PPSConfig = override(PRESETS["alignment"], {"data": CONFIG.data, "inference.num_bootstrap": 50})


def alignment_run(curve: str = "linear") -> Path:
    """Returns the run directory of an alignment that was fitted to `eval_fakes.DATA`."""
    return _alignment_run(curve)


@lru_cache
def _alignment_run(curve: str) -> Path:
    return fit(override(ALIGNMENT, {"alignment.curve": curve}), DATA, Path(_FOLDER.name) / curve)


def fit(config: PPSConfig, data: PreparedData, out: Path) -> Path:
    """Fits an alignment to a data set and returns its run directory."""
    splits = SPLITS if data is DATA else select_samples(data, config.data)
    fit_in_closed_form(config, Store(data), splits, out, resume=False, progress=False)
    return out


def color_run(folder: Path) -> Path:
    """Fits an alignment to features that name the toy encoder of colors as theirs, at 2 rows a second; needs PyAV."""
    from pps_fast.features.encoders import open_encoder
    from pps_fast.features.extract import Extractor

    extractor = Extractor(encoder=open_encoder("color"), fps=2.0)
    shape = (*DATA.features.shape[:2], extractor.encoder.width)
    frames = np.random.default_rng(0).random(shape).astype(np.float16)
    recipe = {"sources": [{"file": "f.h5", "extraction": extractor.recipe}]}
    fit_in_closed_form(
        ALIGNMENT, Store(replace(DATA, features=frames, recipe=recipe)), SPLITS, folder, resume=False, progress=False
    )
    return folder


@lru_cache
def network_run(method: str = "tiny") -> tuple[Path, PPSConfig]:
    """Returns run directory and config of a model with proposals, after one update: "tiny", "cpl_demo", "cnm_demo".

    "aligned" is "tiny" with an alignment in it, and enough videos to calibrate that.
    """
    tiny = {"encoder.hidden_dim": 16, "train.max_steps": 1}
    config = small_config(train__max_steps=1)
    if method == "aligned":
        config = override(config, {**ALIGNED, "train.max_steps": 1, "data.planted.num_videos": 24})
    elif method != "tiny":
        config = override(PRESETS[method], {**tiny, "data": config.data, "train.batch_size": 8})
    run = Path(_FOLDER.name) / method
    run_small(config, run)
    return run, config
