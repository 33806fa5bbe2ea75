"""Weights and settings of the published code (sunoh-kim/pps, minghangz/cpl, minghangz/cnm), into our modules and back.

The published names are those of its checkpoints' `model_parameters`. This file has those of PPS, `ancestors` those of
CPL and CNM. Published blocks that cannot influence the output (a whole second generator transformer, the
cross-attention of stacks without memory, `attn_func.fc`) have no counterpart in our modules: they are ignored on import
and exported as zeros, so that the published code can load the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.model import PPS
from pps_fast.presets import RELEASED
from pps_fast.published.ancestors import ANCESTORS, HEADS, PLAIN, STACKS, ancestor_changes, family_of

# published name -> ours, for parameters of one shape
_PLAIN = {
    "mask_vec": "embed.hidden_word",
    "start_vec": "embed.start_word",
    "pred_vec_v": "embed.frame_cls",
    "pred_vec_q": "embed.word_cls",
    "frame_fc": "embed.frame_projection",
    "word_fc": "embed.word_projection",
    "fc_comp": "reconstruct.vocabulary",
    "attn_func.feat2att": "pool.scorer.inner",
    "attn_func.to_alpha": "pool.scorer.outer",
}
_IN_BLOCK = {
    "self_attn": "self_attention",
    "self_attn_layer_norm": "self_norm",
    "encoder_attn": "cross_attention",
    "encoder_attn_layer_norm": "cross_norm",
    "fc1": "expand",
    "fc2": "contract",
    "final_layer_norm": "ffn_norm",
}
_MASK_TYPES = {"gaussian": "gaussian_peak", "laplace": "laplace"}
_MASK_KEYS = {"gaussian_peak": "gauss", "gaussian": "gauss", "laplace": "laplace"}
_NEGATIVE_TYPES = {
    "learnable_gaussian": "learned",
    "learnable_inverse_gaussian": "learned_inverse",
    "inverse_gaussian": "inverse",
    "gaussian": "sides",
    "saturated_gaussian": "sides_saturated",
}
_NEGATIVE_KEYS = {"learned": "l_gauss", "learned_inverse": "l_inv_gauss"}
# sources whose head has the published head's size
_PUBLISHED_WIDTHS = ("across_batch", "first", "per_component")
_INVERSE_NEGATIVES = ("learned_inverse", "inverse")


def released_config(model: Mapping[str, Any], loss: Mapping[str, Any], repaired: bool = False) -> PPSConfig:
    """Translates the published `model` and `loss` settings.

    Args:
        model: the published config's `model` section; its `name` tells CPL and CNM from PPS.
        loss: its `loss` section.
        repaired: take the repaired width and word CLS instead of those that mix the samples of a batch.
    Returns:
        A config that computes what the published code computes with these settings.
    Raises:
        ValueError: for a setting that is unknown here.
        KeyError: for a section that lacks a setting.
    """
    if model.get("name") in ANCESTORS:
        return override(PPSConfig(), ancestor_changes(model, loss))
    changes = {**RELEASED, **_network_changes(model), **_proposal_changes(model), **_loss_changes(loss)}
    if repaired:
        changes.update({"generator.width_source": "first", "reconstructor.word_cls": "vector"})
    return override(PPSConfig(), changes)


def _network_changes(model: Mapping[str, Any]) -> dict[str, Any]:
    transformer = model["DualTransformer"]
    # decoder1 reads frames, decoder2 words
    layers, word_layers = transformer["num_decoder_layers1"], transformer["num_decoder_layers2"]
    another = word_layers if word_layers != layers else None
    return {
        "encoder.hidden_dim": model["hidden_dim"],
        "encoder.num_heads": transformer["num_heads"],
        "encoder.dropout": model["dropout"],
        "generator.num_layers": layers,
        "generator.num_word_layers": another,
        "reconstructor.num_layers": layers,
        "reconstructor.num_word_layers": another,
        "reconstructor.hidden_words_divisor": model["masked_words_ratio"],
        "reconstructor.importance": "reconstructor" if model["use_attn"] else "none",
    }


def _proposal_changes(model: Mapping[str, Any]) -> dict[str, Any]:
    mask_shape = _lookup(_MASK_TYPES, "mask_type", model["mask_type"])
    negative = _lookup(_NEGATIVE_TYPES, "neg_type", model["neg_type"])
    return {
        "proposals.num_proposals": model["num_props"],
        "proposals.mask_shape": mask_shape,
        "proposals.sigma": float(model["sigma_gauss" if mask_shape == "gaussian_peak" else "sigma_laplace"]),
        "proposals.boundary_shrink": float(model["pred_gamma"]),
        "proposals.negatives.kind": negative,
        "proposals.negatives.num_components": model["num_neg_mask"],
        "proposals.negatives.sigma": float(
            model["sigma_neg_inv_gauss" if negative in _INVERSE_NEGATIVES else "sigma_neg_gauss"]
        ),
    }


def _loss_changes(loss: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "losses.contrastive": float(loss["alpha_ivc"]),
        "losses.pull": float(loss["alpha_pull"]),
        "losses.push_intra": float(loss["alpha_intra_push"]),
        "losses.push_inter": float(loss["alpha_inter_push"]),
        "losses.whole_video_margin": float(loss["margin_hneg"]),
        "losses.negative_margin": float(loss["margin_eneg"]),
        "losses.push_intra_target": float(loss["lambda_intra_push"]),
        "losses.push_inter_target": float(loss["lambda_inter_push"]),
        "losses.num_best": int(loss["num_train_prop"]),
    }


def _lookup(table: Mapping[str, str], name: str, value: str) -> str:
    if value not in table:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(table)}")
    return table[value]


def import_released(model: PPS, state: Mapping[str, Tensor]) -> None:
    """Loads a published state dict into `model`.

    Raises:
        ValueError: if a parameter is missing or has another shape, which the message names, or if the model's heads
            are not the published ones.
    """
    ours = {}
    for name, (sources, kind) in _correspondence(model).items():
        missing = [source for source in sources if source not in state]
        if missing:
            raise ValueError(
                f"the published state dict has no {missing[0]}, which {name} needs; do config and file agree?"
            )
        parts = [_half(state[source], kind) for source in sources]
        ours[name] = torch.cat(parts) if kind else parts[0]
    for name, parameter in model.named_parameters():
        if ours[name].shape != parameter.shape:
            raise ValueError(
                f"{name} has shape {tuple(parameter.shape)}, the published state dict gives {tuple(ours[name].shape)}"
            )
    model.load_state_dict({name: value.to(torch.float64) for name, value in ours.items()})


def export_released(model: PPS) -> dict[str, Tensor]:
    """Returns the model's weights under the published names, dead blocks as zeros.

    Raises:
        ValueError: for a model whose heads are not the published ones.
    """
    ours = dict(model.named_parameters())
    heads: dict[str, dict[str, Tensor]] = {}
    published = {}
    for name, (sources, kind) in _correspondence(model).items():
        value = ours[name].detach()
        if not kind:
            published[sources[0]] = value.clone()
            continue
        sizes = [len(value)] if len(sources) == 1 else list(model.layout.components_per_proposal)
        for source, part in zip(sources, value.split(sizes), strict=True):
            heads.setdefault(source, {})[kind] = part
    for source, halves in heads.items():
        published[source] = torch.stack((halves["center"], halves["width"]), 1).flatten(0, 1)
    published.update(dict(_dead_blocks(model, published)))
    published.update(dict(_dead_generator(model, published)))
    return published


def released_gradients(model: PPS) -> dict[str, Tensor]:
    """Returns the gradients of `model` under the published names of the parameters, for comparison."""
    twin = PPS(model.config, model.sizes).to(next(model.parameters()))
    with torch.no_grad():
        for target, source in zip(twin.parameters(), model.parameters(), strict=True):
            target.copy_(torch.zeros_like(target) if source.grad is None else source.grad)
    return export_released(twin)


def _half(value: Tensor, kind: str) -> Tensor:
    """Returns the rows of a published head that are centers, or widths; they alternate."""
    return {"": value, "center": value[0::2], "width": value[1::2]}[kind] if kind else value


def _correspondence(model: PPS) -> dict[str, tuple[list[str], str]]:
    """Our parameter -> (published parameters, "" | "center" | "width")."""
    generator = model.config.generator
    if generator.center_source != "per_component" or generator.width_source not in _PUBLISHED_WIDTHS:
        raise ValueError(
            f"generator.width_source = {generator.width_source!r}, center_source = {generator.center_source!r}: the "
            "published heads have a center and a width per component; use a *_released preset"
        )
    if model.config.encoder.frames != "raw":
        raise ValueError(
            f"encoder.frames = {model.config.encoder.frames!r}: the published code takes features as they are; train "
            "with encoder.frames = 'raw', on features that were standardized before `python -m pps_fast.prepare`"
        )
    table = {}
    for name, _ in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if owner == "head.center" or owner == "head.width":
            table[name] = ([f"{head}.{leaf}" for head in _heads(model)], owner.removeprefix("head."))
        elif owner.startswith("negatives.head."):
            table[name] = ([f"{_negative_head(model)}.{leaf}"], owner.removeprefix("negatives.head."))
        else:
            table[name] = ([_published_name(model, name)], "")
    return table


def _heads(model: PPS) -> list[str]:
    """Published heads of the positives: PPS has one for each proposal, the ancestors one for all."""
    family = family_of(model.config)
    if family in ANCESTORS:
        return [HEADS[family]]
    mask_key = _MASK_KEYS[model.config.proposals.mask_shape]
    return [f"fc_mask.{mask_key}.{k}" for k in range(model.layout.num_proposals)]


def _negative_head(model: PPS) -> str:
    proposals = model.config.proposals
    return f"fc_mask.{_NEGATIVE_KEYS[proposals.negatives.kind]}.{_MASK_KEYS[proposals.mask_shape]}"


def _stacks(model: PPS) -> dict[str, str]:
    """Our stack -> published stack. decoder1 reads frames, decoder2 words."""
    if family_of(model.config) in ANCESTORS:
        return STACKS
    mask_key = _MASK_KEYS[model.config.proposals.mask_shape]
    return {
        "generator.word_stack": f"trans_mask_generator.{mask_key}.decoder2",
        "generator.video_stack": f"trans_mask_generator.{mask_key}.decoder1",
        "reconstruct.video_stack": "trans_reconstructor.decoder1",
        "reconstruct.word_stack": "trans_reconstructor.decoder2",
    }


def _published_name(model: PPS, name: str) -> str:
    for theirs, ours in PLAIN.get(family_of(model.config), _PLAIN).items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    for ours, theirs in _stacks(model).items():
        if name.startswith(ours + "."):
            _, layer, part, *rest = name[len(ours) + 1 :].split(".")
            part = {ours_: theirs_ for theirs_, ours_ in _IN_BLOCK.items()}[part]
            return ".".join((theirs, "decoder_layers", layer, part, *rest))
    raise ValueError(f"{name} has no counterpart in the published code; export needs a *_released, CPL or CNM config")


def _dead_blocks(model: PPS, published: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the published parameters that cannot influence its output, as zeros; the ancestors have none."""
    if family_of(model.config) in ANCESTORS:
        return
    stacks = _stacks(model)
    cross = {
        name.partition(".encoder_attn")[2]: torch.zeros_like(value)
        for name, value in published.items()
        if ".encoder_attn" in name
    }
    for ours in ("generator.word_stack", "reconstruct.video_stack"):
        for layer in range(_num_blocks(model, ours)):
            for rest, value in cross.items():
                yield f"{stacks[ours]}.decoder_layers.{layer}.encoder_attn{rest}", value
    if model.config.reconstructor.importance == "reconstructor":
        row = torch.zeros_like(published["fc_comp.weight"][:1])
        square = row.expand(row.shape[1], -1).clone()
        yield "attn_func.fc.weight", square
        yield "attn_func.fc.bias", row[0].clone()
        if not model.layout.mixed:
            yield "attn_func.feat2att.weight", square.clone()
            yield "attn_func.to_alpha.weight", row


def _num_blocks(model: PPS, stack: str) -> int:
    return len({name.split(".")[0] for name, _ in model.get_submodule(f"{stack}.blocks").named_parameters()})


def _dead_generator(model: PPS, published: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of the second generator transformer, whose result the published code does not use."""
    kind = model.config.proposals.negatives.kind
    if kind in _NEGATIVE_KEYS:
        generator = _stacks(model)["generator.video_stack"].removesuffix(".decoder1")
        for name, value in published.items():
            if name.startswith(generator + "."):
                yield f"trans_mask_generator.{_NEGATIVE_KEYS[kind]}{name[len(generator) :]}", torch.zeros_like(value)
