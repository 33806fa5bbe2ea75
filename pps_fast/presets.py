"""Named configs. Each is a list of field overrides of another, so that it says only what it changes."""

from __future__ import annotations

from typing import Any

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override

# what the published code computes differently from the paper (all data sets)
RELEASED: dict[str, Any] = {
    "generator.width_source": "across_batch",
    "proposals.mask_shape": "gaussian_peak",
    "proposals.negatives.mask_shape": "gaussian_peak",
    "reconstructor.word_cls": "scalar_per_batch_position",
    "reconstructor.target_length": "plus_one",
    "losses.reconstruction": 0.5,
    "losses.push_single": False,
}

ACTIVITYNET: dict[str, Any] = {
    "proposals.num_proposals": 5,
    "proposals.sigma": 4.0,
    "proposals.boundary_shrink": 0.15,
    "proposals.negatives.num_components": 2,
    "proposals.negatives.sigma": 4.0,
    "losses.contrastive": 1.0,
    "losses.pull": 0.2,
    "losses.push_intra": 0.01,
    "losses.push_inter": 0.1,
    "inference.selector": "vote",
    "inference.iou_thresholds": (0.1, 0.3, 0.5),
}

# the weights of the published training scripts, whose results the authors list separately
CHARADES_RESCALED: dict[str, Any] = {"losses.push_inter": 3.0, "losses.push_intra": 0.0012}
ACTIVITYNET_RESCALED: dict[str, Any] = {"losses.push_inter": 0.2, "losses.push_intra": 0.005}

SMALL: dict[str, Any] = {
    "encoder.hidden_dim": 64,
    "generator.num_layers": 2,
    "reconstructor.num_layers": 2,
    "proposals.num_proposals": 3,
}

# 32 positions and a small sigma: components as wide as the planted moments, a sixth of the video, then sit near
# the push target; without dropout it learns in fewer steps
DEMO: dict[str, Any] = {
    **SMALL,
    "encoder.dropout": 0.0,
    "data.planted.num_segments": 32,
    "reconstructor.stride": 1,
    "proposals.sigma": 2.0,
    "proposals.negatives.sigma": 2.0,
    "train.learning_rate": 1e-3,
    "train.warmup_updates": 50,
    "train.epochs": 4,
}

CLIP_SMALL: dict[str, Any] = {
    **SMALL,
    "train.learning_rate": 1e-3,
    "train.warmup_updates": 100,
    "train.epochs": 6,
}

TINY: dict[str, Any] = {
    **SMALL,
    "encoder.hidden_dim": 16,
    "generator.num_layers": 1,
    "reconstructor.num_layers": 1,
    "data.planted.num_videos": 20,
    "data.planted.num_segments": 16,
    "data.planted.frame_dim": 8,
    "train.batch_size": 8,
    "train.epochs": 2,
    "train.warmup_updates": 5,
    "train.learning_rate": 1e-3,
    "inference.num_bootstrap": 50,
}


def _build() -> dict[str, PPSConfig]:
    paper = PPSConfig()
    charades = paper
    activitynet = override(paper, ACTIVITYNET)
    charades_released = override(charades, RELEASED)
    activitynet_released = override(activitynet, {**RELEASED, "proposals.negatives.sigma": 3.0})
    return {
        "demo": override(paper, DEMO),
        "tiny": override(paper, TINY),
        "charades": charades,
        "activitynet": activitynet,
        "charades_released": charades_released,
        "activitynet_released": activitynet_released,
        "charades_rescaled": override(charades_released, CHARADES_RESCALED),
        "activitynet_rescaled": override(activitynet_released, ACTIVITYNET_RESCALED),
        "charades_clip": charades,
        "charades_clip_small": override(charades, CLIP_SMALL),
    }


PRESETS: dict[str, PPSConfig] = _build()
