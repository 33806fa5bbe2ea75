"""Features reach the networks as they are, centered, or standardized by the training videos, wherever a model goes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pps_fast
from pps_fast.data.statistics import frame_statistics
from pps_fast.encoder.embedding import Embedding
from pps_fast.encoder.frame_input import FRAME_INPUTS
from pps_fast.eval.predictions import predict_samples
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from tests.support.cases import SIZES, random_batch, randomize
from tests.support.cases import small_config as model_config
from tests.support.compare import assert_agree
from tests.support.model_folders import reseal
from tests.support.train_runs import run_small, small_config, small_input, weights

CONFIG = small_config(encoder__frames="standardized", train__max_steps=4)
STORE, SPLITS = small_input(CONFIG)
MEAN, SCALE = frame_statistics(STORE.data, SPLITS.train)


@pytest.mark.parametrize("choice", ["centered", "standardized"])
def test_the_embedding_takes_features_less_their_mean_over_their_scale(choice):
    batch = random_batch(dtype=torch.float64)
    mean, scale = torch.linspace(-2, 3, SIZES.frame_dim), torch.linspace(0.5, 4, SIZES.frame_dim)
    embed = randomize(Embedding(model_config(encoder__frames=choice), SIZES).double().eval())
    embed.frame_input.take(mean, scale)
    raw = randomize(Embedding(model_config(), SIZES).double().eval())
    raw.load_state_dict(embed.state_dict(), strict=False)
    divisor = scale if choice == "standardized" else 1.0
    by_hand = replace(batch, frames=(batch.frames - mean) / divisor)
    assert_agree("frames", embed.frames(batch, None), raw.frames(by_hand, None), atol=1e-12)


def test_a_constant_feature_becomes_zero_and_raw_features_have_no_statistics():
    standardized = FRAME_INPUTS["standardized"](2)
    standardized.take(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0]))
    got = standardized(torch.tensor([[[3.0, 5.0]]]))
    assert got.tolist() == [[[0.0, 2.0]]]
    assert not FRAME_INPUTS["raw"](2).state_dict()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standardized")
    run_small(CONFIG, folder)
    return folder


def test_a_run_takes_the_statistics_of_its_own_training_videos_and_keeps_them_once(run):
    folder = find_checkpoint(run)
    kept = load_file(folder / "statistics.safetensors")
    np.testing.assert_array_equal(kept["mean"], MEAN)
    np.testing.assert_array_equal(kept["scale"], SCALE)
    assert not [name for name in load_file(folder / "model.safetensors") if "frame_input" in name]
    model, _, _ = load_model(run)
    np.testing.assert_array_equal(model.embed.frame_input.scale, SCALE)


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(run, tmp_path):
    run_small(replace(CONFIG, train=replace(CONFIG.train, max_steps=2)), tmp_path)
    run_small(CONFIG, tmp_path, resume=True)
    assert weights(tmp_path) == weights(run)


def test_evaluation_and_grounding_read_the_statistics_of_the_folder(run, tmp_path):
    folder = shutil.copytree(find_checkpoint(run), tmp_path / "moved")
    sample = SPLITS.test[:1]
    video = STORE.data.sample_video[sample[0]]

    def answers() -> tuple[np.ndarray, float]:
        model, config, _ = load_model(folder)
        asked = pps_fast.load(folder).ground(STORE.data.features[video], STORE.data.sentences[sample[0]])
        return predict_samples(model, STORE, sample, config).spans.numpy(), asked[0].start

    before = answers()
    save_file({"mean": torch.from_numpy(MEAN) - 5, "scale": torch.from_numpy(SCALE)}, folder / "statistics.safetensors")
    reseal(folder)
    after = answers()
    assert np.abs(before[0] - after[0]).max() > 1e-4 and before[1] != after[1]


def test_a_folder_without_its_statistics_is_refused_by_the_name_of_the_file(run, tmp_path):
    folder = shutil.copytree(find_checkpoint(run), tmp_path / "moved")
    save_file({"mean": torch.from_numpy(MEAN)}, folder / "statistics.safetensors")
    reseal(folder)
    with pytest.raises(ValueError, match=r"does not fit the config beside it: no tensor embed.frame_input.scale"):
        load_model(folder)
    (folder / "statistics.safetensors").unlink()
    with pytest.raises(ValueError, match=r"statistics.safetensors: missing"):
        load_model(folder)
