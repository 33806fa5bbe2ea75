"""Our equations, selection, optimizer and preparation against `kernels_f64.npz`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.config import TrainConfig
from pps_fast.data.tokens import hiding_probabilities
from pps_fast.eval.metrics import metric_means, sample_table
from pps_fast.ops.hidden_words import hidden_words
from pps_fast.predict import pairwise_iou, predict
from pps_fast.prepare.readers.frames import resample, segment_edges
from pps_fast.proposals.layout import MixtureLayout
from pps_fast.reconstructor.reconstructor import kept_segments
from pps_fast.train.optimizer import Adam
from pps_fast.train.schedule import learning_rate
from pps_fast.types import Components, ModelOutput, Prediction, Proposals
from tests.support.golden_model import Golden
from tests.support.golden_report import Check, compare

_NO_FLOOR = 1e-300


_MASKS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "official": equations.gaussian_peak_mask,
    "laplace": equations.laplace_mask,
    "inverse": lambda c, w, sigma, n: equations.gaussian_peak_mask(c, w, sigma, n, inverse=True),
    "paper": lambda c, w, sigma, n: equations.gaussian_mask(c, w, sigma, n, width_floor=_NO_FLOOR),
    # exp(-alpha d^2 / max(w, 0.1)^2) is Eq. (3) with sigma = sqrt(alpha)
    "cnm": lambda c, w, alpha, n: equations.gaussian_mask(c, w, alpha**0.5, n, width_floor=0.1),
}
_SELECTORS = {
    "charades": "vote_loss_weighted",
    "activitynet": "vote",
    "cpl_charades": "vote_iou_weighted",
    "none": "lowest_loss",
}


def _prefixes(golden: Golden, section: str) -> list[str]:
    return sorted({"/".join(name.split("/")[:2]) for name in golden.arrays if name.startswith(section + "/")})


def _leaf(golden: Golden, name: str) -> Tensor:
    return golden.tensor(name, torch.float64).requires_grad_()


def _gradients(golden: Golden, prefix: str, leaves: dict[str, Tensor]) -> Iterator[Check]:
    for name, leaf in leaves.items():
        yield compare("kernel gradients", f"{prefix}/grad_{name}", leaf.grad, golden[f"{prefix}/grad_{name}"])


def check_masks(golden: Golden) -> Iterator[Check]:
    """Eq. (3) and its variants."""
    for prefix in _prefixes(golden, "mask"):
        leaves = {name: _leaf(golden, f"{prefix}/{name}") for name in ("center", "width")}
        shape = _MASKS[prefix.split("_", 1)[1]]
        mask, _ = shape(leaves["center"], leaves["width"], float(golden[f"{prefix}/sigma"]), int(golden[f"{prefix}/n"]))
        (mask * golden.tensor(f"{prefix}/upstream")).sum().backward()
        yield compare("kernels", f"{prefix}/mask", mask, golden[f"{prefix}/mask"])
        yield from _gradients(golden, prefix, leaves)


def check_mixtures(golden: Golden) -> Iterator[Check]:
    """Eqs. (10) and (4): one proposal per sample."""
    for prefix in _prefixes(golden, "mixture"):
        leaves = {name: _leaf(golden, f"{prefix}/{name}") for name in ("center", "width", "logit")}
        center = leaves["center"]
        group = torch.zeros(center.shape[1], dtype=torch.int64)
        width = leaves["width"].unsqueeze(1).expand_as(center)
        masks, logs = equations.gaussian_peak_mask(
            center, width, float(golden[f"{prefix}/sigma"]), int(golden[f"{prefix}/n"])
        )
        weights = equations.importance(leaves["logit"], group, 1)
        proposal = equations.mixture(masks, logs, weights, group, 1)[0].squeeze(1)
        (proposal * golden.tensor(f"{prefix}/upstream")).sum().backward()
        yield compare("kernels", f"{prefix}/attention", weights, golden[f"{prefix}/attention"])
        yield compare("kernels", f"{prefix}/each_mask", masks, golden[f"{prefix}/each_mask"])
        yield compare("kernels", f"{prefix}/proposal", proposal, golden[f"{prefix}/proposal"])
        yield from _gradients(golden, prefix, leaves)


def check_peak_mixtures(golden: Golden) -> Iterator[Check]:
    """Sum of masks divided by the peak."""
    for prefix in _prefixes(golden, "sum_max"):
        leaves = {name: _leaf(golden, f"{prefix}/{name}") for name in ("center", "width")}
        sigma, num_positions = float(golden[f"{prefix}/sigma"]), int(golden[f"{prefix}/n"])
        masks, _ = equations.gaussian_peak_mask(leaves["center"], leaves["width"], sigma, num_positions)
        group = torch.zeros(masks.shape[1], dtype=torch.int64)
        proposal = equations.peak_mixture(masks, group, 1)[0].squeeze(1)
        (proposal * golden.tensor(f"{prefix}/upstream")).sum().backward()
        yield compare("kernels", f"{prefix}/proposal", proposal, golden[f"{prefix}/proposal"])
        yield from _gradients(golden, prefix, leaves)


def check_attention(golden: Golden) -> Iterator[Check]:
    """Eq. (8)."""
    for prefix in _prefixes(golden, "attention"):
        names = ["q", "k", "v"] + (["g"] if f"{prefix}/g" in golden else [])
        leaves = {name: _leaf(golden, f"{prefix}/{name}") for name in names}
        options = {
            "key_bias": equations.log_mask(leaves["g"]) if "g" in leaves else None,
            "key_valid": golden.tensor(f"{prefix}/key_ok").bool(),
            "causal": bool(golden[f"{prefix}/causal"]),
        }
        out = equations.masked_attention(leaves["q"], leaves["k"], leaves["v"], **options)
        (out * golden.tensor(f"{prefix}/upstream")).sum().backward()
        # values that are the rows of the identity turn the output into the probabilities
        identity = torch.eye(leaves["k"].shape[2], dtype=torch.float64).expand(*leaves["k"].shape[:2], -1, -1)
        prob = equations.masked_attention(leaves["q"], leaves["k"], identity, **options)
        yield compare("kernels", f"{prefix}/out", out, golden[f"{prefix}/out"])
        yield compare("kernels", f"{prefix}/prob", prob, golden[f"{prefix}/prob"])
        yield from _gradients(golden, prefix, leaves)


def _parts(golden: Golden, prefix: str, letter: str) -> dict[str, Tensor]:
    names = [n.split("/")[-1] for n in golden.arrays if n.startswith(f"{prefix}/{letter}") and "grad" not in n]
    return {name: _leaf(golden, f"{prefix}/{name}") for name in sorted(names, key=lambda n: int(n[1:] or 0))}


def check_pull_push(golden: Golden) -> Iterator[Check]:
    """Eqs. (5)-(7)."""
    for prefix in _prefixes(golden, "pull"):
        leaves = _parts(golden, prefix, "c")
        layout = MixtureLayout(tuple(leaf.shape[1] for leaf in leaves.values()))
        loss = equations.pull_distant(torch.cat(list(leaves.values()), 1), torch.tensor(layout.group), len(leaves))
        loss.backward()
        yield compare("kernels", f"{prefix}/loss", loss, golden[f"{prefix}/loss"])
        yield from _gradients(golden, prefix, leaves)
    for prefix in _prefixes(golden, "push_intra"):
        leaves = _parts(golden, prefix, "m")
        layout = MixtureLayout(tuple(leaf.shape[1] for leaf in leaves.values()))
        masks, target = torch.cat(list(leaves.values()), 1), float(golden[f"{prefix}/lam"])
        loss = equations.push(masks, torch.tensor(layout.group), target)
        loss.backward()
        yield compare("kernels", f"{prefix}/loss", loss, golden[f"{prefix}/loss"])
        yield from _gradients(golden, prefix, leaves)
    for prefix in _prefixes(golden, "push_inter"):
        leaves = {"p": _leaf(golden, f"{prefix}/p")}
        group = torch.zeros(leaves["p"].shape[1], dtype=torch.int64)
        loss = equations.push(leaves["p"], group, float(golden[f"{prefix}/lam"]))
        loss.backward()
        yield compare("kernels", f"{prefix}/loss", loss, golden[f"{prefix}/loss"])
        yield from _gradients(golden, prefix, leaves)


def check_reconstruction(golden: Golden) -> Iterator[Check]:
    """C(.), L_rec and L_ivc."""
    logits = _leaf(golden, "c_loss/logits")
    nll = equations.reconstruction_nll(
        logits.unsqueeze(1), golden.tensor("c_loss/ids"), golden.tensor("c_loss/mask").bool(), 0.1
    ).squeeze(1)
    (nll * golden.tensor("c_loss/upstream")).sum().backward()
    yield compare("kernels", "c_loss/C", nll, golden["c_loss/C"])
    yield compare("kernel gradients", "c_loss/grad_logits", logits.grad, golden["c_loss/grad_logits"])
    names = ("c_pos", "c_hneg", "c_eneg")
    for loss_name in ("rec", "ivc"):
        leaves = {name: _leaf(golden, f"rec_ivc/{name}") for name in names}
        best = equations.best_proposals(leaves["c_pos"])
        positive, negative = leaves["c_pos"].gather(1, best), leaves["c_eneg"].gather(1, best)
        margins = (float(golden["rec_ivc/margin_hneg"]), float(golden["rec_ivc/margin_eneg"]))
        if loss_name == "rec":
            # the published code halves it
            loss = equations.reconstruction_loss(positive, leaves["c_hneg"]).mean() / 2
        else:
            loss = equations.contrastive_loss(positive, leaves["c_hneg"], negative.unsqueeze(-1), *margins)
        loss.backward()
        yield compare("kernels", f"rec_ivc/{loss_name}", loss, golden[f"rec_ivc/{loss_name}"])
        yield compare("kernels", "rec_ivc/k_star", best.squeeze(1), golden["rec_ivc/k_star"])
        for name, leaf in leaves.items():
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            array = f"rec_ivc/grad_{loss_name}_{name}"
            yield compare("kernel gradients", array, grad, golden[array])


def check_importance(golden: Golden) -> Iterator[Check]:
    """Eqs. (9) and (10), and the boundaries."""
    leaves = {name: _leaf(golden, f"importance/{name}") for name in ("h", "W1", "W2")}
    score = equations.importance_score(leaves["h"], leaves["W1"], leaves["W2"])
    weights = equations.importance(score, torch.zeros(score.shape[1], dtype=torch.int64), 1)
    (weights * golden.tensor("importance/upstream")).sum().backward()
    yield compare("kernels", "importance/attention", weights, golden["importance/attention"])
    yield from _gradients(golden, "importance", leaves)
    for prefix in _prefixes(golden, "bounds"):
        center, weights = golden.tensor(f"{prefix}/center"), golden.tensor(f"{prefix}/attention")
        width = golden.tensor(f"{prefix}/width").unsqueeze(1).expand_as(center)
        group = torch.zeros(center.shape[1], dtype=torch.int64)
        start, end = equations.boundaries(center, width, weights, group, 1, float(golden[f"{prefix}/pred_gamma"]))
        yield compare("kernels", f"{prefix}/left", start.squeeze(1), golden[f"{prefix}/left"])
        yield compare("kernels", f"{prefix}/right", end.squeeze(1), golden[f"{prefix}/right"])


def output_of(nll: Tensor, start: Tensor, end: Tensor) -> ModelOutput:
    """Wraps scored moments as a model's output, for `predict`."""
    empty = start.new_zeros(len(start), 0)
    components = Components(center=empty, width=empty, masks=empty, log_masks=empty)
    proposals = Proposals(components=components, importance=empty, masks=empty, log_masks=empty, start=start, end=end)
    return ModelOutput(proposals=proposals, positive_nll=nll)


def check_selection(
    golden: Golden, prefix: str, index: str, prediction: Prediction, moments: Tensor
) -> Iterator[Check]:
    """Votes, choice, top-1 and metrics of one rule. What is counted must be equal, what is averaged may round."""
    rounded = "kernels" if prediction.votes.dtype == torch.float64 else "outputs fp32"
    yield compare(rounded, f"{prefix}/votes", prediction.votes, golden[f"{prefix}/votes"])
    yield compare("evaluation", f"{prefix}/{index}", prediction.votes.argmax(1), golden[f"{prefix}/{index}"])
    yield compare(rounded, f"{prefix}/top1", prediction.top1, golden[f"{prefix}/top1"])
    ours = metric_means(sample_table(prediction, moments), (0.1, 0.3, 0.5, 0.7, 0.9))
    for name, value in zip(golden[f"{prefix}/metric_names"], golden[f"{prefix}/metric_values"], strict=True):
        # "R5/0.3", "R1/mIoU" or "Rank3,IoU@0.3"
        rank, metric = re.fullmatch(r"R(?:ank)?(\d+)[,/](?:IoU@)?(.+)", str(name)).groups()
        if metric == "mIoU":
            yield compare(rounded, f"{prefix}/{name}", ours[f"R@{rank} mIoU"] / 100, value)
        else:
            # shares of samples, compared as the counts they are
            count = np.rint(ours[f"R@{rank} IoU>={metric}"] / 100 * len(moments))
            yield compare("evaluation", f"{prefix}/{name}", count, np.rint(value * len(moments)))


def check_ranking(golden: Golden) -> Iterator[Check]:
    """Order, votes, choice and metrics of every rule."""
    nll, start, end = (golden.tensor(f"rank/{name}") for name in ("C", "left", "right"))
    for rule in sorted({name.split("/")[1] for name in golden.arrays if name.endswith("/votes")}):
        selector = _SELECTORS[rule]
        prediction = predict(output_of(nll, start, end), selector)
        yield compare("evaluation", "rank/order", prediction.order, golden["rank/order"])
        yield compare("kernels", "rank/selected", prediction.spans, golden["rank/selected"])
        yield compare("kernels", "rank/iou_matrix", pairwise_iou(prediction.spans), golden["rank/iou_matrix"])
        yield from check_selection(golden, f"rank/{rule}", "idx", prediction, golden.tensor("rank/gt"))


def check_optimization(golden: Golden) -> Iterator[Check]:
    """Schedule, clipping and Adam."""
    rates = [learning_rate(int(update), TrainConfig()) for update in golden["lr/update"]]
    yield compare("kernels", "lr/lr_after_update", np.array(rates), golden["lr/lr_after_update"])
    parameter = torch.nn.Parameter(golden.tensor("adam/p0").clone())
    optimizer = Adam([parameter], lr=0.0)
    for update, grad in enumerate(golden.tensor("adam/grad")):
        parameter.grad = grad.clone()
        optimizer.set_learning_rate(learning_rate(update, TrainConfig()) * float(golden["adam/lr_scale"]))
        norm = optimizer.clip_and_step(float(golden["adam/clip"]), torch.tensor(True))
        yield compare("kernels", f"adam/grad_norm[{update}]", norm, golden["adam/grad_norm"][update])
        yield compare("kernels", f"adam/trajectory[{update}]", parameter, golden["adam/trajectory"][update])


def check_preparation(golden: Golden) -> Iterator[Check]:
    """Resampling, kept segments, hiding probabilities and the number of hidden words."""
    for prefix in _prefixes(golden, "resample"):
        frames, expected = golden[f"{prefix}/x"], golden[f"{prefix}/y"]
        yield compare(
            "evaluation", f"{prefix}/edges", segment_edges(len(frames), len(expected)), golden[f"{prefix}/edges"]
        )
        yield compare("outputs fp32", f"{prefix}/y", resample(frames, len(expected)), expected)
    for prefix in _prefixes(golden, "keep_idx"):
        kept = kept_segments(int(prefix.split("T")[-1]), 4, torch.device("cpu"))
        yield compare("evaluation", f"{prefix}/idx", kept, golden[f"{prefix}/idx"])
    # "the" is a function word, "door" a content word
    tokens = ["door" if weight == 2 else "the" for weight in golden["word_weight/tag_weight"]]
    probability = hiding_probabilities(tokens).astype(np.float32)
    yield compare("kernels", "word_weight/p", probability, golden["word_weight/p"])
    length = golden.tensor("n_hidden/length")
    noise = torch.zeros(len(length), int(length.max()))
    is_word = torch.arange(noise.shape[1]) < length.unsqueeze(1)
    count = hidden_words(is_word.float(), noise, length, 3).sum(1)
    # the published code rejects a sentence without words; this package hides none of them
    expected = np.where(golden["n_hidden/length"] == 0, 0, golden["n_hidden/n"])
    yield compare("evaluation", "n_hidden/n", count, expected)


def check_kernels(golden: Golden) -> Iterator[Check]:
    """All sections of the file."""
    for section in (
        check_masks,
        check_mixtures,
        check_peak_mixtures,
        check_attention,
        check_pull_push,
        check_reconstruction,
        check_importance,
        check_ranking,
        check_optimization,
        check_preparation,
    ):
        yield from section(golden)
