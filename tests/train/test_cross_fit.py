"""The alignment of a model: fitted when a training begins, kept in its checkpoints, restored on resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.alignment.confidence import fit_confidence
from pps_fast.alignment.fit import fit_alignment, part_of_pairs
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.model import PPS
from pps_fast.presets import ALIGNED
from pps_fast.runs.answering import read_confidence
from pps_fast.runs.checkpoint import find_checkpoint, load_pps
from pps_fast.train import cross_fit
from pps_fast.train.cross_fit import begin_alignment, inputs_of_model
from tests.support.compare import assert_agree
from tests.support.train_runs import run_small, small_config, small_input, weights


def _config(**changes: object) -> PPSConfig:
    return override(small_config(**changes), {**ALIGNED, "train.epochs": 1})


def test_a_run_fits_the_training_pairs_and_keeps_the_fit(tmp_path: Path) -> None:
    config = _config()
    store, splits = small_input(config)
    run_small(config, tmp_path / "run")
    fitted = fit_alignment(store.data, splits.train, config.alignment)
    assert "alignment.safetensors" in weights(tmp_path / "run")
    loaded, _, _ = load_pps(tmp_path / "run")
    for name, value in vars(fitted).items():
        assert torch.equal(getattr(loaded.alignment, name), value), name


def test_parts_are_those_of_the_fit_and_no_others() -> None:
    config = _config()
    store, splits = small_input(config)
    begin_alignment(PPS(config, store.sizes), store, splits.train, is_fitted=True, progress=False)
    every = np.arange(store.data.num_samples)
    parts = store.batch(every, seed=0).part
    expected = part_of_pairs(store.data.sample_video[splits.train], 4)
    assert_agree("train", parts[splits.train], torch.from_numpy(expected))
    assert set(parts[splits.test].tolist()) == {4}


def test_a_resumed_run_ends_bit_for_bit_and_fits_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config()
    run_small(config, tmp_path / "whole")
    run_small(override(config, {"train.max_steps": 3}), tmp_path / "part")
    text = (tmp_path / "part" / "config.json").read_text()
    (tmp_path / "part" / "config.json").write_text(text.replace('"max_steps": 3', '"max_steps": null'))

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("fitted")

    monkeypatch.setattr(cross_fit, "fit_alignment", refuse)
    run_small(config, tmp_path / "part", resume=True)
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="fitted"):
        run_small(config, tmp_path / "new")


def test_a_model_without_an_alignment_needs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    store, splits = small_input(config)
    begin_alignment(PPS(config, store.sizes), store, splits.train, is_fitted=False, progress=False)
    assert store.batch(splits.train[:2], seed=0).part is None
    assert inputs_of_model(PPS(config, store.sizes), store, splits.train).confidence is None


def test_a_model_with_an_alignment_keeps_how_sure_that_is_also_when_it_is_resumed(tmp_path: Path) -> None:
    config = _config(data__planted__num_videos=24)
    store, splits = small_input(config)
    run_small(override(config, {"train.max_steps": 3}), tmp_path / "run")
    expected = fit_confidence(load_pps(tmp_path / "run")[0].alignment, store.data, splits.train)
    assert expected is not None and read_confidence(find_checkpoint(tmp_path / "run")) == expected
    text = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(text.replace('"max_steps": 3', '"max_steps": 5'))
    run_small(override(config, {"train.max_steps": 5}), tmp_path / "run", resume=True)
    assert read_confidence(find_checkpoint(tmp_path / "run")) == expected
