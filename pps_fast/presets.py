"""Named configs. Each is a list of field overrides of another, so that it says only what it changes.

CPL and CNM are such lists too: applied to the preset of any data set, they make it theirs. What their papers and
published code leave open is PPS's: widths and depths, dropout, learning rate and its warm-up.
"""

from __future__ import annotations

import difflib
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

# CPL (CVPR 2022) with its numbers for Charades-STA: one Gaussian per proposal, two easy negatives for each, one
# transformer. The number of proposals is the base's
CPL: dict[str, Any] = {
    "generator.width_source": "per_component",
    "proposals.layout": "uniform",
    "proposals.components_per_proposal": 1,
    "proposals.mask_shape": "gaussian_peak",
    "proposals.sigma": 9.0,
    "proposals.boundary_shrink": 0.0,
    "proposals.negatives.kind": "sides_apart",
    # half of the positives'
    "proposals.negatives.sigma": 4.5,
    "proposals.negatives.curriculum": 0.5,
    "reconstructor.shares_generator": True,
    "reconstructor.word_cls": "none",
    "reconstructor.word_tokens": "reused",
    "losses.reconstruction": 0.5,
    "losses.contrastive": 1.0,
    "losses.pull": 0.0,
    "losses.push_intra": 0.0,
    "losses.push_inter": 5.0,
    "losses.push_inter_target": 0.146,
    # its code has votes as an option: 'vote_iou_weighted' on Charades-STA, 'vote' on ActivityNet
    "inference.selector": "lowest_loss",
}
CPL_CHARADES: dict[str, Any] = {"proposals.num_proposals": 8}
CPL_ACTIVITYNET: dict[str, Any] = {
    "proposals.num_proposals": 8,
    "proposals.negatives.curriculum": 0.0,
    "losses.contrastive": 2.0,
    "losses.push_inter": 0.1,
    "losses.push_inter_target": 0.13,
}

# CNM (AAAI 2022) with its numbers for Charades-STA: one Gaussian, 1 - it as the easy negative, one transformer, and
# updates of the mask head by the contrastive loss alone
CNM: dict[str, Any] = {
    "encoder.frame_summary": "last_frame",
    "generator.width_source": "per_component",
    "generator.max_width": 0.45,
    "proposals.num_proposals": 1,
    "proposals.layout": "uniform",
    "proposals.components_per_proposal": 1,
    "proposals.mask_shape": "gaussian",
    # its mask is exp(-alpha d^2 / width^2), alpha = 5.5
    "proposals.sigma": 5.5**0.5,
    "proposals.width_floor": 0.1,
    "proposals.boundary_shrink": 0.0,
    "proposals.negatives.kind": "complement",
    "reconstructor.shares_generator": True,
    "reconstructor.word_cls": "none",
    "reconstructor.word_tokens": "reused",
    "losses.reconstruction": 1.0,
    "losses.contrastive": 1.0,
    "losses.pull": 0.0,
    "losses.push_intra": 0.0,
    "losses.push_inter": 0.0,
    "inference.selector": "lowest_loss",
    "train.update": "alternating",
}
CNM_CHARADES: dict[str, Any] = {"train.batch_size": 128, "train.epochs": 50}
CNM_ACTIVITYNET: dict[str, Any] = {
    "generator.max_width": 1.0,
    "proposals.sigma": 5.0**0.5,
    "train.batch_size": 128,
    "train.epochs": 30,
}

# fields that only these variants of published code change: the help lists them apart
VARIANT_FIELDS: tuple[str, ...] = (
    "encoder.frame_summary",
    "generator.width_source",
    "generator.max_width",
    "proposals.negatives.curriculum",
    "reconstructor.shares_generator",
    "reconstructor.word_cls",
    "reconstructor.word_tokens",
    "reconstructor.target_length",
    "losses.push_single",
    "train.update",
)


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

# masks as wide as the demo's, which are exp(-d^2) and not exp(-d^2 / 2)
CPL_DEMO: dict[str, Any] = {"proposals.sigma": 8.0**0.5, "proposals.negatives.sigma": 2.0**0.5}

CLIP_SMALL: dict[str, Any] = {
    **SMALL,
    "train.learning_rate": 1e-3,
    "train.warmup_updates": 100,
    "train.epochs": 6,
}

# PPS trained by the rewards of its masks against the curve of a closed-form alignment, which is the generator's input
# and selects. Nothing is rebuilt, because on real features that hardly depends on the video; the ablation `alignment`
# has rows with it. With sigma = sqrt(8), center -+ width / 2 is where a single mask is e^-2: the interval that is read
# is the mask that is trained
ALIGNED: dict[str, Any] = {
    "encoder.curve": "only",
    "proposals.sigma": 8.0**0.5,
    "proposals.boundaries": "mask_level",
    "reconstructor.stride": 1,
    "reconstructor.importance": "generator",
    "losses.reconstruction": 0.0,
    "losses.contrastive": 0.0,
    "losses.alignment": 1.0,
    "inference.selector": "alignment",
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


# the closed-form alignment of sentences and frames, without any network; five moments, ranked by reward
ALIGNMENT: dict[str, Any] = {
    "method": "alignment",
    "proposals.num_proposals": 5,
    "proposals.layout": "uniform",
    "inference.selector": "lowest_loss",
    "inference.batch_size": 128,
}


# both chosen on folds 0 and 1 of Charades-STA's test videos with CLIP features
ALIGNMENT_PRIORS: dict[str, Any] = {
    "alignment.curve": "standardized",
    "alignment.position_prior": 0.2,
    "alignment.duration_prior": 0.5,
}
ALIGNMENT_CHANGES: dict[str, Any] = {
    **ALIGNMENT_PRIORS,
    "alignment.change": 0.4,
    "alignment.parts": 8,
    "alignment.pooling_curve": "standardized",
    "alignment.sharpness": 2.5,
}


def _build() -> dict[str, PPSConfig]:
    paper = PPSConfig()
    charades = paper
    activitynet = override(paper, ACTIVITYNET)
    charades_released = override(charades, RELEASED)
    activitynet_released = override(activitynet, {**RELEASED, "proposals.negatives.sigma": 3.0})
    small = override(charades, CLIP_SMALL)
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
        "charades_clip_small": small,
        "alignment": override(paper, ALIGNMENT),
        "alignment_priors": override(paper, {**ALIGNMENT, **ALIGNMENT_PRIORS}),
        "alignment_changes": override(paper, {**ALIGNMENT, **ALIGNMENT_CHANGES}),
        "alignment_demo": override(paper, {"data.planted.num_segments": 32, **ALIGNMENT}),
        "charades_align": override(charades, ALIGNED),
        "charades_clip_align_small": override(small, ALIGNED),
        "activitynet_align": override(activitynet, ALIGNED),
        "align_demo": override(paper, {**DEMO, **ALIGNED}),
        "cpl": override(charades, {**CPL, **CPL_CHARADES}),
        "cpl_activitynet": override(activitynet, {**CPL, **CPL_ACTIVITYNET}),
        "cpl_charades_clip_small": override(small, CPL),
        "cpl_demo": override(paper, {**DEMO, **CPL, **CPL_DEMO}),
        "cnm": override(charades, {**CNM, **CNM_CHARADES}),
        "cnm_activitynet": override(activitynet, {**CNM, **CNM_ACTIVITYNET}),
        "cnm_charades_clip_small": override(small, CNM),
        # trains, but stays at the level of a fixed interval: its mask goes to the largest width, whatever the query
        "cnm_demo": override(paper, {**DEMO, **CNM}),
    }


class UnknownPresetError(KeyError):
    """A name that no preset has; says which one was perhaps meant."""

    def __str__(self) -> str:
        # a KeyError would show the quoted representation of its message
        return str(self.args[0])


class Presets(dict[str, PPSConfig]):
    """The presets by name; a name that is none of them is refused in words."""

    def __missing__(self, name: str) -> PPSConfig:
        close = difflib.get_close_matches(str(name), self, 1)
        perhaps = f"perhaps {close[0]}; " if close else ""
        raise UnknownPresetError(f"no preset {name!r}: {perhaps}the presets are {', '.join(self)}")


PRESETS: dict[str, PPSConfig] = Presets(_build())

# presets that train on the data embedded in the package; the others are for prepared files
EMBEDDED_DATA = tuple(name for name in PRESETS if name in ("demo", "tiny") or name.endswith("_demo"))
