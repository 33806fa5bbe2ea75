"""All options of models and training as frozen dataclasses; the defaults are the paper's for Charades-STA.

The command line and its help are generated from these classes, and the config of a run is written as JSON beside
every checkpoint and result. Choices are `Literal`s; the dicts that implement them have the same strings as keys,
which a test checks.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pps_fast.config_limits import LARGEST

MaskShape = Literal["gaussian", "gaussian_peak", "laplace"]
CenterSource = Literal["per_component", "per_proposal"]
WidthSource = Literal["per_proposal", "per_component", "first", "across_batch"]
LayoutKind = Literal["ramp", "uniform"]
NegativeKind = Literal["learned", "learned_inverse", "inverse", "sides", "sides_saturated", "sides_apart", "complement"]
FrameSummary = Literal["cls", "last_frame"]
FrameInput = Literal["raw", "centered", "standardized"]
ReconstructorSchedule = Literal["shared", "plain"]
ImportanceSource = Literal["reconstructor", "generator", "none"]
WordCls = Literal["vector", "scalar_per_batch_position", "none"]
WordTokens = Literal["projected", "reused"]
TargetLength = Literal["exact", "plus_one", "end_of_sentence"]
PullStrategy = Literal["distant", "middle", "all"]
Selector = Literal["vote", "vote_loss_weighted", "vote_iou_weighted", "lowest_loss", "alignment"]
CurveInput = Literal["none", "added", "only"]
BoundaryReading = Literal["center_width", "mask_level", "mass", "mean"]
Backend = Literal["auto", "triton", "torch"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
EvaluationPrecision = Literal["fp32", "bf16"]
KeepPolicy = Literal["last", "validation"]
Update = Literal["joint", "alternating"]
Method = Literal["proposals", "alignment"]
FramePooling = Literal["cross", "once", "mean"]
CurveKind = Literal["linear", "standardized"]
CurveReading = Literal["filter", "window"]
AlignmentMap = Literal["fitted", "identity"]
SentenceSource = Literal["auto", "words", "vectors"]
Residence = Literal["auto", "device", "host", "disk"]


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raises ValueError "name = value: expected ..." unless `condition` holds."""
    if not condition:
        raise ValueError(f"{name} = {value!r}: expected {expected}")


def _check_values(config: Any, prefix: str) -> None:
    """Raises ValueError for a number not finite or above `LARGEST`, or a value that is not in its Literal."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, name), typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            require(value in choices, f"{prefix}.{name}", value, "one of " + ", ".join(choices))
        require(hint is not float or math.isfinite(value), f"{prefix}.{name}", value, "a finite number")
        most = LARGEST.get(f"{prefix}.{name}")
        if most is not None and value is not None:
            require(value <= most, f"{prefix}.{name}", value, f"at most {most:,}")


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """The embedded synthetic data set, with moments planted in random features (`pps_fast.data.synthetic`)."""

    num_videos: int = 500
    """number of videos; a fifth of them are the test split"""
    num_segments: int = 64
    """segments of each video (S)"""
    frame_dim: int = 32
    """size of the feature vector of a segment"""
    noise: float = 0.5
    """standard deviation of the noise added to every segment feature"""
    seed: int = 0
    """seed of everything random in the data set"""

    def __post_init__(self) -> None:
        _check_values(self, "data.planted")
        require(self.num_videos >= 10, "data.planted.num_videos", self.num_videos, "at least 10")
        require(self.num_segments >= 16, "data.planted.num_segments", self.num_segments, "at least 16")
        require(self.frame_dim >= 2, "data.planted.frame_dim", self.frame_dim, "at least 2")
        require(self.noise >= 0, "data.planted.noise", self.noise, "0 or more")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The samples to train and test on."""

    path: str | None = None
    """data file written by `python -m pps_fast.prepare`; default: the embedded synthetic data"""
    fold: int | None = None
    """test on this fold and train on the others, for a file prepared with --folds; default: the file's own splits"""
    validation_fraction: float = 0.0
    """share of the training videos held out for validation, if the file has no validation split"""
    residence: Residence = "auto"
    """where features live: in a GPU's memory, the host's, or the file; same batches; 'auto' goes by size and says so"""
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    """the embedded data set; unused with data.path"""

    def __post_init__(self) -> None:
        _check_values(self, "data")
        require(self.fold is None or self.fold >= 0, "data.fold", self.fold, "0 or more")
        require(0 <= self.validation_fraction < 1, "data.validation_fraction", self.validation_fraction, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Options that all transformers share."""

    hidden_dim: int = 256
    """size of all hidden vectors (D)"""
    num_heads: int = 4
    """attention heads of each layer"""
    dropout: float = 0.1
    """dropout probability of inputs and residual branches"""
    frame_summary: FrameSummary = "cls"
    """where the generator reads its summary of the video: at a learned token after the frames, or at the last frame"""
    frames: FrameInput = "raw"
    """take features as they are, or less their mean over the training videos, or that over their standard deviation"""
    curve: CurveInput = "none"
    """give the generator the alignment's curve of the query, beside the frames ('added') or in their place ('only')"""

    def __post_init__(self) -> None:
        _check_values(self, "encoder")
        require(self.hidden_dim > 0 and self.hidden_dim % 2 == 0, "encoder.hidden_dim", self.hidden_dim, "even, > 0")
        is_divisor = self.num_heads > 0 and self.hidden_dim % self.num_heads == 0
        require(is_divisor, "encoder.num_heads", self.num_heads, f"a divisor of encoder.hidden_dim = {self.hidden_dim}")
        require(0 <= self.dropout < 1, "encoder.dropout", self.dropout, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The proposal generator: a transformer and the heads that predict Gaussians (Eqs. 1, 2)."""

    num_layers: int = 3
    """transformer layers for the video, and for the sentence"""
    num_word_layers: int | None = None
    """transformer layers for the sentence, if different from num_layers"""
    center_source: CenterSource = "per_component"
    """predict a center for each Gaussian, or one for the whole proposal (Table 2)"""
    width_source: WidthSource = "per_proposal"
    """predict a width for each proposal or for each Gaussian. 'across_batch' repeats the published code, which mixes up
    the samples of a batch; 'first' is that code without the mix-up"""
    max_width: float = 1.0
    """largest width of a Gaussian, as a share of the video"""

    def __post_init__(self) -> None:
        _check_values(self, "generator")
        require(self.num_layers >= 1, "generator.num_layers", self.num_layers, "at least 1")
        words = self.num_word_layers
        require(words is None or words >= 1, "generator.num_word_layers", words, "at least 1")
        require(0 < self.max_width <= 1, "generator.max_width", self.max_width, "above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Easy negatives: masks of parts of the video that a proposal should not match."""

    kind: NegativeKind = "learned"
    """how easy negatives are made. 'learned' predicts their Gaussians; 'sides_apart' (CPL) takes what lies before and
    what lies after each proposal; 'complement' (CNM) is 1 - the proposal's mask"""
    num_components: int = 3
    """Gaussians in each learned easy negative (E_en)"""
    mask_shape: MaskShape = "gaussian"
    """shape of a component of an easy negative"""
    sigma: float = 9.0
    """width of a component of an easy negative divided by its standard deviation"""
    curriculum: float = 0.0
    """exponent of the curriculum of 'sides_apart': negatives move inward as (epoch / epochs) ** curriculum; 0: off"""

    def __post_init__(self) -> None:
        _check_values(self, "proposals.negatives")
        require(self.curriculum >= 0, "proposals.negatives.curriculum", self.curriculum, "0 or more")
        require(self.num_components >= 1, "proposals.negatives.num_components", self.num_components, "at least 1")
        require(self.sigma > 0, "proposals.negatives.sigma", self.sigma, "> 0")


@dataclass(frozen=True, kw_only=True)
class ProposalsConfig:
    """Proposals as mixtures of Gaussian masks, their boundaries and their negatives (Eqs. 3, 4)."""

    num_proposals: int = 7
    """proposals for each query (K)"""
    layout: LayoutKind = "ramp"
    """'ramp': proposal k is a mixture of k Gaussians; 'uniform': of components_per_proposal Gaussians each"""
    components_per_proposal: int = 1
    """Gaussians of each proposal with layout = 'uniform'"""
    mask_shape: MaskShape = "gaussian"
    """'gaussian' is Eq. 3; 'gaussian_peak' is the published code's, divided by its peak; 'laplace' is an ablation"""
    sigma: float = 9.0
    """width of a Gaussian divided by its standard deviation"""
    width_floor: float = 0.01
    """smallest width of a mask, as a share of the video"""
    boundary_shrink: float = 0.0
    """share of a proposal's length that is cut off its two ends (gamma)"""
    boundaries: BoundaryReading = "center_width"
    """how a moment is read: center -+ width / 2, at the paper's sigma = 9 (4) where the trained mask is e^-20 (e^-4);
    where the mask is e^-2 of its peak; the middle 80 % of its mass; or 'mean' of 'center_width' and 'mass'"""
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    """masks that a proposal is contrasted with"""

    @property
    def has_mixtures(self) -> bool:
        """Whether a proposal has more than one component."""
        return (self.num_proposals if self.layout == "ramp" else self.components_per_proposal) > 1

    def __post_init__(self) -> None:
        _check_values(self, "proposals")
        require(self.num_proposals >= 1, "proposals.num_proposals", self.num_proposals, "at least 1")
        count = self.components_per_proposal
        require(count >= 1, "proposals.components_per_proposal", count, "at least 1")
        require(self.sigma > 0, "proposals.sigma", self.sigma, "> 0")
        require(self.width_floor > 0, "proposals.width_floor", self.width_floor, "> 0 (a mask of width 0 is 0/0)")
        require(0 <= self.boundary_shrink < 1, "proposals.boundary_shrink", self.boundary_shrink, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ReconstructorConfig:
    """The reconstructor, which predicts hidden words of the query from a masked video (Eqs. 8-10)."""

    num_layers: int = 3
    """transformer layers for the video, and for the sentence"""
    num_word_layers: int | None = None
    """transformer layers for the sentence, if different from num_layers"""
    shares_generator: bool = False
    """use the generator's transformer instead of one of its own, as CPL and CNM do"""
    schedule: ReconstructorSchedule = "shared"
    """how it is computed, with the same results: 'plain' runs every mask through every layer, 'shared' skips unused
    work and does once what masks have in common"""
    stride: int = 4
    """use every stride-th segment of the video; 1 uses all"""
    importance: ImportanceSource = "reconstructor"
    """which part weights the Gaussians of a mixture (Table 2); 'none' sums them and divides by the peak"""
    word_cls: WordCls = "vector"
    """token before the words: a learned vector, none, or the published code's scalar for each position in a batch"""
    word_tokens: WordTokens = "projected"
    """'projected' embeds the words anew, with other dropout; 'reused' takes the generator's, without the last word"""
    target_length: TargetLength = "exact"
    """words to predict: the sentence's, the same and an end token, or with the published code's off-by-one"""
    label_smoothing: float = 0.1
    """share of the target probability that is spread over the vocabulary"""
    hidden_words_divisor: int = 3
    """hide one word in this many, at least one in each sentence"""

    def __post_init__(self) -> None:
        _check_values(self, "reconstructor")
        require(self.num_layers >= 1, "reconstructor.num_layers", self.num_layers, "at least 1")
        words = self.num_word_layers
        require(words is None or words >= 1, "reconstructor.num_word_layers", words, "at least 1")
        require(self.stride >= 1, "reconstructor.stride", self.stride, "at least 1")
        require(0 <= self.label_smoothing < 1, "reconstructor.label_smoothing", self.label_smoothing, "0 to below 1")
        divisor = self.hidden_words_divisor
        require(divisor >= 1, "reconstructor.hidden_words_divisor", divisor, "at least 1")


@dataclass(frozen=True, kw_only=True)
class LossesConfig:
    """Weights and constants of the losses; a loss of weight 0 is not computed."""

    reconstruction: float = 1.0
    """weight of the reconstruction loss, of the best proposal plus of the whole video"""
    contrastive: float = 3.0
    """weight of the contrastive loss within a video (alpha_1)"""
    pull: float = 5.0
    """weight of the pulling loss (alpha_2, Eq. 5)"""
    push_intra: float = 0.001
    """weight of the pushing loss between Gaussians of a proposal (alpha_3, Eq. 6)"""
    push_inter: float = 1.0
    """weight of the pushing loss between proposals (alpha_4, Eq. 7)"""
    alignment: float = 0.0
    """weight of minus the mean reward of the proposals' masks against the alignment's curve of the query"""
    whole_video_margin: float = 0.1
    """margin of the contrastive loss to the whole video (beta_1)"""
    negative_margin: float = 0.15
    """margin of the contrastive loss to the easy negatives (beta_2)"""
    push_intra_target: float = 0.15
    """overlap that Gaussians of a proposal are pushed to (lambda_1)"""
    push_inter_target: float = 0.15
    """overlap that proposals are pushed to (lambda_2)"""
    push_normalize: bool = True
    """divide each mask by its sum in the pushing losses; off: exactly as Eqs. 6 and 7 are printed"""
    push_single: bool = True
    """include proposals of a single Gaussian in Eq. 6, as in the paper; the published code leaves them out"""
    pull_strategy: PullStrategy = "distant"
    """which centers of a proposal are pulled together (Table 4b)"""
    num_best: int = 1
    """train this many proposals of each query, those that reconstruct it best"""

    def __post_init__(self) -> None:
        _check_values(self, "losses")
        for name in ("reconstruction", "contrastive", "pull", "push_intra", "push_inter", "alignment"):
            require(getattr(self, name) >= 0, f"losses.{name}", getattr(self, name), "0 or more")
        require(self.num_best >= 1, "losses.num_best", self.num_best, "at least 1")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How the answer is chosen among the proposals, and how it is scored."""

    selector: Selector = "vote_loss_weighted"
    """how the answer is chosen: by votes, the proposal that reconstructs best (lowest_loss), or that of most reward"""
    batch_size: int | None = None
    """samples in an evaluation batch; without it 32, and 512 on a GPU where no sample depends on others of its batch"""
    precision: EvaluationPrecision = "fp32"
    """precision of matrix products at evaluation, whatever the model was trained in"""
    capture: bool = True
    """on a GPU, replay batches of an evaluation as CUDA graphs; what cannot be captured runs eagerly, with a warning"""
    seed: int = 0
    """seed of the words that are hidden at evaluation"""
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """values of m in R@n, IoU >= m"""
    num_bootstrap: int = 1000
    """bootstrap resamples of the videos for the 95 % intervals"""
    alignment_rows: bool = True
    """also score the closed-form alignment, fitted to the same training pairs in seconds"""

    def __post_init__(self) -> None:
        _check_values(self, "inference")
        require(self.batch_size is None or self.batch_size >= 1, "inference.batch_size", self.batch_size, "at least 1")
        require(self.num_bootstrap >= 1, "inference.num_bootstrap", self.num_bootstrap, "at least 1")
        marks = self.iou_thresholds
        has_marks = len(marks) > 0 and all(0 < m <= 1 for m in marks)
        require(has_marks, "inference.iou_thresholds", marks, "one or more values above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """The alignment of sentences and frames, fitted in closed form to pairs (`pps_fast/alignment`)."""

    map: AlignmentMap = "fitted"
    """'identity': zero-shot, nothing is fitted: frames and sentences are vectors of one joint encoder (CLIP, SigLIP)"""
    pooling: FramePooling = "cross"
    """what stands for the video of a pair: the mean of its frames, the frames of the best window ('once'), or frames
    weighted by curves of maps that have not seen the video ('cross')"""
    curve: CurveKind = "linear"
    """score of a frame for a sentence: a bilinear form, or that divided by its spread over sentences"""
    reading: CurveReading = "filter"
    """how a moment is read from the curve: the Gaussian filter that it rewards most, or the window of largest sum"""
    sentences: SentenceSource = "auto"
    """vectors of sentences: weighted sums of words, or the data file's sentence vectors; 'auto' takes these if there"""
    smoothing: float = 0.15
    """each frame becomes the mean of this share of the video around it"""
    frame_ridge: float = 2.0
    """added to the covariance of frames, in mean variances"""
    sentence_ridge: float = 3.0
    """added to the covariance of sentences, in mean variances"""
    change: float = 0.0
    """weight of further channels of a frame: how the frames two segments later and earlier differ; 0: none"""
    parts: int = 4
    """into which 'cross' divides the training videos: a curve comes from a map fitted without its video's part"""
    pooling_curve: CurveKind = "linear"
    """score by which 'cross' weights frames"""
    sharpness: float = 2.0
    """of the softmax by which 'cross' weights frames"""
    position_prior: float = 0.0
    """weight in the filter of where in a video the curves of training pairs are high, for all and for the sentence"""
    duration_prior: float = 0.0
    """weight in the filter of how long the moments are that it finds in training pairs"""

    def __post_init__(self) -> None:
        _check_values(self, "alignment")
        others = [item for item in fields(self) if item.name not in ("map", "reading", "smoothing")]
        is_plain = all(getattr(self, item.name) == item.default for item in others)
        require(is_plain or self.map == "fitted", "alignment.map", self.map, "reading and smoothing alone beside it")
        require(0 <= self.smoothing <= 1, "alignment.smoothing", self.smoothing, "0 to 1")
        for name in ("frame_ridge", "sentence_ridge", "sharpness"):
            require(getattr(self, name) > 0, f"alignment.{name}", getattr(self, name), "> 0")
        require(self.parts >= 2, "alignment.parts", self.parts, "at least 2")
        for name in ("change", "position_prior", "duration_prior"):
            require(getattr(self, name) >= 0, f"alignment.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimizer and the training loop."""

    epochs: int = 30
    """passes over the training samples"""
    max_steps: int | None = None
    """stop after this many updates, or after the epochs if these end earlier"""
    batch_size: int = 32
    """samples in a training batch"""
    learning_rate: float = 4e-4
    """learning rate at the end of the warm-up; it then falls as 1 / sqrt(update)"""
    warmup_updates: int = 400
    """updates during which the learning rate rises linearly"""
    warmup_learning_rate: float = 1e-7
    """learning rate at the first update"""
    clip_norm: float = 10.0
    """clip the gradient to this norm"""
    weight_decay: float = 0.0
    """weight decay, decoupled from the gradient (AdamW)"""
    precision: Precision = "fp32"
    """of matrix products, all else is fp32; auto is bf16 on a GPU or a CPU with AMX, decided when the run begins"""
    capture: bool = True
    """on a GPU, replay training steps as CUDA graphs; a step that cannot be captured runs eagerly, with a warning"""
    seed: int = 8
    """seed of initial weights, order of samples, hidden words and dropout"""
    keep: KeepPolicy = "last"
    """which checkpoint is used: the last, or the one with the best mIoU on the validation split"""
    evaluate_every: int = 0
    """epochs between evaluations on the validation split; 0: every epoch if keep = 'validation', else never"""
    checkpoint_every: int = 200
    """updates between checkpoints; there is also one at the end of each epoch"""
    log_every: int = 10
    """updates between lines of metrics.jsonl, and of the progress off a terminal"""
    trace_every: int = 0
    """updates between lines of trace.jsonl, which records the proposals of a few samples for `draw`; 0: no file"""
    update: Update = "joint"
    """'joint': all losses train all; 'alternating' (CNM): reconstruction trains all but mask heads, the others these"""
    tensorboard: bool = False
    """also write TensorBoard events; needs the extra `track`"""

    def __post_init__(self) -> None:
        _check_values(self, "train")
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
    """Everything that determines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    proposals: ProposalsConfig = field(default_factory=ProposalsConfig)
    reconstructor: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    method: Method = "proposals"
    """'proposals': the paper's networks, trained; 'alignment': closed-form alignment alone, fitted in seconds"""
    backend: Backend = "auto"
    """'auto': Triton kernels where they support the input, else PyTorch; 'triton': only kernels; 'torch': no kernels"""

    def __post_init__(self) -> None:
        _check_values(self, "config")
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
        others = (weights.contrastive, weights.pull, weights.push_intra, weights.push_inter, weights.alignment)
        require(
            self.train.update == "joint" or (weights.reconstruction > 0 and any(others)),
            "train.update",
            self.train.update,
            "losses.reconstruction and another loss above 0, one for each of the two updates",
        )
        require(
            self.reconstructs or self.inference.selector in ("alignment", "vote"),
            "inference.selector",
            self.inference.selector,
            "alignment or vote, because no loss trains the reconstruction: losses.reconstruction = contrastive = 0",
        )

    @property
    def reconstructs(self) -> bool:
        """Whether sentences are rebuilt: not where the alignment takes the place of both losses that need it."""
        return self.losses.alignment == 0 or self.losses.reconstruction > 0 or self.losses.contrastive > 0


def _check_mixtures(proposals: ProposalsConfig, reconstructor: ReconstructorConfig) -> None:
    """Checks options that require, or forbid, proposals with several components; raises ValueError."""
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
    """Checks that the reconstructor has a position for every token it is asked for; raises ValueError."""
    require(
        reconstructor.word_tokens == "projected"
        or (reconstructor.word_cls == "none" and reconstructor.target_length != "end_of_sentence"),
        "reconstructor.word_tokens",
        reconstructor.word_tokens,
        "word_cls = 'none' and no target_length = 'end_of_sentence', for both of which it has no slot",
    )


def _check_sharing(generator: GeneratorConfig, reconstructor: ReconstructorConfig) -> None:
    """Checks that a shared transformer has one depth; raises ValueError."""
    depths = [(part.num_layers, part.num_word_layers or part.num_layers) for part in (generator, reconstructor)]
    require(
        not reconstructor.shares_generator or depths[0] == depths[1],
        "reconstructor.shares_generator",
        reconstructor.shares_generator,
        "as many layers (num_layers, num_word_layers) in generator and reconstructor",
    )
