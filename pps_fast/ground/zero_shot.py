"""Answers without any training: the similarity of a sentence and each frame, by one joint encoder (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pps_fast.alignment.model import AlignmentModel
from pps_fast.alignment.zero_shot import identity_alignment
from pps_fast.config_tree import override
from pps_fast.features.encoders import full_name
from pps_fast.features.encoders import open_encoder as open_frame_encoder
from pps_fast.features.extract import Extractor
from pps_fast.ground.grounder import Grounder, load
from pps_fast.ground.options import AskOptions
from pps_fast.ground.sentences import ModelSentences, ModelWords
from pps_fast.ground.videos import ModelVideos, differing_field
from pps_fast.prepare.readers.encoders import SentenceEncoder, open_encoder
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes

NUM_SEGMENTS = 32
"""segments of a video, as of the CLIP features that alignments were measured with"""
_FRAMES_PER_SECOND = 1.0
_NO_MATCH = (
    "zero-shot: nothing was trained, so that no match and no clarity are calibrated; moments are ranked by similarity"
)


def zero_shot(named: str, device: torch.device | str = "cpu") -> Grounder:
    """Returns a grounder of a joint encoder of images and sentences; nothing is trained.

    A moment is read from the cosines of the sentence and each smoothed frame by the Gaussian filter of the alignment.
    Features of frames are those of the same encoder.

    Args:
        named: folder, NAME or NAME@REVISION; NAME may be short, "clip-vit-base-patch32".
        device: where frames are encoded and compared.
    Raises:
        ValueError: in one sentence, for an encoder that is not there, not whole, or not joint.
    """
    name = full_name(named)
    encoder = open_encoder(name)
    if encoder.pooling not in ("projection", "pooler"):
        raise ValueError(f"--zero-shot {named}: an encoder of sentences alone; name a joint one, as CLIP or SigLIP")
    config = override(PRESETS["alignment"], {"alignment.map": "identity"})
    sizes = FeatureSizes(
        frame_dim=encoder.width, word_dim=1, vocab_size=1, num_segments=NUM_SEGMENTS, sentence_dim=encoder.width
    )
    model = AlignmentModel(config, sizes)
    model.alignment.take(identity_alignment(sizes, config.alignment))
    no_words = ModelWords(words=["<pad>"], vectors=torch.zeros(1, 1, device=device), max_num_words=1, seed=0)
    sentences = ModelSentences({"encoder": encoder.name}, None, encoder)
    grounder = Grounder(model.to(device).eval(), config, sizes, no_words, sentences, None, {})
    grounder.videos, grounder.no_match = _JointVideos(name, encoder, device), _NO_MATCH
    return grounder


def open_grounder(options: AskOptions, device: torch.device) -> Grounder:
    """Returns what answers: the model that is named, or an encoder alone.

    Raises:
        ValueError: as `load` and `zero_shot`.
    """
    if options.zero_shot is not None:
        return zero_shot(options.zero_shot, device)
    return load(str(options.model), device, options.sentence_encoder, options.encoder, options.precision)


class _JointVideos(ModelVideos):
    """Makes features of video files by the half of a joint encoder that takes frames.

    Args:
        named: the encoder.
        sentences: its other half.
        device: torch device where to encode.
    """

    def __init__(self, named: str, sentences: SentenceEncoder, device: torch.device | str) -> None:
        super().__init__({"sources": [{}]}, device)
        self._name, self._sentence_encoder = named, sentences

    def require_same(self, recipes: Sequence[dict[str, Any] | None], name: str) -> None:
        ours = self._sentence_encoder.name
        for recipe in filter(None, recipes):
            # of sentences no more than the name of their encoder can be compared
            if differing_field(recipe, {**recipe, "encoder": ours}) is not None:
                raise ValueError(
                    f"{name}: its features were made by the encoder {recipe.get('encoder')}, and sentences are read by "
                    f"{ours}; name the same one with --zero-shot"
                )

    def open(self) -> list[Extractor]:
        if not self._extractors:
            encoder = open_frame_encoder(self._name, self._device)
            if encoder.width != self._sentence_encoder.width:
                raise ValueError(
                    f"--zero-shot {self._name}: frames have width {encoder.width} and sentences "
                    f"{self._sentence_encoder.width}; name a joint encoder, as CLIP or SigLIP"
                )
            self._extractors = [Extractor(encoder=encoder, fps=_FRAMES_PER_SECOND)]
        return self._extractors
