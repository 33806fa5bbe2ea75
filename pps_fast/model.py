"""PPS: the paper's Fig. 2, one line per box."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.alignment.model import Alignment, AlignmentModel, uses_alignment
from pps_fast.config import Method, PPSConfig
from pps_fast.encoder.curve import CurveEmbedding
from pps_fast.encoder.dropout import number_sites
from pps_fast.encoder.embedding import Embedding
from pps_fast.encoder.rows import Numbers, keep_rows
from pps_fast.generator import Generator
from pps_fast.machine import require_memory
from pps_fast.ops.gaussian_mask import gaussian_exponent
from pps_fast.ops.hidden_words import hidden_words
from pps_fast.ops.mask_keys import mask_keys
from pps_fast.proposals.heads import ComponentHead
from pps_fast.proposals.layout import layout_of
from pps_fast.proposals.mixture import ProposalMixture
from pps_fast.proposals.negatives import NEGATIVES, NegativeInput
from pps_fast.proposals.shapes import MASK_SHAPES
from pps_fast.reconstructor.reconstructor import Reconstructor, kept_segments
from pps_fast.types import (
    Batch,
    Candidates,
    Components,
    FeatureSizes,
    MaskSet,
    ModelOutput,
    Proposals,
    ReconstructorInput,
)


class PPS(nn.Module):
    """Gaussian mixture proposals, scored by how well they rebuild the sentence, by an alignment's curve, or both.

    Args:
        config: what is computed.
        sizes: the data set's sizes.
    """

    kept: Tensor
    whole_video: Tensor

    def __init__(self, config: PPSConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.layout = layout_of(config.proposals)
        generator = config.generator
        self.embed = Embedding(config, sizes)
        self.generator = Generator(config)
        self.head = ComponentHead(
            config.encoder.hidden_dim,
            self.layout,
            generator.center_source,
            generator.width_source,
            generator.max_width,
            config.backend,
        )
        borrowed = self.generator if config.reconstructor.shares_generator else None
        self.reconstruct = Reconstructor(config, sizes.vocab_size, borrowed)
        self.pool = ProposalMixture(config, self.layout)
        self.negatives = NEGATIVES[config.proposals.negatives.kind](config)
        self.alignment = Alignment(config.alignment, sizes) if uses_alignment(config) else None
        self.embed_curve = CurveEmbedding(config)
        # mask positions
        kept = kept_segments(sizes.num_segments, config.reconstructor.stride, torch.device("cpu"))
        self.register_buffer("kept", kept, persistent=False)
        # log of a mask that is 1 everywhere
        self.register_buffer("whole_video", torch.zeros(1, len(kept)), persistent=False)
        self.numbers = Numbers(sizes.num_segments + 1)
        number_sites(self)

    def forward(self, batch: Batch, with_negatives: bool = True, *, is_cross_fitted: bool = False) -> ModelOutput:
        """Proposes, mixes and reconstructs.

        Args:
            batch: B samples.
            with_negatives: False leaves out what only training needs; scores of the positives do not change.
            is_cross_fitted: take curves from maps that have not seen the pairs, as in training, also in eval mode.
        Returns:
            Proposals and C of positives, easy negatives and the whole video; rewards of the positives, in place of
            every C where `config.reconstructs` is off.
        Raises:
            ValueError: if the batch's sizes are not the model's, or parts are missing for cross-fitted curves.
        """
        self._check(batch)
        dropout_key = batch.dropout_key if self.training else None
        frames, query = self.embed.frames(batch, dropout_key), self.embed.query(batch, dropout_key)
        frames, kept_frames = keep_rows(frames, self.kept, self.config.backend)
        frame_valid, word_valid = self._valid(batch, frames.shape[1])
        curve = self._curve(batch, is_cross_fitted or self.training)
        guided = self.embed_curve(frames, curve, frame_valid)
        g_cls = self.generator(guided, frame_valid, query, word_valid[:, :-1], dropout_key)
        inputs = self._reconstructor_input(batch, kept_frames, word_valid)
        component_keys, *candidate_keys = self._mask_keys(dropout_key)
        components = self._components(g_cls, with_exponents=with_negatives)
        proposals = self.pool(g_cls, components, component_keys, self.reconstruct, inputs)
        reward = self._reward(proposals, curve, inputs.frame_valid)
        if reward is not None and not self.config.reconstructs:
            return ModelOutput(proposals=proposals, positive_nll=-reward.detach(), reward=reward)
        positives = MaskSet(log_masks=proposals.log_masks, dropout_key=candidate_keys[0])
        if not with_negatives:
            nll = self.reconstruct(inputs, positives, batch).nll
            return ModelOutput(proposals=proposals, positive_nll=nll, reward=reward)
        negative_masks, log_negatives = self._negatives(g_cls, components, batch.progress)
        candidates = Candidates(
            positives=positives,
            negatives=MaskSet(log_masks=log_negatives, dropout_key=candidate_keys[1]),
            whole_video=MaskSet(log_masks=self.whole_video.expand(len(frames), 1, -1), dropout_key=candidate_keys[2]),
        )
        scores = self.reconstruct.score(inputs, candidates, batch)
        return ModelOutput(proposals=proposals, negative_masks=negative_masks, reward=reward, **vars(scores))

    def mask_parameters(self) -> list[nn.Parameter]:
        """Parameters of the heads of positives and of easy negatives, which do nothing but move and widen masks."""
        return [*self.head.parameters(), *self.negatives.parameters()]

    def _curve(self, batch: Batch, is_cross_fitted: bool) -> Tensor | None:
        """Curves of the alignment, [B, S]."""
        return None if self.alignment is None else self.alignment(batch, is_cross_fitted=is_cross_fitted)

    def _reward(self, proposals: Proposals, curve: Tensor | None, frame_valid: Tensor) -> Tensor | None:
        """Rewards of the proposals' masks against curves [B, S] at the mask positions, [B, K]."""
        if self.alignment is None or curve is None:
            return None
        return self.alignment.reward(proposals.masks, curve[:, self.kept], frame_valid, self.config.backend)

    def _mask_keys(self, dropout_key: Tensor | None) -> tuple[Tensor | None, ...]:
        """Dropout keys of components [B, E], positives [B, K], easy negatives [B, K * J] and whole video [B, 1]."""
        num_proposals = self.layout.num_proposals
        sizes = (self.layout.num_components, num_proposals, num_proposals * self.negatives.num_per_proposal, 1)
        if dropout_key is None:
            return (None,) * len(sizes)
        return mask_keys(dropout_key, sum(sizes), self.config.backend).split(sizes, 1)

    def _check(self, batch: Batch) -> None:
        sizes = self.sizes
        frames, words = tuple(batch.frames.shape[1:]), tuple(batch.words.shape[2:])
        if frames != (sizes.num_segments, sizes.frame_dim) or words != (sizes.word_dim,):
            raise ValueError(
                f"frames {tuple(batch.frames.shape)}, words {tuple(batch.words.shape)}: this model was built for "
                f"frames [B, {sizes.num_segments}, {sizes.frame_dim}] and words [B, L, {sizes.word_dim}]; "
                "prepare the data with the same settings"
            )

    def _valid(self, batch: Batch, num_rows: int) -> tuple[Tensor, Tensor]:
        """Returns rows that may be attended to: frames, not v_cls, [B, num_rows]; start token and words, [B, L + 2]."""
        segment, slot = self.numbers(num_rows), self.numbers(batch.words.shape[1] + 2)
        return segment < batch.num_frames.unsqueeze(1), slot <= batch.num_words.unsqueeze(1)

    def _reconstructor_input(self, batch: Batch, kept_frames: Tensor, word_valid: Tensor) -> ReconstructorInput:
        divisor = self.config.reconstructor.hidden_words_divisor
        is_hidden = hidden_words(batch.hide_prob, batch.word_noise, batch.num_words, divisor, self.config.backend)
        query = self.embed.hidden_query(batch, is_hidden, batch.dropout_key if self.training else None)
        inputs = ReconstructorInput(
            frames=kept_frames,
            frame_valid=self.kept < batch.num_frames.unsqueeze(1),
            query=query,
            word_valid=word_valid[:, : query.shape[1]],
            num_words=batch.num_words,
        )
        return self.reconstruct.without_padding(inputs, batch)

    def _components(self, g_cls: Tensor, with_exponents: bool) -> Components:
        """Eqs. (1)-(3)."""
        options = self.config.proposals
        center, width = self.head(g_cls)
        mask_shape = MASK_SHAPES[options.mask_shape]
        num_positions = self.kept.shape[0]
        drawn = (center, width, options.sigma, num_positions, options.width_floor)
        masks, log_masks = mask_shape(*drawn, backend=self.config.backend)
        exponents = None
        # what only the pushing losses read
        if with_exponents and options.mask_shape == "gaussian":
            exponents = gaussian_exponent(*drawn, backend=self.config.backend)
        return Components(center=center, width=width, masks=masks, log_masks=log_masks, exponents=exponents)

    def _negatives(self, g_cls: Tensor, components: Components, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Easy negatives and their logs: [B, K * J, T]."""
        inputs = NegativeInput(
            g_cls=g_cls,
            center=components.center,
            width=components.width,
            num_positions=self.kept.shape[0],
            progress=progress,
        )
        return self.negatives(inputs)


Model = PPS | AlignmentModel
METHODS: dict[Method, type[PPS] | type[AlignmentModel]] = {"proposals": PPS, "alignment": AlignmentModel}


def require_model_memory(config: PPSConfig, sizes: FeatureSizes, num_copies: int = 1) -> None:
    """Refuses a model whose weights do not fit into the free memory, before any of it is allocated.

    Args:
        num_copies: how many arrays of each weight's size there will be; gradients and moments are such.
    Raises:
        ValueError: with both sizes and the options that lower the first.
    """
    with torch.device("meta"):
        model = build_model(config, sizes)
    weights = sum(x.numel() * x.element_size() for x in model.parameters())
    remedy = "lower encoder.hidden_dim, num_layers of generator and reconstructor, or proposals.num_proposals"
    require_memory(num_copies * weights, "the model", remedy)


def build_model(config: PPSConfig, sizes: FeatureSizes) -> Model:
    """Returns a model of `config.method`, not yet trained or fitted."""
    return METHODS[config.method](config, sizes)
