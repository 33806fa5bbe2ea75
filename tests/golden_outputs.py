"""Our model against a golden file of the published code: outputs, losses, gradients, evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.config_tree import override
from pps_fast.generator.heads import ComponentHead
from pps_fast.inference.predict import predict
from pps_fast.proposals.negatives import NegativeInput
from pps_fast.reconstructor.targets import target_columns
from pps_fast.train.released import released_gradients
from tests.golden_kernels import check_selection
from tests.golden_model import Golden, Run, batch_of, model_of, run_golden
from tests.golden_report import Check, compare

_SELECTORS = {"eval_CharadesSTA": "vote_loss_weighted", "eval_ActivityNet": "vote"}
_TARGETS = {"alt_exactlen": "exact", "alt_eosall": "end_of_sentence"}


def _raw(run: Run, head: ComponentHead) -> tuple[Tensor, Tensor]:
    """What a head computes from g_cls before the sigmoid."""
    g_cls = run.captured["generator.video_stack"][:, -1]
    return head.center(g_cls), head.width(g_cls)


def _components(run: Run) -> Iterator[tuple[str, Tensor]]:
    """Heads, centers, widths and masks, proposal by proposal as the file lists them."""
    components, offsets = run.output.proposals.components, run.model.layout.offsets
    raw_center, raw_width = _raw(run, run.model.head)
    for k in range(run.model.layout.num_proposals):
        part = slice(offsets[k], offsets[k + 1])
        raw = torch.stack((raw_center[:, part], raw_width[:, part]), -1).flatten(1)
        yield f"raw_param_k{k + 1}", raw
        yield f"centers_k{k + 1}", components.center[:, part]
        yield f"width_used_k{k + 1}", components.width[:, part]
        yield f"each_mask_k{k + 1}", components.masks[:, part]


def _negatives(run: Run) -> Iterator[tuple[str, Tensor]]:
    """Learned negatives: heads, centers, widths."""
    if not hasattr(run.model.negatives, "head"):
        return
    center, width = _raw(run, run.model.negatives.head)
    num_proposals = run.model.layout.num_proposals
    yield "raw_neg_param", torch.stack((center, width), -1).flatten(1)
    yield "neg_centers", center.sigmoid().unflatten(1, (num_proposals, -1))
    yield "neg_widths", width.sigmoid().unflatten(1, (num_proposals, -1))
    components = run.output.proposals.components
    masks = run.model.negatives.component_masks(
        NegativeInput(
            g_cls=run.captured["generator.video_stack"][:, -1],
            center=components.center,
            width=components.width,
            num_positions=components.masks.shape[-1],
        )
    )
    yield "neg_each_mask", masks.unflatten(1, (num_proposals, -1))


def _importance_weights(run: Run) -> Tensor:
    """[B, K, K] as the file stores them: row k has the weights of proposal k, then zeros."""
    weights, offsets = run.output.proposals.importance, run.model.layout.offsets
    num_proposals = run.model.layout.num_proposals
    table = weights.new_zeros(len(weights), num_proposals, num_proposals)
    for k in range(num_proposals):
        table[:, k, : k + 1] = weights[:, offsets[k] : offsets[k + 1]]
    return table


def _boundaries(run: Run) -> tuple[Tensor, Tensor]:
    """Start and end per proposal; without importance the file has them per component."""
    proposals = run.output.proposals
    if run.golden.meta["model"]["use_attn"]:
        return proposals.start, proposals.end
    center, width = proposals.components.center, proposals.components.width
    each = torch.arange(center.shape[1])
    shrink = run.model.config.proposals.boundary_shrink
    return equations.boundaries(center, width, torch.ones_like(center), each, len(each), shrink)


def _logits(run: Run) -> Iterator[tuple[str, Tensor]]:
    """Logits of positives, easy negatives and the whole video."""
    num_proposals = run.model.layout.num_proposals
    logits = run.captured["reconstruct"].logits
    yield "words_logits", logits[:, :num_proposals]
    yield "neg_words_logits", logits[:, num_proposals : 2 * num_proposals]
    yield "hneg_words_logits", logits[:, -1]
    yield "words_logits_full", run.model.reconstruct.vocabulary(run.captured["features"][:, :num_proposals])


def our_outputs(run: Run) -> dict[str, Tensor]:
    """Everything of ours that the file has, by its names."""
    proposals = run.output.proposals
    start, end = _boundaries(run)
    found = {
        "gen_h": run.captured["generator.video_stack"],
        **dict(_components(run)),
        **dict(_negatives(run)),
        "prop_weights": proposals.masks,
        "prop_lefts": start,
        "prop_rights": end,
        "neg_prop_weights": run.output.negative_masks,
        **dict(_logits(run)),
    }
    if run.golden.meta["model"]["use_attn"]:
        found["mask_attns"] = _importance_weights(run)
        found.update(_summaries(run))
    return found


def _summaries(run: Run) -> Iterator[tuple[str, Tensor]]:
    """r_cls of the components of every mixture."""
    summaries = run.captured["summaries"].split([k for k in run.model.layout.components_per_proposal if k > 1], 1)
    for k, part in enumerate(summaries):
        yield f"h_cls_k{k + 2}", part


def our_losses(run: Run) -> dict[str, Tensor]:
    """Losses by the file's names."""
    output, options, terms = run.output, run.model.config.losses, run.report.terms
    best = equations.best_proposals(output.positive_nll, options.num_best)
    best_nll, negative = output.positive_nll.gather(1, best), output.negative_nll.gather(1, best)
    hinge_whole = equations.contrastive_loss(
        best_nll, output.whole_video_nll, negative, options.whole_video_margin, float("-inf")
    )
    return {
        "C_pos": output.positive_nll,
        "C_eneg": output.negative_nll,
        "C_hneg": output.whole_video_nll,
        "k_star": best,
        "main_loss": options.reconstruction * terms["reconstruction"],
        "hinge_hneg": hinge_whole,
        "hinge_eneg": terms["contrastive"] - hinge_whole,
        "ivc_unweighted": terms["contrastive"],
        "pull": terms["pull"],
        "push_inter": terms["push_inter"],
        "push_intra": terms["push_intra"],
        "sub_loss": run.report.total - options.reconstruction * terms["reconstruction"],
        "total": run.report.total,
    }


def _check_precision(golden: Golden, run: Run, tag: str, suffix: str) -> Iterator[Check]:
    for name, value in our_outputs(run).items():
        key = f"{tag}/out/{name}"
        if key in golden:
            yield compare("outputs" + suffix, key, value, golden[key])
    for name, value in our_losses(run).items():
        key = f"{tag}/loss/{name}"
        group = "evaluation" if name == "k_star" else "losses" + suffix
        yield compare(group, key, value, golden[key])
    gradients = released_gradients(run.model)
    norm = torch.stack([value.norm() for value in gradients.values()]).norm()
    yield compare("gradients" + suffix, f"{tag}/grad_norm", norm, golden[f"{tag}/grad_norm"])
    for key in golden.arrays:
        if key.startswith(f"{tag}/grad/"):
            yield compare("gradients" + suffix, key, gradients[key.removeprefix(f"{tag}/grad/")], golden[key])


def _check_targets(golden: Golden) -> Iterator[Check]:
    """The two clean readings of the off-by-one in the targets."""
    for name, target_length in _TARGETS.items():
        config = override(golden.config(), {"reconstructor.target_length": target_length})
        with torch.no_grad():
            output = model_of(golden, torch.float64, config)(batch_of(golden, torch.float64))
        scores = {"C_pos": output.positive_nll, "C_eneg": output.negative_nll, "C_hneg": output.whole_video_nll}
        for score, value in scores.items():
            key = f"f64/loss/{name}/{score}"
            yield compare("losses", key, value.reshape(golden[key].shape), golden[key])


def _check_evaluation(golden: Golden, run: Run) -> Iterator[Check]:
    """The published evaluation of the fp32 run; without importance the published code gathers wrong columns."""
    if not golden.meta["model"]["use_attn"]:
        return
    moments = golden.tensor("f32/eval/gt_norm")
    for rule, selector in _SELECTORS.items():
        prediction = predict(run.output, selector)
        prefix = f"f32/eval/{rule}"
        yield compare("evaluation", "f32/eval/order", prediction.order, golden["f32/eval/order"])
        topn = golden[f"{prefix}/topn"]
        yield compare("outputs fp32", f"{prefix}/topn", prediction.spans[:, : topn.shape[1]], topn)
        yield from check_selection(golden, prefix, "vote_idx", prediction, moments)


def _check_masks(golden: Golden, run: Run) -> Iterator[Check]:
    """Which keys are visible and which words hidden."""
    frame_valid, _ = run.model._valid(run.batch)
    yield compare("evaluation", "f32/out/frames_mask", frame_valid, golden["f32/out/frames_mask"])
    num_words, expected = run.batch.num_words, golden["f32/out/words_mask"]
    is_target = target_columns(num_words, expected.shape[1], run.model.config.reconstructor.target_length)
    yield compare("evaluation", "f32/out/words_mask", is_target, expected)
    hidden = run.captured["is_hidden"]
    expected = golden["f32/out/hidden_mask"]
    yield compare("evaluation", "f32/out/hidden_mask", np.pad(hidden.numpy(), ((0, 0), (1, 1))), expected)


def check_model(golden: Golden) -> Iterator[Check]:
    """All of a file of PPS as published, or with the two repairs."""
    double = run_golden(golden, torch.float64)
    yield from _check_precision(golden, double, "f64", "")
    yield from _check_masks(golden, double)
    yield from _check_targets(golden)
    single = run_golden(golden, torch.float32)
    yield from _check_precision(golden, single, "f32", " fp32")
    yield from _check_evaluation(golden, single)
