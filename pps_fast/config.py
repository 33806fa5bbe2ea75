"""Every knob of the project as frozen dataclasses; defaults are the paper's (Charades-STA).

The command line is generated from these classes, and a resolved config is written as JSON beside
every checkpoint and result. Choices are `Literal`s; the registries that implement them carry the
same strings as keys, which a test asserts.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

MaskShape = Literal["gaussian", "gaussian_peak", "laplace"]
CenterSource = Literal["per_component", "per_proposal"]
WidthSource = Literal["per_proposal", "per_component", "first", "across_batch"]
LayoutKind = Literal["ramp", "uniform"]
NegativeKind = Literal[
    "learned", "learned_inverse", "inverse", "sides", "sides_saturated", "sides_apart", "complement"
]  # fmt: skip
FrameSummary = Literal["cls", "last_frame"]
ReconstructorPlan = Literal["shared", "plain"]
ImportanceSource = Literal["reconstructor", "generator", "none"]
WordCls = Literal["vector", "scalar_per_batch_position", "none"]
WordTokens = Literal["projected", "reused"]
TargetLength = Literal["exact", "plus_one", "end_of_sentence"]
PullStrategy = Literal["distant", "middle", "all"]
Selector = Literal["vote", "vote_loss_weighted", "vote_iou_weighted", "lowest_loss"]
Backend = Literal["auto", "triton", "torch"]
Precision = Literal["fp32", "tf32", "bf16"]
KeepPolicy = Literal["last", "validation"]
Optimisation = Literal["joint", "alternating"]


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raises ValueError "name = value: expected ..." unless `condition` holds."""
    if not condition:
        raise ValueError(f"{name} = {value!r}: expected {expected}")


def _check_choices(config: Any, prefix: str) -> None:
    """Raises ValueError for a field whose value is not one of its Literal's strings."""
    hints = typing.get_type_hints(type(config))
    for item in dataclasses.fields(config):
        hint = hints[item.name]
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            value = getattr(config, item.name)
            require(value in choices, f"{prefix}.{item.name}", value, "one of " + ", ".join(choices))


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """The embedded planted-moment data set (`pps_fast.data.synthetic`)."""

    num_videos: int = 500
    """videos; a fifth of them are the test split"""
    num_segments: int = 64
    """segments per video, S"""
    frame_dim: int = 32
    """width of a segment feature"""
    noise: float = 0.5
    """standard deviation of the noise added to every segment feature"""
    seed: int = 0
    """seed of the whole data set"""

    def __post_init__(self) -> None:
        require(self.num_videos >= 10, "data.planted.num_videos", self.num_videos, "at least 10")
        require(self.num_segments >= 16, "data.planted.num_segments", self.num_segments, "at least 16")
        require(self.frame_dim >= 2, "data.planted.frame_dim", self.frame_dim, "at least 2")
        require(self.noise >= 0, "data.planted.noise", self.noise, "0 or more")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples are trained and tested on."""

    path: str | None = None
    """file written by `python -m pps_fast.prepare`; without one, the embedded planted-moment data"""
    fold: int | None = None
    """test on this fold and train on the others (prepared with --folds); without one, the file's own splits"""
    validation_fraction: float = 0.0
    """share of the training videos held out for choosing a checkpoint, when the file has no validation split"""
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    """the embedded data set; ignored with data.path"""

    def __post_init__(self) -> None:
        require(self.fold is None or self.fold >= 0, "data.fold", self.fold, "0 or more")
        require(0 <= self.validation_fraction < 1, "data.validation_fraction", self.validation_fraction, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Widths shared by all transformers."""

    hidden_dim: int = 256
    """D"""
    num_heads: int = 4
    """attention heads"""
    dropout: float = 0.1
    """on inputs and residual branches"""
    frame_summary: FrameSummary = "cls"
    """where the generator's summary of the video is read: at a learned token behind the frames, or at the last frame"""

    def __post_init__(self) -> None:
        _check_choices(self, "encoder")
        require(self.hidden_dim > 0 and self.hidden_dim % 2 == 0, "encoder.hidden_dim", self.hidden_dim, "even, > 0")
        require(
            self.num_heads > 0 and self.hidden_dim % self.num_heads == 0,
            "encoder.num_heads",
            self.num_heads,
            f"a divisor of encoder.hidden_dim = {self.hidden_dim}",
        )
        require(0 <= self.dropout < 1, "encoder.dropout", self.dropout, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Gaussian mixture proposal generator: transformer and heads (Eqs. 1, 2)."""

    num_layers: int = 3
    """layers of the video stack, and of the word stack"""
    num_word_layers: int | None = None
    """layers of the word stack, when it has another number"""
    center_source: CenterSource = "per_component"
    """a center for every component, or one for the whole proposal (Table 2)"""
    width_source: WidthSource = "per_proposal"
    """whose width a component has; 'across_batch' is the published code's mix-up of samples, 'first' its repair"""
    max_width: float = 1.0
    """largest width of a component, as a share of the video"""

    def __post_init__(self) -> None:
        _check_choices(self, "generator")
        require(self.num_layers >= 1, "generator.num_layers", self.num_layers, "at least 1")
        words = self.num_word_layers
        require(words is None or words >= 1, "generator.num_word_layers", words, "at least 1")
        require(0 < self.max_width <= 1, "generator.max_width", self.max_width, "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Easy negatives."""

    kind: NegativeKind = "learned"
    """how the easy negatives are made; 'sides_apart' (CPL) has two for each proposal, what lies before it and what
    lies after it, 'complement' (CNM) is 1 - the proposal's mask"""
    num_components: int = 3
    """E_en, components of each learned easy negative"""
    mask_shape: MaskShape = "gaussian"
    """shape of their components"""
    sigma: float = 9.0
    """width / standard deviation of their components"""
    curriculum: float = 0.0
    """'sides_apart' comes in from the video's ends by the share of the epochs to this power; with 0, it is in"""

    def __post_init__(self) -> None:
        _check_choices(self, "proposals.negatives")
        require(self.curriculum >= 0, "proposals.negatives.curriculum", self.curriculum, "0 or more")
        require(self.num_components >= 1, "proposals.negatives.num_components", self.num_components, "at least 1")
        require(self.sigma > 0, "proposals.negatives.sigma", self.sigma, "> 0")


@dataclass(frozen=True, kw_only=True)
class ProposalsConfig:
    """Gaussian masks, mixtures, negatives and boundaries (Eqs. 3, 4)."""

    num_proposals: int = 7
    """K"""
    layout: LayoutKind = "ramp"
    """'ramp': proposal k has k components; 'uniform': every proposal has `components_per_proposal`"""
    components_per_proposal: int = 1
    """components of every proposal under layout 'uniform'"""
    mask_shape: MaskShape = "gaussian"
    """'gaussian' is Eq. 3; 'gaussian_peak' the published exp(-d^2/2s^2) divided by its peak"""
    sigma: float = 9.0
    """width / standard deviation of a component"""
    width_floor: float = 0.01
    """smallest width a mask is drawn with"""
    boundary_shrink: float = 0.0
    """gamma: share of a proposal's length taken off its boundaries"""
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    """easy negatives"""

    @property
    def has_mixtures(self) -> bool:
        """Whether a proposal has more than one component."""
        return (self.num_proposals if self.layout == "ramp" else self.components_per_proposal) > 1

    def __post_init__(self) -> None:
        _check_choices(self, "proposals")
        require(self.num_proposals >= 1, "proposals.num_proposals", self.num_proposals, "at least 1")
        require(
            self.components_per_proposal >= 1,
            "proposals.components_per_proposal",
            self.components_per_proposal,
            "at least 1",
        )
        require(self.sigma > 0, "proposals.sigma", self.sigma, "> 0")
        require(self.width_floor > 0, "proposals.width_floor", self.width_floor, "> 0 (a mask of width 0 is 0/0)")
        require(0 <= self.boundary_shrink < 1, "proposals.boundary_shrink", self.boundary_shrink, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ReconstructorConfig:
    """Importance-based reconstructor (Eqs. 8-10)."""

    num_layers: int = 3
    """layers of the video stack, and of the word stack"""
    num_word_layers: int | None = None
    """layers of the word stack, when it has another number"""
    shares_generator: bool = False
    """run the generator's transformer, whose frames then attend to words there and whose words to frames here"""
    plan: ReconstructorPlan = "shared"
    """how the passes are computed: 'plain' runs every mask through everything, 'shared' leaves out what cannot matter
    and does once what masks have in common; the results are the same"""
    stride: int = 4
    """every stride-th segment is a mask position; 1 keeps all"""
    importance: ImportanceSource = "reconstructor"
    """where importance weights come from (Table 2); 'none' sums the masks and divides by the peak"""
    word_cls: WordCls = "vector"
    """a learned vector, the published code's scalar that depends on the position in the batch, or no such token"""
    word_tokens: WordTokens = "projected"
    """'projected': the whole sentence with dropout of its own; 'reused': the generator's words, but not the last one"""
    target_length: TargetLength = "exact"
    """targets per sentence: its words; 'plus_one' adds the published off-by-one, 'end_of_sentence' always one more"""
    label_smoothing: float = 0.1
    """share of the target spread over the vocabulary"""
    hidden_words_divisor: int = 3
    """one in this many words is hidden, at least one"""

    def __post_init__(self) -> None:
        _check_choices(self, "reconstructor")
        require(self.num_layers >= 1, "reconstructor.num_layers", self.num_layers, "at least 1")
        words = self.num_word_layers
        require(words is None or words >= 1, "reconstructor.num_word_layers", words, "at least 1")
        require(self.stride >= 1, "reconstructor.stride", self.stride, "at least 1")
        require(0 <= self.label_smoothing < 1, "reconstructor.label_smoothing", self.label_smoothing, "0 to below 1")
        require(
            self.hidden_words_divisor >= 1,
            "reconstructor.hidden_words_divisor",
            self.hidden_words_divisor,
            "at least 1",
        )


@dataclass(frozen=True, kw_only=True)
class LossesConfig:
    """Weights and constants of the five losses; a term of weight 0 is not computed."""

    reconstruction: float = 1.0
    """weight of C(best positive) + C(whole video)"""
    contrastive: float = 3.0
    """alpha_1, intra-video contrastive"""
    pull: float = 5.0
    """alpha_2 (Eq. 5)"""
    push_intra: float = 0.001
    """alpha_3 (Eq. 6)"""
    push_inter: float = 1.0
    """alpha_4 (Eq. 7)"""
    whole_video_margin: float = 0.1
    """beta_1"""
    negative_margin: float = 0.15
    """beta_2"""
    push_intra_target: float = 0.15
    """lambda_1"""
    push_inter_target: float = 0.15
    """lambda_2"""
    push_normalize: bool = True
    """divide the rows of M and P by their sums before the Gram matrix; off is the letter of Eqs. 6 and 7"""
    push_single: bool = True
    """let a proposal of one component take part in Eq. 6, as the paper's sum does; the published code leaves it out"""
    pull_strategy: PullStrategy = "distant"
    """which centers are pulled together (Table 4b)"""
    num_best: int = 1
    """how many of the best reconstructing proposals are trained"""

    def __post_init__(self) -> None:
        _check_choices(self, "losses")
        for name in ("reconstruction", "contrastive", "pull", "push_intra", "push_inter"):
            require(getattr(self, name) >= 0, f"losses.{name}", getattr(self, name), "0 or more")
        require(self.num_best >= 1, "losses.num_best", self.num_best, "at least 1")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Selection of the answer, and how it is scored."""

    selector: Selector = "vote_loss_weighted"
    """how the top-1 moment is chosen among the ranked proposals"""
    batch_size: int = 32
    """samples per evaluation batch"""
    seed: int = 0
    """decides, with the sample's index, which words are hidden at evaluation"""
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """m of R@n, IoU >= m"""
    num_bootstrap: int = 1000
    """resamplings of the videos behind the 95 % intervals"""

    def __post_init__(self) -> None:
        _check_choices(self, "inference")
        require(self.batch_size >= 1, "inference.batch_size", self.batch_size, "at least 1")
        require(self.num_bootstrap >= 1, "inference.num_bootstrap", self.num_bootstrap, "at least 1")
        require(
            len(self.iou_thresholds) > 0 and all(0 < m <= 1 for m in self.iou_thresholds),
            "inference.iou_thresholds",
            self.iou_thresholds,
            "one or more values above 0, at most 1",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation and the loop around it."""

    epochs: int = 30
    """passes over the training samples"""
    max_steps: int | None = None
    """stop after this many updates, if the epochs have not ended before"""
    batch_size: int = 32
    """samples per update"""
    learning_rate: float = 4e-4
    """reached after the warm-up"""
    warmup_updates: int = 400
    """updates of linear warm-up; inverse square root after it"""
    warmup_learning_rate: float = 1e-7
    """learning rate of the first update"""
    clip_norm: float = 10.0
    """largest global norm of the gradient"""
    weight_decay: float = 0.0
    """decoupled"""
    precision: Precision = "fp32"
    """of matrix products: 'tf32' rounds their fp32 operands to 10 bits on GPUs that can, 'bf16' autocasts them; masks,
    softmax, losses and statistics stay fp32"""
    capture: bool = True
    """on a GPU, capture steps as CUDA graphs and replay them; what cannot be captured runs eagerly, with a warning"""
    seed: int = 8
    """of initial weights, order of samples, hidden words and dropout"""
    keep: KeepPolicy = "last"
    """which checkpoint is 'best': the last, or the one with the best validation mIoU; never the test split's"""
    evaluate_every: int = 0
    """evaluate on the validation split every so many epochs (0: only when keep = 'validation', each epoch)"""
    checkpoint_every: int = 200
    """updates between checkpoints inside an epoch; every epoch ends with one"""
    log_every: int = 10
    """updates between lines of metrics.jsonl"""
    trace_every: int = 0
    """updates between lines of trace.jsonl, which shows a few samples' proposals moving (0: none)"""
    optimise: Optimisation = "joint"
    """'alternating': the reconstruction loss updates all but the mask heads, then, with other dropout and hidden
    words, the other losses update the mask heads"""
    tensorboard: bool = False
    """also write TensorBoard events (needs the `track` extra)"""

    def __post_init__(self) -> None:
        _check_choices(self, "train")
        for name in ("epochs", "batch_size", "checkpoint_every", "log_every"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require(self.max_steps is None or self.max_steps >= 1, "train.max_steps", self.max_steps, "at least 1")
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "> 0")
        require(self.warmup_learning_rate >= 0, "train.warmup_learning_rate", self.warmup_learning_rate, "0 or more")
        require(self.warmup_updates >= 1, "train.warmup_updates", self.warmup_updates, "at least 1")
        require(self.clip_norm > 0, "train.clip_norm", self.clip_norm, "> 0")
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        for name in ("evaluate_every", "trace_every"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True, kw_only=True)
class PPSConfig:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    proposals: ProposalsConfig = field(default_factory=ProposalsConfig)
    reconstructor: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    backend: Backend = "auto"
    """'auto' takes a fused kernel where one supports the input, 'triton' insists on it, 'torch' runs the equations"""

    def __post_init__(self) -> None:
        _check_choices(self, "config")
        require(
            self.losses.num_best <= self.proposals.num_proposals,
            "losses.num_best",
            self.losses.num_best,
            f"at most proposals.num_proposals = {self.proposals.num_proposals}",
        )
        _check_mixtures(self.proposals, self.reconstructor)
        _check_words(self.reconstructor)
        _check_sharing(self.generator, self.reconstructor)
        weights = self.losses
        others = (weights.contrastive, weights.pull, weights.push_intra, weights.push_inter)
        require(
            self.train.optimise == "joint" or (weights.reconstruction > 0 and any(others)),
            "train.optimise",
            self.train.optimise,
            "losses.reconstruction and another loss above 0, one for each of the two updates",
        )


def _check_mixtures(proposals: ProposalsConfig, reconstructor: ReconstructorConfig) -> None:
    """Raises ValueError where a mixture needs what is not there, or is there where none may be."""
    require(
        reconstructor.word_cls != "none" or reconstructor.importance != "reconstructor" or not proposals.has_mixtures,
        "reconstructor.word_cls",
        reconstructor.word_cls,
        "a token, because reconstructor.importance = 'reconstructor' is read from it",
    )
    require(
        proposals.negatives.kind != "complement" or not proposals.has_mixtures,
        "proposals.negatives.kind",
        proposals.negatives.kind,
        "proposals of one component: proposals.layout = 'uniform', components_per_proposal = 1",
    )


def _check_words(reconstructor: ReconstructorConfig) -> None:
    """Raises ValueError where the reconstructor has no slot for a token it is asked for."""
    require(
        reconstructor.word_tokens == "projected"
        or (reconstructor.word_cls == "none" and reconstructor.target_length != "end_of_sentence"),
        "reconstructor.word_tokens",
        reconstructor.word_tokens,
        "word_cls = 'none' and no target_length = 'end_of_sentence', for both of which it has no slot",
    )


def _check_sharing(generator: GeneratorConfig, reconstructor: ReconstructorConfig) -> None:
    """Raises ValueError for a shared transformer of two depths."""
    depths = [(part.num_layers, part.num_word_layers or part.num_layers) for part in (generator, reconstructor)]
    require(
        not reconstructor.shares_generator or depths[0] == depths[1],
        "reconstructor.shares_generator",
        reconstructor.shares_generator,
        "as many layers (num_layers, num_word_layers) in generator and reconstructor",
    )
