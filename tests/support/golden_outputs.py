"""Our model against a golden file of the published code: outputs, losses, gradients, evaluation; under both schedules.

A name "x@best" stands for what the file calls x, of the best positives only: the shared schedule computes no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.predict import predict
from pps_fast.proposals.heads import ComponentHead
from pps_fast.proposals.negatives import NegativeInput
from pps_fast.published.weights import released_gradients
from pps_fast.reconstructor.words import target_columns
from pps_fast.types import MaskSet
from tests.support.golden_kernels import check_selection
from tests.support.golden_model import Golden, Run, run_golden
from tests.support.golden_report import Check, compare

# after the names of what the shared schedule computed
SHARED = " (shared schedule)"
_SELECTORS = {"eval_CharadesSTA": "vote_loss_weighted", "eval_ActivityNet": "vote"}
_TARGETS = {"alt_exactlen": "exact", "alt_eosall": "end_of_sentence"}
# sums of differences of two C
_DIFFERENCES = ("hinge_hneg", "hinge_eneg", "ivc_unweighted", "sub_loss")


def _raw(run: Run, head: ComponentHead) -> tuple[Tensor, Tensor]:
    """What a head computes from g_cls before the sigmoid."""
    g_cls = run.captured.g_cls
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
            g_cls=run.captured.g_cls,
            center=components.center,
            width=components.width,
            num_positions=components.masks.shape[-1],
            progress=run.batch.progress,
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
    num_proposals, num_best = run.model.layout.num_proposals, run.model.config.losses.num_best
    passes = [result.logits for result in run.captured.reconstructions]
    if run.schedule == "plain":
        (logits,) = passes
        positive, negative, whole = logits.split((num_proposals, num_proposals, 1), 1)
        yield "neg_words_logits", negative
    else:
        positive, trained = passes
        best, negative, whole = trained.split((num_best, num_best, 1), 1)
        yield "words_logits@best", best
        yield "neg_words_logits@best", negative
    yield "words_logits", positive
    yield "hneg_words_logits", whole.squeeze(1)
    every = run.model.reconstruct.features(run.captured.inputs, MaskSet(log_masks=run.output.proposals.log_masks))
    # the model leaves out the tokens that predict no word; the file has all
    yield "words_logits_full", run.model.reconstruct.vocabulary(every)


def our_outputs(run: Run) -> dict[str, Tensor]:
    """Everything of ours that the file has, by its names."""
    proposals = run.output.proposals
    start, end = _boundaries(run)
    outputs = {
        # the model computes one row of this stack; the file has all
        "gen_h": torch.cat((run.captured.video_rows[:, :-1], run.captured.g_cls.unsqueeze(1)), 1),
        **dict(_components(run)),
        **dict(_negatives(run)),
        "prop_weights": proposals.masks,
        "prop_lefts": start,
        "prop_rights": end,
        "neg_prop_weights": run.output.negative_masks,
        **dict(_logits(run)),
    }
    if run.golden.meta["model"]["use_attn"]:
        outputs["mask_attns"] = _importance_weights(run)
        outputs.update(_summaries(run))
    return outputs


def _summaries(run: Run) -> Iterator[tuple[str, Tensor]]:
    """r_cls of the components of every mixture."""
    summaries = run.captured.summaries.split([k for k in run.model.layout.components_per_proposal if k > 1], 1)
    for k, part in enumerate(summaries):
        yield f"h_cls_k{k + 2}", part


def _scores(run: Run) -> dict[str, Tensor]:
    """C(.) by the file's names."""
    output, num_proposals = run.output, run.model.layout.num_proposals
    scores = {
        "C_pos": output.positive_nll,
        "C_pos@best": output.best_nll,
        "C_eneg@best": output.negative_nll.squeeze(-1),
        "C_hneg": output.whole_video_nll,
    }
    if run.schedule == "plain":
        scores["C_eneg"] = run.captured.reconstructions[0].nll[:, num_proposals : 2 * num_proposals]
    return scores


def our_losses(run: Run) -> dict[str, Tensor]:
    """Losses by the file's names."""
    output, options, terms = run.output, run.model.config.losses, run.report.terms
    hinge_whole = equations.contrastive_loss(
        output.best_nll, output.whole_video_nll, output.negative_nll, options.whole_video_margin, float("-inf")
    )
    return {
        **_scores(run),
        "k_star": output.best,
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


def _compare(group: str, run: Run, name: str, value: Tensor, scale: float | None = None) -> Check:
    """Compares an array with the file's, or with what the file has of the best positives."""
    array, _, is_of_best = name.partition("@")
    expected = run.golden[array]
    if is_of_best:
        # the proposals that the file says are the best
        best = run.golden[f"{array.split('/')[0]}/loss/k_star"].reshape(len(expected), -1)
        expected = np.take_along_axis(expected, best.reshape(*best.shape, *(1,) * (expected.ndim - 2)), 1)
    return compare(group, name, value, expected, scale)


def _check_precision(golden: Golden, run: Run, tag: str, suffix: str) -> Iterator[Check]:
    for name, value in our_outputs(run).items():
        array = f"{tag}/out/{name}"
        if array.partition("@")[0] in golden:
            yield _compare("outputs" + suffix, run, array, value)
    for name, value in our_losses(run).items():
        group = "evaluation" if name == "k_star" else "losses" + suffix
        scale = float(np.abs(golden[f"{tag}/loss/C_pos"]).max()) if name in _DIFFERENCES else None
        yield _compare(group, run, f"{tag}/loss/{name}", value, scale)
    gradients = released_gradients(run.model)
    norm = torch.stack([value.norm() for value in gradients.values()]).norm()
    yield compare("gradients" + suffix, f"{tag}/grad_norm", norm, golden[f"{tag}/grad_norm"])
    for array in golden.arrays:
        if array.startswith(f"{tag}/grad/"):
            yield compare("gradients" + suffix, array, gradients[array.removeprefix(f"{tag}/grad/")], golden[array])


def _check_targets(golden: Golden, schedule: str) -> Iterator[Check]:
    """The two clean readings of the off-by-one in the targets, in which other proposals may be the best."""
    for name, target_length in _TARGETS.items():
        changes = {"reconstructor.target_length": target_length, "reconstructor.schedule": schedule}
        run = run_golden(golden, torch.float64, changes)
        for score, value in _scores(run).items():
            score, _, is_of_best = score.partition("@")
            array = f"f64/loss/{name}/{score}"
            # a file of one proposal or best may lack an axis
            expected = golden[array].reshape(len(value), -1) if value.dim() == 2 else golden[array].reshape(-1)
            if is_of_best:
                expected = np.take_along_axis(expected, run.output.best.numpy(), 1)
            yield compare("losses", array + ("@best" if is_of_best else ""), value, expected)


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
    frame_valid, _ = run.model._valid(run.batch, run.batch.frames.shape[1] + 1)
    yield compare("evaluation", "f32/out/frames_mask", frame_valid, golden["f32/out/frames_mask"])
    num_words, expected = run.batch.num_words, golden["f32/out/words_mask"]
    is_target = target_columns(num_words, torch.arange(expected.shape[1]), run.model.config.reconstructor.target_length)
    yield compare("evaluation", "f32/out/words_mask", is_target, expected)
    hidden = run.captured.is_hidden
    expected = golden["f32/out/hidden_mask"]
    yield compare("evaluation", "f32/out/hidden_mask", np.pad(hidden.numpy(), ((0, 0), (1, 1))), expected)


def _check_schedule(golden: Golden, schedule: str) -> Iterator[Check]:
    """Everything a schedule of the reconstructor produces."""
    changes = {"reconstructor.schedule": schedule}
    double = run_golden(golden, torch.float64, changes)
    yield from _check_precision(golden, double, "f64", "")
    yield from _check_masks(golden, double)
    yield from _check_targets(golden, schedule)
    single = run_golden(golden, torch.float32, changes)
    yield from _check_precision(golden, single, "f32", " fp32")
    yield from _check_evaluation(golden, single)


def check_model(golden: Golden) -> Iterator[Check]:
    """All of a file of PPS as published, or with the two repairs, under the plain schedule and under the shared."""
    yield from _check_schedule(golden, "plain")
    for check in _check_schedule(golden, "shared"):
        yield replace(check, name=check.name + SHARED)
