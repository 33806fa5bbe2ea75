"""Zero-shot: frames and sentences of one joint encoder are compared as they are, without any training."""

from __future__ import annotations

from typing import Any

import torch

from pps_fast.alignment.model import FittedAlignment
from pps_fast.config import AlignmentConfig
from pps_fast.types import FeatureSizes


def identity_alignment(sizes: FeatureSizes, options: AlignmentConfig) -> FittedAlignment:
    """Returns an alignment whose curve is the cosine of the sentence and each smoothed frame: M = I, no mean.

    Raises:
        ValueError: for frames and sentences that do not have the same width.
    """
    width = sizes.frame_dim
    if sizes.sentence_dim != width:
        vectors = f"vectors of width {sizes.sentence_dim}" if sizes.sentence_dim else "no vectors of sentences"
        raise ValueError(
            f"alignment.map = 'identity': frames have width {width}, and there are {vectors}; prepare the data with "
            "--features and --sentence-encoder of one joint encoder, as CLIP or SigLIP"
        )
    return FittedAlignment(
        maps=torch.eye(width).expand(options.parts + 1, -1, -1).clone(),
        word_weights=torch.zeros(0),
        sentence_mean=torch.zeros(width),
        frame_mean=torch.zeros(width),
        spread=torch.eye(width),
        position_mean=torch.zeros(sizes.num_segments),
        position_map=torch.zeros(width, sizes.num_segments),
        log_radius=torch.zeros(()),
    )


def joint_encoder(recipe: dict[str, Any]) -> str | None:
    """Returns the encoder that made both the frames and the vectors of sentences, NAME@REVISION; None for two or none.

    Args:
        recipe: of a data set or model, see `data.record.feature_recipe`.
    """
    sources = recipe.get("sources") or []
    frames = sources[0].get("extraction", {}).get("encoder") if len(sources) == 1 else None
    sentences = (recipe.get("sentence_vectors") or {}).get("encoder")
    return str(frames) if frames is not None and frames == sentences else None
