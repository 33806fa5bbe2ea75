"""The fitted alignment: a curve over the frames for each sentence, and a model that answers from curves alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pps_fast.alignment.equations import (
    bag_of_words,
    linear_curve,
    smoothed_frames,
    smoothing_window,
    spread_curve,
    unit,
    with_changes,
    zscored_curve,
)
from pps_fast.alignment.windows import READERS, READING, Moments, duration_bonus
from pps_fast.config import AlignmentConfig, Backend, PPSConfig
from pps_fast.ops.mask_reward import mask_reward
from pps_fast.types import Batch, Components, FeatureSizes, ModelOutput, Proposals


@dataclass(frozen=True, kw_only=True)
class FittedAlignment:
    """What an alignment has learned, float32 on the CPU; n is the width of a sentence vector, F that of `align_frames`.

    Attributes:
        maps: [parts + 1, F, n] M fitted without the pairs of each part; the last one is fitted to all pairs.
        word_weights: [V] idf; [0] where the data set has vectors of whole sentences.
        sentence_mean: [n] mean of the training sentences' unit vectors.
        frame_mean: [F] mean of the training videos' smoothed frames.
        spread: [F, n] see `equations.spread_curve`.
        position_mean: [S] mean z-scored curve of the training pairs, divided by its standard deviation.
        position_map: [n, S] ridge regression of these curves on sentences, divided likewise.
        log_radius: scalar, mean log of the radius that the filter finds in these curves.
    """

    maps: Tensor
    word_weights: Tensor
    sentence_mean: Tensor
    frame_mean: Tensor
    spread: Tensor
    position_mean: Tensor
    position_map: Tensor
    log_radius: Tensor


def uses_alignment(config: PPSConfig) -> bool:
    """Whether a model of proposals has an alignment: for a loss, to select by, or as an input of the generator."""
    return config.losses.alignment > 0 or config.inference.selector == "alignment" or config.encoder.curve != "none"


def uses_words(options: AlignmentConfig, sizes: FeatureSizes) -> bool:
    """Whether sentences are weighted sums of their words' vectors, rather than vectors of the data set."""
    return options.sentences == "words" or (options.sentences == "auto" and sizes.sentence_dim == 0)


def align_frames(features: Tensor, options: AlignmentConfig) -> Tensor:
    """Returns smoothed unit frames, with their changes where these are asked for: [B, S, F] -> [B, S, F or 2 F]."""
    frames = smoothed_frames(unit(features), smoothing_window(features.shape[1], options.smoothing))
    return with_changes(frames, options.change) if options.change > 0 else frames


def align_width(frame_dim: int, options: AlignmentConfig) -> int:
    """Returns the width of a row of `align_frames`."""
    return frame_dim * (2 if options.change > 0 else 1)


def centered_sentences(raw: Tensor, sentence_mean: Tensor) -> Tensor:
    """y = u / |u| - m, [B, n]; zeros for a sentence without a known word, which so has no direction and no score."""
    return (raw - sentence_mean).masked_fill((raw == 0).all(dim=1, keepdim=True), 0.0)


def part_directions(maps: Tensor, part: Tensor, sentences: Tensor) -> Tensor:
    """Returns M y, each by the map that was fitted without its part.

    Args:
        maps: [n, F, W] a map for each part.
        part: [B] int64.
        sentences: [B, ..., W] y of one or several sentences each.
    Returns:
        [B, ..., F].
    """
    direction = sentences.new_zeros(*sentences.shape[:-1], maps.shape[1])
    # a product for each part, not a map for each sentence
    for index, one in enumerate(maps):
        direction[part == index] = sentences[part == index] @ one.T
    return direction


class Alignment(nn.Module):
    """Scores frames for sentences. It has buffers and no parameter: it is fitted (`fit.py`), not trained.

    Args:
        options: how it was fitted.
        sizes: the data set's.
    """

    maps: Tensor
    word_weights: Tensor
    sentence_mean: Tensor
    frame_mean: Tensor
    spread: Tensor
    position_mean: Tensor
    position_map: Tensor
    log_radius: Tensor

    def __init__(self, options: AlignmentConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        self.options = options
        use_words = uses_words(options, sizes)
        width = sizes.word_dim if use_words else sizes.sentence_dim
        frame_dim = align_width(sizes.frame_dim, options)
        shapes = {
            "maps": (options.parts + 1, frame_dim, width),
            "word_weights": (sizes.vocab_size if use_words else 0,),
            "sentence_mean": (width,),
            "frame_mean": (frame_dim,),
            "spread": (frame_dim, width),
            "position_mean": (sizes.num_segments,),
            "position_map": (width, sizes.num_segments),
            "log_radius": (),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def take(self, fitted: FittedAlignment) -> None:
        """Takes over what a fit has learned."""
        self.load_state_dict(vars(fitted))

    def forward(self, batch: Batch, *, is_cross_fitted: bool = False) -> Tensor:
        """Returns the curves of B queries over their videos, [B, S] fp32 or fp64.

        Args:
            is_cross_fitted: take the map that was fitted without the pairs of `batch.part`, as training must: the map
                of all pairs knows the answer to its own. The spread is that of all pairs in any case.
        Raises:
            ValueError: for a batch without parts where these are needed.
        """
        if is_cross_fitted and batch.part is None:
            raise ValueError("an alignment in training needs the parts of its pairs: call Store.set_parts")
        # not under autocast, which would round the products
        with torch.autocast(batch.frames.device.type, enabled=False):
            return self._curve_of(batch, self.sentence(batch), batch.part if is_cross_fitted else None)

    def answer(self, batch: Batch, count: int) -> Moments:
        """Returns ranked moments of B queries, `count` of each."""
        sentence = self.sentence(batch)
        return self.read(self._curve_of(batch, sentence, None), sentence, count)

    def _curve_of(self, batch: Batch, sentence: Tensor, part: Tensor | None) -> Tensor:
        frames = self.frames(batch.frames).to(self.maps.dtype)
        return self.curve(frames, self._direction(sentence, part).unsqueeze(1)).squeeze(1)

    def frames(self, features: Tensor) -> Tensor:
        """Returns the frames that curves are made of, see `align_frames`: features [B, S, F] as in the data set."""
        return align_frames(features, self.options)

    def reward(self, masks: Tensor, curve: Tensor, frame_valid: Tensor, backend: Backend) -> Tensor:
        """Returns R(g) of masks [B, n, T] against curves [B, T], with the power that goes with the curve: [B, n]."""
        return mask_reward(masks, curve, READING[self.options.curve][0], frame_valid, backend=backend)

    def curve(self, frames: Tensor, direction: Tensor) -> Tensor:
        """Returns the curves of n sentences over each video: smoothed frames [B, S, F], M y [B, n, F] -> [B, n, S]."""
        if self.options.curve == "linear":
            return linear_curve(frames, direction)
        return spread_curve(frames, direction, self.frame_mean, self.spread)

    def read(self, curve: Tensor, sentence: Tensor, count: int) -> Moments:
        """Reads moments from curves, with the priors that the options ask for.

        Args:
            curve: [B, S].
            sentence: [B, n] y of each, see `sentence`.
            count: moments of each.
        """
        options = self.options
        if options.position_prior > 0 and options.reading == "filter":
            zeta = zscored_curve(curve)
            prior = options.position_prior * (self.position_mean + sentence @ self.position_map)
            # a constant curve tells nothing, and the prior alone is no answer
            curve = torch.where(zeta.any(dim=1, keepdim=True), zeta + prior, 0.0)
        bonus = duration_bonus(self.log_radius, options.duration_prior) if options.duration_prior > 0 else None
        return READERS[options.reading](curve, count, options.curve, bonus)

    def _direction(self, sentence: Tensor, part: Tensor | None) -> Tensor:
        """Returns M y, [B, F], with the map of all pairs or that of each sample's part."""
        if part is None:
            return sentence @ self.maps[-1].T
        every = sentence @ self.maps.mT  # [parts + 1, B, F]
        return every[part, torch.arange(len(part), device=part.device)]

    def sentence(self, batch: Batch) -> Tensor:
        """Returns y, [B, n]."""
        if len(self.word_weights):
            raw = unit(bag_of_words(batch.word_ids, batch.words, self.word_weights))
        else:
            if batch.sentence is None:
                raise ValueError("the alignment was fitted to vectors of sentences, and this data set has none")
            raw = unit(batch.sentence)
        return centered_sentences(raw, self.sentence_mean)


class AlignmentModel(nn.Module):
    """Answers queries from the curves of an alignment alone.

    Args:
        config: its `alignment` says how moments are read; there are `proposals.num_proposals` of them.
        sizes: the data set's.
    """

    def __init__(self, config: PPSConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.alignment = Alignment(config.alignment, sizes)

    def forward(self, batch: Batch, with_negatives: bool = False) -> ModelOutput:
        """Returns ranked moments as proposals of one component each, with -reward in place of C.

        Args:
            batch: B samples.
            with_negatives: has no meaning for an alignment, which is not trained.
        """
        count = self.config.proposals.num_proposals
        moments = self.alignment.answer(batch, count)
        return ModelOutput(proposals=as_proposals(moments), positive_nll=-moments.reward, reward=moments.reward)


def as_proposals(moments: Moments) -> Proposals:
    """Returns moments as proposals of one component each, whose mask is the moment's."""
    log_masks = torch.log(moments.masks + 1e-10)
    components = Components(
        center=(moments.start + moments.end) / 2,
        width=moments.end - moments.start,
        masks=moments.masks,
        log_masks=log_masks,
    )
    return Proposals(
        components=components,
        importance=torch.ones_like(moments.start),
        masks=moments.masks,
        log_masks=log_masks,
        start=moments.start,
        end=moments.end,
    )
