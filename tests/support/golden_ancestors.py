"""Our model against a golden file of the published CPL or CNM: outputs, losses, gradients; under both schedules.

A name "x@best" stands for what the file calls x, of the best positives only: the shared schedule computes no more.
Not compared: CNM's `attn_weight`, which no result depends on and our attention does not keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pps_fast.config_tree import override
from pps_fast.losses import LOSS_TERMS, Objective
from pps_fast.model import PPS
from pps_fast.published.weights import released_gradients
from pps_fast.reconstructor.words import target_columns
from pps_fast.types import Batch, ModelOutput
from tests.support.golden_model import Captured, Golden, batch_of, listen, model_of
from tests.support.golden_outputs import SHARED
from tests.support.golden_report import Check, compare


@dataclass(frozen=True)
class Names:
    """The published names of C(.), of logits and of hinges: positives, easy negatives, whole video."""

    scores: tuple[str, tuple[str, ...], str]
    logits: tuple[str, tuple[str, ...], str]
    hinges: tuple[tuple[str, ...], str]


NAMES = {
    "CPL": Names(
        scores=("C_pos", ("C_neg1", "C_neg2"), "C_ref"),
        logits=("words_logit", ("neg_words_logit_1", "neg_words_logit_2"), "ref_words_logit"),
        hinges=(("neg_loss_1", "neg_loss_2"), "ref_loss"),
    ),
    "CNM": Names(
        scores=("C_pos", ("C_eneg",), "C_hneg"),
        logits=("words_logit", ("easy_neg_words_logit",), "hard_neg_words_logit"),
        hinges=(("easy_neg_loss",), "hard_neg_loss"),
    ),
}


@dataclass(frozen=True)
class AncestorRun:
    """Our model on a file's input, after the forward pass."""

    golden: Golden
    model: PPS
    batch: Batch
    captured: Captured
    output: ModelOutput

    @property
    def names(self) -> Names:
        """The file's names."""
        return NAMES[self.golden.meta["model"]["name"]]


def _run(golden: Golden, dtype: torch.dtype, schedule: str) -> AncestorRun:
    config = override(golden.config(), {"reconstructor.schedule": schedule})
    model, batch = model_of(golden, dtype, config), batch_of(golden, dtype)
    captured = listen(model)
    return AncestorRun(golden, model, batch, captured, model(batch))


def _outputs(run: AncestorRun) -> Iterator[tuple[str, Tensor]]:
    """Everything before the losses, by the file's names; most of it has samples and proposals on one axis."""
    components = run.output.proposals.components
    for prefix in ("", "eval_"):
        yield f"{prefix}center", components.center.flatten()
        yield f"{prefix}width", components.width.flatten()
    yield "gauss_weight", run.output.proposals.masks.flatten(0, 1)
    yield "words_id", run.batch.word_ids
    num_columns = run.batch.word_ids.shape[1]
    target_length = run.model.config.reconstructor.target_length
    yield "words_mask", target_columns(run.batch.num_words, torch.arange(num_columns), target_length)
    positive, negatives, whole = run.names.logits
    num_proposals, num_each = components.center.shape[1], run.model.negatives.num_per_proposal
    passes = [result.logits for result in run.captured.reconstructions]
    yield positive, passes[0][:, :num_proposals].flatten(0, 1)
    yield whole, passes[-1][:, -1]
    # one pass of all, or the positives and then the best of them with what they must beat
    is_of_best = len(passes) == 2
    num_scored = run.output.best.shape[1] if is_of_best else num_proposals
    negative = passes[-1][:, num_scored:-1].unflatten(1, (num_scored, num_each))
    for j, name in enumerate(negatives):
        yield f"{name}@best" * is_of_best or name, negative[:, :, j].flatten(0, 1)


def _losses(run: AncestorRun) -> Iterator[tuple[str, Tensor]]:
    """Losses by the file's names."""
    output, options = run.output, run.model.config.losses
    positive, negatives, whole = run.names.scores
    yield positive, output.positive_nll
    yield f"{positive}@best", output.best_nll
    yield whole, output.whole_video_nll.unsqueeze(1)
    for j, name in enumerate(negatives):
        yield f"{name}@best", output.negative_nll[:, :, j]
    hinges, whole_hinge = run.names.hinges
    ahead = output.best_nll - output.whole_video_nll.unsqueeze(1) + options.whole_video_margin
    yield f"official_log/{whole_hinge}", ahead.relu().mean()
    for j, name in enumerate(hinges):
        ahead = output.best_nll - output.negative_nll[:, :, j] + options.negative_margin
        yield f"official_log/{name}", ahead.relu().mean()
    report = Objective(run.model.config)(output)
    rec = options.reconstruction * report.terms["reconstruction"]
    yield from {"rec": rec, "ivc": report.total - rec, "total": report.total}.items()
    if "push_inter" in report.terms:
        yield "official_log/div_loss", report.terms["push_inter"]


def _size_of_subtracted(run: AncestorRun, array: str) -> float | None:
    """Largest C of the positives for a loss that is a sum of differences of two C, else None."""
    tag, _, loss = array.partition("/loss/")
    hinges, whole_hinge = run.names.hinges
    if loss not in ("ivc", *(f"official_log/{name}" for name in (*hinges, whole_hinge))):
        return None
    return float(np.abs(run.golden[f"{tag}/loss/{run.names.scores[0]}"]).max())


def _compared(group: str, run: AncestorRun, array: str, value: Tensor) -> Iterator[Check]:
    """Compares with the file's array, or with what it has of the best positives."""
    name, _, is_of_best = array.partition("@")
    if name not in run.golden:
        return
    expected = run.golden[name]
    if is_of_best:
        score = run.golden[f"{name.split('/')[0]}/loss/{run.names.scores[0]}"]
        best = score.argmin(1)
        expected = expected.reshape(*score.shape, *expected.shape[(1 if "/out/" in name else 2) :])
        expected = expected[np.arange(len(best)), best]
        value = value.reshape(expected.shape)
    yield compare(group, array, value, expected, _size_of_subtracted(run, array))


def _gradients(run: AncestorRun) -> Iterator[Check]:
    """Gradients of the sum of all losses, or of the reconstruction loss and of the others apart, as CNM trains."""
    golden, model = run.golden, run.model
    if run.golden.meta["model"]["name"] == "CPL":
        Objective(model.config)(run.output).total.backward()
        phases = {"grad": None}
    else:
        heads = model.mask_parameters()
        chosen = {id(parameter) for parameter in heads}
        others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
        phases = {"grad_rec": (["reconstruction"], others), "grad_ivc": (list(LOSS_TERMS)[1:], heads)}
    for prefix, phase in phases.items():
        if phase is not None:
            terms, parameters = phase
            loss = Objective(model.config, terms)(run.output).total
            loss.backward(inputs=parameters, retain_graph=True)
        gradients = released_gradients(model)
        for array in golden.arrays:
            if array.startswith(f"f64/{prefix}/"):
                yield compare("gradients", array, gradients[array.removeprefix(f"f64/{prefix}/")], golden[array])


def _check_schedule(golden: Golden, schedule: str) -> Iterator[Check]:
    for tag, dtype, suffix in (("f64", torch.float64, ""), ("f32", torch.float32, " fp32")):
        run = _run(golden, dtype, schedule)
        for name, value in _outputs(run):
            yield from _compared("outputs" + suffix, run, f"{tag}/out/{name}", value)
        for name, value in _losses(run):
            yield from _compared("losses" + suffix, run, f"{tag}/loss/{name}", value)
        if tag == "f64":
            yield from _gradients(run)


def check_ancestor(golden: Golden) -> Iterator[Check]:
    """All of a file of CPL or CNM, under the plain schedule and again under the shared one."""
    yield from _check_schedule(golden, "plain")
    for check in _check_schedule(golden, "shared"):
        yield replace(check, name=check.name + SHARED)
