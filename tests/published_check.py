"""The published formulation of `benchmarks/` against golden files of the published code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.published import PublishedOutput, PublishedPPS
from benchmarks.published_parts import Hidden, gaussian_masks, hidden_mask
from benchmarks.published_step import PublishedLosses, published_losses, published_predictions
from pps_fast.types import FeatureSizes
from tests.support.golden_model import Golden, batch_of
from tests.support.golden_report import Check, compare

SELECTORS = {"eval_CharadesSTA": "vote_loss_weighted", "eval_ActivityNet": "vote"}


def baseline_of(golden: Golden, dtype: torch.dtype) -> PublishedPPS:
    """Returns the published formulation with the file's weights, in eval mode."""
    sizes = FeatureSizes(
        frame_dim=golden["in/frames_feat"].shape[2],
        word_dim=golden["in/words_feat"].shape[2],
        vocab_size=golden["state/fc_comp.weight"].shape[0],
        num_segments=golden["in/frames_feat"].shape[1],
    )
    model = PublishedPPS(golden.config(), sizes)
    model.load_state_dict(golden.state(), strict=True)
    return model.to(dtype).eval()


def hidden_of(golden: Golden) -> Hidden:
    """Returns the words that the published code hid."""
    return [[int(position) for position in row if position > 0] for row in golden["in/hidden_positions"]]


def _listen(model: PublishedPPS) -> dict[str, list]:
    """Returns a dict that fills with (inputs, result) of every call of a module, by the module's name."""
    calls: dict[str, list] = defaultdict(list)

    def listen(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda module, inputs, result: calls[name].append((inputs, result)))

    for name, module in model.named_modules():
        listen(name, module)
    return calls


def _component_outputs(output: PublishedOutput, calls: dict[str, list]) -> Iterator[tuple[str, Tensor]]:
    positives = output.positives
    num_proposals = len(positives.centers)
    for k in range(1, num_proposals + 1):
        yield f"raw_param_k{k}", calls[f"fc_mask.gauss.{k - 1}"][0][1]
        yield f"centers_k{k}", positives.centers[k - 1]
        yield f"width_used_k{k}", positives.widths[k - 1]
        yield f"each_mask_k{k}", positives.component_masks[k - 1]
        if k > 1:
            (r_cls,), _ = calls["attn_func"][k - 2]
            yield f"h_cls_k{k}", r_cls
    pad = nn.functional.pad
    weights = [pad(row, (0, num_proposals - row.shape[1])) for row in positives.importance]
    yield "mask_attns", torch.stack(weights, 1)


def _negative_outputs(model: PublishedPPS, output: PublishedOutput, calls: dict) -> Iterator[tuple[str, Tensor]]:
    raw = calls["fc_mask.l_gauss.gauss"][0][1]
    num_samples, num_proposals, num_positions = output.negative_masks.shape
    center, width = raw.sigmoid().view(num_samples, num_proposals, -1, 2).unbind(-1)
    sigma = model.config.proposals.negatives.sigma
    each = gaussian_masks(center.flatten(), width.flatten(), sigma, num_positions)
    yield "raw_neg_param", raw
    yield "neg_centers", center
    yield "neg_widths", width
    yield "neg_each_mask", each.unflatten(0, center.shape)
    yield "neg_prop_weights", output.negative_masks


def _outputs(model: PublishedPPS, output: PublishedOutput, calls: dict[str, list]) -> dict[str, Tensor]:
    return {
        "gen_h": calls["trans_mask_generator.gauss.decoder1"][0][1],
        **dict(_component_outputs(output, calls)),
        **dict(_negative_outputs(model, output, calls)),
        "prop_weights": output.positives.masks,
        "prop_lefts": output.positives.start,
        "prop_rights": output.positives.end,
        "words_logits": output.logits,
        # positives, negatives and the whole video, in this order
        "words_logits_full": calls["fc_comp"][0][1],
        "neg_words_logits": output.negative_logits,
        "hneg_words_logits": output.whole_video_logits.squeeze(1),
    }


def _losses(losses: PublishedLosses) -> dict[str, Tensor]:
    terms, logged = losses.terms, losses.logged
    return {
        "C_pos": losses.positive_nll,
        "C_eneg": losses.negative_nll,
        "C_hneg": losses.whole_video_nll,
        "k_star": losses.best,
        "main_loss": terms["reconstruction"],
        "hinge_hneg": logged["hneg_loss"],
        "hinge_eneg": logged["neg_loss"],
        "ivc_unweighted": terms["contrastive"],
        "pull": terms["pull"],
        "push_inter": terms["push_inter"],
        "push_intra": terms["push_intra"],
        "sub_loss": losses.total - terms["reconstruction"],
        "total": losses.total,
        **{f"official_log/{name}": value for name, value in logged.items()},
    }


def check_training(golden: Golden) -> Iterator[Check]:
    """Outputs, losses, logged numbers and gradients in float64, and which parameters get none."""
    model, hidden = baseline_of(golden, torch.float64), hidden_of(golden)
    calls = _listen(model)
    output = model(batch_of(golden, torch.float64), hidden)
    losses = published_losses(output, model.config)
    losses.total.backward()
    for group, part, values in (
        ("outputs", "out", _outputs(model, output, calls)),
        ("losses", "loss", _losses(losses)),
    ):
        for name, value in values.items():
            yield compare(group, f"f64/{part}/{name}", value, golden[f"f64/{part}/{name}"])
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    norm = torch.stack([value.norm() for value in gradients.values()]).norm()
    yield compare("gradients", "f64/grad_norm", norm, golden["f64/grad_norm"])
    for name, value in gradients.items():
        yield compare("gradients", f"f64/grad/{name}", value, golden[f"f64/grad/{name}"])
    without = [name for name, value in model.named_parameters() if value.grad is None]
    yield Check("evaluation", "meta/grad_none", float(set(without) != set(golden["meta/grad_none"].tolist())))
    (_, is_frame), _ = calls["trans_mask_generator.gauss.decoder1"][0]
    yield compare("evaluation", "f32/out/frames_mask", is_frame, golden["f32/out/frames_mask"])
    yield compare("evaluation", "f32/out/words_mask", output.is_target, golden["f32/out/words_mask"])
    expected = golden["f32/out/hidden_mask"]
    is_hidden = hidden_mask(hidden, expected.shape[1], torch.device("cpu"))
    yield compare("evaluation", "f32/out/hidden_mask", is_hidden, expected)


def check_evaluation(golden: Golden) -> Iterator[Check]:
    """Ranking, votes and answers in float32, by the rules of both data sets."""
    model, hidden = baseline_of(golden, torch.float32), hidden_of(golden)
    for rule, selector in SELECTORS.items():
        inference = replace(model.config.inference, selector=selector)
        model.config = replace(model.config, inference=inference)
        prediction = published_predictions(model, batch_of(golden, torch.float32), hidden)
        prefix = f"f32/eval/{rule}"
        topn = golden[f"{prefix}/topn"]
        yield compare("evaluation", "f32/eval/order", prediction.order, golden["f32/eval/order"])
        yield compare("evaluation", f"{prefix}/vote_idx", prediction.votes.argmax(1), golden[f"{prefix}/vote_idx"])
        yield compare("outputs fp32", f"{prefix}/votes", prediction.votes, golden[f"{prefix}/votes"])
        yield compare("outputs fp32", f"{prefix}/top1", prediction.top1, golden[f"{prefix}/top1"])
        yield compare("outputs fp32", f"{prefix}/topn", prediction.spans[:, : topn.shape[1]], topn)


def not_compared(golden: Golden, checks: list[Check]) -> list[str]:
    """Returns the float64 results of the file that no check looked at; other targets are not the baseline's."""
    names = {check.name for check in checks}
    results = [name for name in golden.arrays if name.startswith("f64/") and not name.startswith("f64/loss/alt_")]
    return [name for name in results if name not in names]


def scaled(golden: Golden, name: str, factor: float) -> Golden:
    """Returns the file with one array multiplied."""
    golden.arrays[name] = (np.asarray(golden[name]) * factor).astype(golden[name].dtype)
    return golden
