"""Zero-shot: cosines of frames and sentences as they are, refused where these are not of one encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast import PRESETS, override
from pps_fast.alignment.fit import fit_alignment
from pps_fast.alignment.model import Alignment
from pps_fast.alignment.zero_shot import joint_encoder
from pps_fast.config import AlignmentConfig, PlantedConfig
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data
from tests.support.compare import assert_agree

PLANTED = planted_data(PlantedConfig(num_videos=20, num_segments=20, frame_dim=6))
VECTORS = np.random.default_rng(0).standard_normal((PLANTED.num_samples, 6)).astype(np.float32)
DATA = replace(PLANTED, sentence_vectors=VECTORS)
OPTIONS = AlignmentConfig(map="identity", smoothing=0.0)


def test_the_curve_is_the_cosine_of_the_sentence_and_each_frame_whatever_the_training_pairs() -> None:
    alignment, samples = Alignment(OPTIONS, DATA.sizes), np.arange(5)
    alignment.take(fit_alignment(DATA, samples[:1], OPTIONS))
    curve = alignment(Store(DATA).batch(samples, seed=0))
    frames = torch.from_numpy(DATA.features[DATA.sample_video[samples]]).float()
    expected = torch.cosine_similarity(frames, torch.from_numpy(VECTORS[samples])[:, None], dim=2)
    assert_agree("curve", curve, expected, atol=1e-5)


def test_frames_and_sentences_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames have width 6, and there are no vectors of sentences; prepare"):
        fit_alignment(PLANTED, np.arange(5), OPTIONS)
    other = replace(DATA, sentence_vectors=VECTORS[:, :4])
    with pytest.raises(ValueError, match=r"frames have width 6, and there are vectors of width 4"):
        fit_alignment(other, np.arange(5), OPTIONS)


def test_options_of_a_fit_have_no_meaning_beside_it() -> None:
    override(PRESETS["alignment"], {"alignment.map": "identity", "alignment.reading": "window"})
    for name, value in {"curve": "standardized", "pooling": "once", "change": 0.4, "frame_ridge": 1.0}.items():
        with pytest.raises(ValueError, match=r"alignment.map = 'identity': expected reading and smoothing alone"):
            override(PRESETS["alignment"], {"alignment.map": "identity", f"alignment.{name}": value})


def test_one_encoder_of_both_is_a_joint_one() -> None:
    recipe = {"sources": [{"extraction": {"encoder": "a@1"}}], "sentence_vectors": {"encoder": "a@1"}}
    assert joint_encoder(recipe) == "a@1"
    assert joint_encoder({**recipe, "sentence_vectors": {"encoder": "b@1"}}) is None
    assert joint_encoder({**recipe, "sources": recipe["sources"] * 2}) is None
    assert joint_encoder({}) is None and joint_encoder({"sources": [{}], "sentence_vectors": {}}) is None
