"""What the video tells a model is measured without a trace in the training, and too little of it is said."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.files import Note
from pps_fast.model import PPS
from pps_fast.presets import ALIGNED, PRESETS
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.train.cross_fit import begin_alignment
from pps_fast.train.loop import train
from pps_fast.train.video_gain import VideoGain, one_pair_per_video, too_little
from tests.support.compare import assert_agree
from tests.support.train_runs import STEPS_PER_EPOCH, run_small, small_config, small_input, weights

BOTH = {"losses.alignment": 1.0, "inference.selector": "alignment", "encoder.curve": "added"}
MARGINS = {"whole_video_margin": 0.1, "negative_margin": 0.15}
# learns to look at the video in three epochs, where it shows anything
PLANTED = override(
    PRESETS["tiny"],
    {
        "encoder.hidden_dim": 64, "encoder.dropout": 0.0, "reconstructor.stride": 1, "proposals.num_proposals": 2,
        "data.planted.num_videos": 200, "data.planted.frame_dim": 32, "data.planted.noise": 0.0,
        "data.validation_fraction": 0.25, "train.batch_size": 16, "train.learning_rate": 3e-3,
        "train.warmup_updates": 20, "train.epochs": 3, "train.checkpoint_every": 1000,
    },
)  # fmt: skip
_FOLDER = TemporaryDirectory(prefix="pps_fast_video_gain_")


@lru_cache
def _trained(is_random: bool) -> tuple[list[dict[str, float]], list[str]]:
    """Gains after each epoch, and the notes, of a training on planted videos or on random numbers in their place."""
    data = load_data(PLANTED.data)
    if is_random:
        noise = np.random.default_rng(0).normal(size=data.features.shape)
        data = replace(data, features=noise.astype(np.float16))
    run = Path(_FOLDER.name) / str(is_random)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        train(PLANTED, Store(data), select_samples(data, PLANTED.data), run, progress=False)
    gains = [line["video_gain"] for line in read_metrics(run) if "video_gain" in line]
    return gains, [str(note.message) for note in caught if issubclass(note.category, Note)]


def test_where_the_video_shows_the_sentence_its_gain_grows_beyond_the_margins_and_nothing_is_said():
    gains, notes = _trained(is_random=False)
    assert len(gains) == 3 and gains[-1]["nats"] > 0.15 + 2 * gains[-1]["nats_error"]
    assert gains[0]["nats"] < gains[-1]["nats"] and notes == []


def test_random_features_gain_nothing_and_that_is_said_once():
    gains, notes = _trained(is_random=True)
    assert all(abs(gain["nats"]) < 3 * gain["nats_error"] < 0.15 for gain in gains)
    assert len(notes) == 1
    assert notes[0].startswith("the model hardly looks at the video: ")
    assert "40 pairs of the validation split" in notes[0] and "python -m pps_fast.align" in notes[0]


def _prepared(**changes: object) -> tuple[PPSConfig, Store, VideoGain, PPS]:
    """A model with random weights and, where it has one, a fitted alignment."""
    config = override(small_config(), dict(changes))
    store, splits = small_input(config)
    torch.manual_seed(3)
    model = PPS(config, store.sizes).train()
    begin_alignment(model, store, splits.train, is_fitted=False, progress=False)
    return config, store, VideoGain(config, store, splits), model


@pytest.mark.parametrize("batch_size", [3, 8])
def test_gains_are_those_of_one_pair_after_the_other(batch_size):
    config, store, gain, model = _prepared(**{**BOTH, "train.batch_size": batch_size})
    videos = store.data.sample_video
    differences = []
    for number, sample in enumerate(gain.samples):
        model.eval()
        outputs = []
        for video in (videos[sample], videos[gain.samples[number - 1]]):
            batch = store.batch(np.array([sample]), seed=config.inference.seed, videos=np.array([video]))
            with torch.no_grad():
                outputs.append(model(batch, with_negatives=False, is_cross_fitted=True))
        matched, mixed = outputs
        nats = mixed.positive_nll.min() - matched.positive_nll.min()
        # the answer to the other video, against the curve of the pair's own
        curve = model.alignment(store.batch(np.array([sample]), seed=0), is_cross_fitted=True)[0, model.kept].numpy()
        zeta = (curve - curve.mean()) / curve.std()
        answers = [output.proposals.masks[0, output.reward.argmax()].numpy() for output in (matched, mixed)]
        rewards = [float((mask * zeta).sum() / ((mask**2).sum() + 1e-10) ** 0.25) for mask in answers]
        differences.append([nats.item(), rewards[0] - rewards[1]])
    got = gain.measure(model.train())
    expected, spread = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / len(differences) ** 0.5
    assert_agree("means", torch.tensor([got["nats"], got["reward"]]), torch.tensor(expected).float(), atol=2e-5)
    errors = torch.tensor([got["nats_error"], got["reward_error"]])
    assert_agree("errors", errors, torch.tensor(spread).float(), atol=2e-5)
    assert {name: got[name] for name in MARGINS} == MARGINS
    assert model.training


def test_the_curve_of_a_pair_comes_from_a_map_that_has_not_seen_it():
    _, store, gain, model = _prepared(**BOTH)
    before = gain.measure(model)
    # the map of all pairs, which an evaluation takes, has no part in it
    model.alignment.maps[-1] = torch.randn_like(model.alignment.maps[-1])
    assert gain.measure(model) == before
    model.alignment.maps[0] = torch.randn_like(model.alignment.maps[0])
    assert gain.measure(model) != before


def test_only_what_the_model_computes_is_measured():
    assert set(_prepared()[2].measure(_prepared()[3])) == {"nats", "nats_error", *MARGINS}
    _, _, gain, model = _prepared(**ALIGNED)
    assert set(gain.measure(model)) == {"reward", "reward_error"}
    _, _, gain, model = _prepared(**{"losses.contrastive": 0.0})
    assert set(gain.measure(model)) == {"nats", "nats_error"}


@pytest.mark.parametrize("changes", [{}, BOTH], ids=["reconstruction", "alignment"])
def test_training_is_the_same_to_the_bit_without_the_measurement(changes, tmp_path, monkeypatch):
    config = override(small_config(train__epochs=3), changes)
    run_small(config, tmp_path / "measured")
    measured = read_metrics(tmp_path / "measured")
    monkeypatch.setattr(VideoGain, "line", lambda *arguments: None)
    run_small(config, tmp_path / "plain")
    assert weights(tmp_path / "measured") == weights(tmp_path / "plain")
    plain = read_metrics(tmp_path / "plain")
    assert [line["loss"] for line in measured if "loss" in line] == [line["loss"] for line in plain]


def test_every_epoch_and_the_last_step_have_a_line_and_a_resumed_run_has_the_same(tmp_path):
    last = 2 * STEPS_PER_EPOCH + 1
    run_small(small_config(train__max_steps=last, train__epochs=9), tmp_path / "whole")
    run_small(small_config(train__max_steps=STEPS_PER_EPOCH, train__epochs=9), tmp_path / "parts")
    run_small(small_config(train__max_steps=last, train__epochs=9), tmp_path / "parts", resume=True)
    whole, parts = (
        [line for line in read_metrics(tmp_path / name) if "video_gain" in line] for name in ("whole", "parts")
    )
    assert whole == parts
    assert [(line["step"], line["epoch"]) for line in whole] == [(6, 1), (12, 2), (13, 3)]
    assert {(line["split"], line["num_pairs"]) for line in whole} == {("train", 8)}


def test_pairs_are_those_of_the_validation_split_where_there_is_one():
    config = small_config(data__validation_fraction=0.4)
    store, splits = small_input(config)
    gain = VideoGain(config, store, splits)
    assert gain.split == "validation" and set(gain.samples) <= set(splits.validation)
    assert len(gain.samples) == len(np.unique(store.data.sample_video[splits.validation])) == 3


def test_each_video_has_its_first_pair_and_many_videos_are_thinned_evenly():
    sample_video = np.array([4, 4, 0, 2, 0, 2, 7, 9])
    samples = np.array([1, 2, 3, 4, 5, 6, 7])
    assert one_pair_per_video(sample_video, samples).tolist() == [2, 3, 1, 6, 7]
    assert one_pair_per_video(sample_video, samples, limit=3).tolist() == [2, 1, 7]


def test_one_video_alone_or_features_that_are_not_finite_have_no_line():
    config, store, _, model = _prepared()
    splits = small_input(config)[1]
    one = splits.train[store.data.sample_video[splits.train] == store.data.sample_video[splits.train[0]]]
    assert VideoGain(config, store, replace(splits, train=one)).line(model, 1, 1) is None
    features = store.data.features.copy()
    features[store.data.sample_video[splits.train[0]]] = float("nan")
    broken = Store(replace(store.data, features=features))
    assert VideoGain(config, broken, splits).line(model, 1, 1) is None


GAIN = {"nats": 0.05, "nats_error": 0.02, **MARGINS}


@pytest.mark.parametrize(
    ("gains", "num_pairs", "is_said"),
    [
        (GAIN, 32, True),
        ({**GAIN, "nats": 0.07}, 32, False),
        ({**GAIN, "whole_video_margin": 0.3, "negative_margin": 0.08}, 32, False),
        (GAIN, 31, False),
        ({"nats": 0.05, "nats_error": 0.02}, 64, False),
        ({"reward": 0.0, "reward_error": 0.1}, 64, False),
    ],
    ids=["below", "within two errors", "above the smaller margin", "few pairs", "no margins", "no reconstruction"],
)
def test_a_gain_is_too_little_below_both_margins_by_two_errors(gains, num_pairs, is_said):
    text = too_little(gains, "train", num_pairs)
    assert (text is not None) == is_said
    if text:
        assert "0.050 +- 0.020 nats" in text and "32 pairs of the train split" in text and "0.1 and 0.15" in text


def test_a_line_is_json(tmp_path):
    run_small(small_config(train__max_steps=1), tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert list(json.loads(text)) == ["step", "epoch", "split", "num_pairs", "video_gain"]
