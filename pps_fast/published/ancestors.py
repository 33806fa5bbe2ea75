"""Names and settings of the published CPL (minghangz/cpl) and CNM (minghangz/cnm), for `weights`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pps_fast.config import PPSConfig
from pps_fast.presets import CNM, CPL

# published name -> ours, for parameters of one shape
_BOTH = {
    "mask_vec": "embed.hidden_word",
    "start_vec": "embed.start_word",
    "frame_fc": "embed.frame_projection",
    "word_fc": "embed.word_projection",
}
PLAIN = {
    "CPL": {**_BOTH, "pred_vec": "embed.frame_cls", "fc_comp": "reconstruct.vocabulary"},
    "CNM": {**_BOTH, "fc_rec": "reconstruct.vocabulary"},
}
# centers and widths of all proposals
HEADS = {"CPL": "fc_gauss", "CNM": "fc_mask_gen"}
# our stack -> theirs, in which decoder1 reads frames and decoder2 words
STACKS = {"generator.word_stack": "trans.decoder2", "generator.video_stack": "trans.decoder1"}


def family_of(config: PPSConfig) -> str:
    """Returns which published code has the modules of a config: PPS, CPL or CNM."""
    if not config.reconstructor.shares_generator:
        return "PPS"
    return "CNM" if config.encoder.frame_summary == "last_frame" else "CPL"


def ancestor_changes(model: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    """Translates the published `model` and `loss` settings of CPL or CNM into overrides of the defaults.

    The published off-by-one of the targets is among them; the presets do not have it.

    Raises:
        KeyError: for a section that lacks a setting, or a `name` that is neither CPL nor CNM.
    """
    transformer = model["DualTransformer"]
    changes: dict[str, Any] = {
        "encoder.hidden_dim": model["hidden_size"],
        "encoder.num_heads": transformer["num_heads"],
    }
    changes |= {"encoder.dropout": model["dropout"], "reconstructor.target_length": "plus_one"}
    layers, word_layers = transformer["num_decoder_layers1"], transformer["num_decoder_layers2"]
    for part in ("generator", "reconstructor"):
        changes[f"{part}.num_layers"] = layers
        changes[f"{part}.num_word_layers"] = word_layers if word_layers != layers else None
    return {**changes, **ANCESTORS[model["name"]](model, loss)}


def _cpl_changes(model: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **CPL,
        "proposals.num_proposals": model["num_props"],
        "proposals.sigma": float(model["sigma"]),
        "proposals.negatives.sigma": model["sigma"] / 2,
        "proposals.negatives.curriculum": float(model["gamma"]),
        "losses.whole_video_margin": float(loss["margin_1"]),
        "losses.negative_margin": float(loss["margin_2"]),
        "losses.contrastive": float(loss["alpha_1"]),
        "losses.push_inter": float(loss["alpha_2"]),
        "losses.push_inter_target": float(loss["lambda"]),
        "train.epochs": model["max_epoch"],
    }


def _cnm_changes(model: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **CNM,
        "generator.max_width": float(model["max_width"]),
        "proposals.sigma": float(model["alpha"]) ** 0.5,
        "losses.whole_video_margin": float(loss["beta_1"]),
        "losses.negative_margin": float(loss["beta_2"]),
    }


# the published `name` -> overrides from its settings
ANCESTORS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "CPL": _cpl_changes,
    "CNM": _cnm_changes,
}
