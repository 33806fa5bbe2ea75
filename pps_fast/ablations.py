"""Every row of the paper's ablations as field overrides: Tables 2, 4a, 4b and 5, and the points of Figs. 3 and 4.

Paper: Section 4, "Ablation Study". A row sets every field that its label speaks of, so that it means the same under any
preset; where a table says "on", the preset's own weight is taken. A row whose config equals the preset's is the full
model and is trained once for all tables.

What the paper prints is beside each row. Figs. 3 and 4 print no figures, and their axes are not in the text: the points
of Fig. 3 and the factors of Fig. 4 are a choice of ours around the preset's own value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from pps_fast.config import Method, PPSConfig, require
from pps_fast.config_tree import override

PAPER = "paper, ActivityNet Captions, C3D; different features and split, not comparable"
FULL = "full model"

_SINGLE = {"proposals.layout": "uniform", "proposals.components_per_proposal": 1}
_PULL, _INTRA, _INTER = "losses.pull", "losses.push_intra", "losses.push_inter"
# Table 2 leaves these losses out where a proposal has one center
_NO_COUPLING = {_PULL: 0.0, _INTRA: 0.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table or point of a figure.

    Attributes:
        label: what the table calls it.
        overrides: dotted fields of the config and their values.
        factors: dotted fields that are multiplied by a number.
        paper: metric -> what the paper prints, in percent; empty where it prints nothing.
    """

    label: str
    overrides: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    def apply(self, config: PPSConfig) -> PPSConfig:
        """Returns the config of this row."""
        return override(config, self.changes(config))

    def changes(self, config: PPSConfig) -> dict[str, Any]:
        """Returns dotted fields and the values they have in this row."""
        scaled = {path: factor * float(_value(config, path)) for path, factor in self.factors.items()}
        return {**self.overrides, **scaled}


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A table or figure.

    Attributes:
        title: what it varies.
        rows: in the paper's order.
        positive: fields that must be above 0 in the preset, because a row says that they are on.
        note: what a reader must know about the rows.
        method: of the models that the rows are about.
    """

    title: str
    rows: tuple[Row, ...]
    positive: tuple[str, ...] = ()
    note: str = ""
    method: Method = "proposals"

    def check(self, config: PPSConfig) -> None:
        """Raises ValueError where the rows would not be what their labels say under this config."""
        expected = f"{self.method!r}, which '{self.title}' is about; choose another --preset"
        require(config.method == self.method, "method", config.method, expected)
        for path in self.positive:
            value = _value(config, path)
            require(value > 0, path, value, f"above 0, since rows of '{self.title}' say that it is on")


def _value(config: PPSConfig, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


def _figures(*values: float) -> dict[str, float]:
    """Returns the four columns of Tables 2 and 5."""
    return dict(zip(("R@1 IoU>=0.3", "R@1 mIoU", "R@5 IoU>=0.3", "R@5 mIoU"), values, strict=True))


def _means(first: float, fifth: float) -> dict[str, float]:
    """Returns the two columns of Tables 4a and 4b."""
    return {"R@1 mIoU": first, "R@5 mIoU": fifth}


def _generation(center: str, width: str) -> dict[str, Any]:
    return {"generator.center_source": center, "generator.width_source": width}


def _importance(source: str) -> dict[str, Any]:
    return {"reconstructor.importance": source}


def _every(count: int) -> dict[str, Any]:
    return {"proposals.layout": "uniform", "proposals.components_per_proposal": count}


def _losses(*on: str) -> dict[str, Any]:
    """Returns weight 0 for each of the three losses that is not on."""
    return {path: 0.0 for path in (_PULL, _INTRA, _INTER) if path not in on}


_BEST = _figures(59.29, 37.59, 85.54, 58.78)
_RAMP = {"proposals.layout": "ramp"}

TABLE_2 = Ablation(
    title="Gaussian mixture proposals (Table 2)",
    rows=(
        Row(
            label="single Gaussian",
            overrides={**_SINGLE, **_NO_COUPLING},
            paper=_figures(47.49, 33.33, 78.23, 54.85),
        ),
        Row(label="Gaussian mixture", overrides=_RAMP, paper=_BEST),
        Row(
            label="one center, several widths",
            overrides={**_generation("per_proposal", "per_component"), **_NO_COUPLING},
            paper=_figures(46.63, 31.54, 83.65, 59.49),
        ),
        Row(
            label="several centers and widths",
            overrides=_generation("per_component", "per_component"),
            paper=_figures(47.82, 32.08, 84.09, 56.35),
        ),
        Row(label="several centers, one width", overrides=_generation("per_component", "per_proposal"), paper=_BEST),
        Row(label="importance: none", overrides=_importance("none"), paper=_figures(52.55, 34.56, 79.67, 58.41)),
        Row(
            label="importance: generator",
            overrides=_importance("generator"),
            paper=_figures(48.55, 32.36, 78.96, 56.87),
        ),
        Row(label="importance: reconstructor", overrides=_importance("reconstructor"), paper=_BEST),
    ),
    positive=(_PULL, _INTRA),
    note="'Single Gaussian' and 'one center' train without L_pull and L_push^intra, as in the paper's table.",
)

TABLE_4A = Ablation(
    title="number of components of a proposal (Table 4a)",
    rows=(
        Row(label="fix to 1", overrides={**_SINGLE, **_NO_COUPLING}, paper=_means(33.33, 54.85)),
        Row(label="fix to 3", overrides=_every(3), paper=_means(35.91, 56.27)),
        Row(label="fix to 5", overrides=_every(5), paper=_means(36.58, 54.36)),
        Row(label="fix to 7", overrides=_every(7), paper=_means(36.25, 49.48)),
        Row(label="vary", overrides=_RAMP, paper=_means(37.59, 58.78)),
    ),
    positive=(_PULL, _INTRA),
    note="'Fix to 1' is Table 2's single Gaussian, without L_pull and L_push^intra: the paper prints the same figures.",
)

TABLE_4B = Ablation(
    title="strategy of the pulling loss (Table 4b)",
    rows=tuple(
        Row(label=label, overrides={"losses.pull_strategy": strategy}, paper=paper)
        for label, strategy, paper in (
            ("all", "all", _means(35.41, 56.87)),
            ("to middle", "middle", _means(35.83, 58.92)),
            ("distant", "distant", _means(37.59, 58.78)),
        )
    ),
    positive=(_PULL,),
)

TABLE_5 = Ablation(
    title="losses of the pull-push scheme (Table 5)",
    rows=tuple(
        Row(label=label, overrides=_losses(*on), paper=_figures(*paper))
        for label, on, paper in (
            ("none", (), (45.23, 30.98, 67.86, 47.75)),
            ("pull", (_PULL,), (55.03, 36.79, 72.49, 51.14)),
            ("intra", (_INTRA,), (45.69, 29.83, 71.51, 49.69)),
            ("inter", (_INTER,), (23.50, 15.96, 72.30, 44.46)),
            ("intra + inter", (_INTRA, _INTER), (23.47, 16.38, 66.15, 38.20)),
            ("pull + inter", (_PULL, _INTER), (41.51, 30.23, 85.18, 60.44)),
            ("pull + intra", (_PULL, _INTRA), (49.98, 32.46, 80.54, 55.26)),
            ("pull + intra + inter", (_PULL, _INTRA, _INTER), (59.29, 37.59, 85.54, 58.78)),
        )
    ),
    positive=(_PULL, _INTRA, _INTER),
)

FIG_3 = Ablation(
    title="number of proposals K and of components of an easy negative E_en (Fig. 3)",
    rows=(
        *(Row(label=f"K = {n}", overrides={"proposals.num_proposals": n}) for n in (1, 3, 5, 7, 9)),
        *(Row(label=f"E_en = {n}", overrides={"proposals.negatives.num_components": n}) for n in (1, 2, 3, 4, 5)),
    ),
    note="The figure's points are not in the paper's text, so that no published figures stand here; the text says that "
    "R@1 mIoU grows until K = 5. R@n has n = min(K, 5): compare columns of one n only.",
)

FIG_4 = Ablation(
    title="weights of the pull-push losses, alpha_2 to alpha_4 (Fig. 4)",
    rows=tuple(
        Row(label=f"{symbol} x {name}", factors={path: factor})
        for symbol, path in (("alpha_2", _PULL), ("alpha_3", _INTRA), ("alpha_4", _INTER))
        for name, factor in (("0", 0.0), ("1/10", 0.1), ("1/3", 1 / 3), ("1", 1.0), ("3", 3.0), ("10", 10.0))
    ),
    positive=(_PULL, _INTRA, _INTER),
    note="Factors on the preset's own weights. The figure's axes are not in the paper's text, so that these points are "
    "a choice of ours and no published figures stand here.",
)

EVIDENCE = Ablation(
    title="the paper's claims: mixture, pull and push",
    rows=(
        Row(label=FULL, paper=_BEST),
        Row(
            label="single Gaussian",
            overrides={**_SINGLE, **_NO_COUPLING},
            paper=_figures(47.49, 33.33, 78.23, 54.85),
        ),
        Row(label="without pull", overrides=_losses(_INTRA, _INTER), paper=_figures(23.47, 16.38, 66.15, 38.20)),
        Row(label="without push", overrides=_losses(_PULL), paper=_figures(55.03, 36.79, 72.49, 51.14)),
        Row(label="without pull and push", overrides=_losses(), paper=_figures(45.23, 30.98, 67.86, 47.75)),
    ),
    positive=(_PULL, _INTRA, _INTER),
    note="'Single Gaussian' trains without L_pull and L_push^intra, as in Table 2; 'without push' leaves out both.",
)


_REBUILT = {"losses.reconstruction": 1.0, "losses.contrastive": 3.0}
_NOT_REBUILT = dict.fromkeys(_REBUILT, 0.0)


def _trained(label: str, losses: dict[str, float], selector: str = "alignment", weight: float = 1.0) -> Row:
    return Row(label=label, overrides={**losses, "losses.alignment": weight, "inference.selector": selector})


ALIGNMENT = Ablation(
    title="PPS with alignment: losses, selection, reading of moments, components, input",
    rows=(
        _trained("losses: reconstruction", _REBUILT, weight=0.0),
        _trained("losses: alignment", _NOT_REBUILT),
        _trained("losses: both", _REBUILT),
        _trained("both, selected by lowest C", _REBUILT, "lowest_loss"),
        _trained("both, selected by votes", _REBUILT, "vote_loss_weighted"),
        _trained("alignment, selected by votes", _NOT_REBUILT, "vote"),
        Row(label="moment: center and width", overrides={"proposals.boundaries": "center_width"}),
        Row(label="moment: level of the mask", overrides={"proposals.boundaries": "mask_level"}),
        Row(label="moment: mass of the mask", overrides={"proposals.boundaries": "mass"}),
        Row(label="moment: mean of width and mass", overrides={"proposals.boundaries": "mean"}),
        Row(label="single Gaussian", overrides={**_SINGLE, **_NO_COUPLING}),
        Row(label="Gaussian mixture", overrides=_RAMP),
        Row(label="input: frames", overrides={"encoder.curve": "none"}),
        Row(label="input: curve", overrides={"encoder.curve": "only"}),
        Row(label="input: both", overrides={"encoder.curve": "added"}),
    ),
    positive=("losses.alignment",),
    note="'Reconstruction' is L_rec and L_ivc, C a proposal's loss of it; selection is by reward unless named.",
)

_POOLED = {"pooling": "cross", "curve": "linear", "reading": "filter", "position_prior": 0, "duration_prior": 0}
_POOLED |= {"change": 0, "parts": 4, "pooling_curve": "linear", "sharpness": 2}
_PRIORS = {"curve": "standardized", "position_prior": 0.2, "duration_prior": 0.5}
_CHANGES = {"change": 0.4, "parts": 8, "pooling_curve": "standardized", "sharpness": 2.5}


def _fitted(label: str, **options: Any) -> Row:
    """Returns a row of the closed-form alignment; what it does not name has its default."""
    return Row(label=label, overrides={f"alignment.{name}": value for name, value in {**_POOLED, **options}.items()})


ALIGNMENT_FIT = Ablation(
    title="closed-form alignment: pooling of frames, curve and reading",
    rows=(
        _fitted("cross, Gaussian filter"),
        _fitted("cross, max-sum window", reading="window"),
        _fitted("once, Gaussian filter", pooling="once"),
        _fitted("once, max-sum window", pooling="once", reading="window"),
        _fitted("no re-pooling, Gaussian filter", pooling="mean"),
        _fitted("cross, standardized curve", curve="standardized"),
        _fitted("standardized curve, priors", **_PRIORS),
        _fitted("priors and changes of frames", **_PRIORS, **_CHANGES),
    ),
    method="alignment",
    note="Fitted to training pairs without times; the seed of a run decides nothing.",
)

ABLATIONS: dict[str, Ablation] = {
    "alignment_fit": ALIGNMENT_FIT,
    "alignment": ALIGNMENT,
    "table2": TABLE_2,
    "table4a": TABLE_4A,
    "table4b": TABLE_4B,
    "table5": TABLE_5,
    "fig3": FIG_3,
    "fig4": FIG_4,
    "evidence": EVIDENCE,
}
