"""Video files as a model takes them: encoded as the features of its training were, which its recipe tells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pps_fast.features.encoders import open_encoder
from pps_fast.features.extract import Extracted, Extractor
from pps_fast.features.store import fingerprint, is_part, read_part, write_part
from pps_fast.files import Note
from pps_fast.prepare.readers.joined import unit_rows
from pps_fast.reading import shown

CACHE = ".features.npz"
"""what follows the name of a video's file in that of its cached features"""
# of a folder's name: the beginning of a sha256, where the hub's names have a whole commit
_LOCAL_REVISION = 12


class ModelVideos:
    """Makes features of video files for one model; the encoders are loaded when they are first needed.

    Args:
        recipe: the model's record of how its features were made.
        device: torch device where to encode.
        named: folders or names of the encoders in place of those that the recipe names, one for each source of
            features; empty to take those.

    Attributes:
        is_cached: features are kept in a file beside each video, and taken from there.
    """

    def __init__(self, recipe: dict[str, Any], device: torch.device | str, named: Sequence[str] = ()) -> None:
        self._sources = list(recipe.get("sources", []))
        self._device, self._named = device, tuple(named)
        self._extractors: list[Extractor] = []
        self.is_cached = False

    def open(self) -> list[Extractor]:
        """Returns how features are made of videos, for each source of the model's features.

        Raises:
            ValueError: in one sentence, for a model that does not say it, or an encoder that cannot be used.
        """
        if not self._extractors:
            self._extractors = [self._opened(index, each) for index, each in enumerate(self._recipes())]
        return self._extractors

    def read(self, path: Path) -> tuple[np.ndarray, float]:
        """Returns features [n, F] of a video file and its length in seconds.

        Args:
            path: the file.
        Raises:
            ValueError: as `open`, and for a file that cannot be used.
        """
        read = [self._read_one(path, extractor) for extractor in self.open()]
        parts, lengths_s = [features for features, _ in read], [length for _, length in read]
        if len(parts) == 1:
            return parts[0], lengths_s[0]
        # as several sources are joined by `python -m pps_fast.prepare`
        shortest = min(len(part) for part in parts)
        return np.concatenate([unit_rows(part[:shortest]) for part in parts], axis=1), lengths_s[0]

    def require_same(self, recipes: Sequence[dict[str, Any] | None], name: str) -> None:
        """Refuses features that another encoder made than those of the training, as far as files tell.

        Args:
            recipes: how the features of each source were made, None where it is not known.
            name: of the features, for the message.
        Raises:
            ValueError: naming what differs.
        """
        trained = [source.get("extraction") for source in self._sources]
        if len(recipes) != len(trained):
            return
        for actual, expected in zip(recipes, trained, strict=True):
            if not isinstance(actual, dict) or not isinstance(expected, dict):
                continue
            if (differs := differing_field(actual, expected)) is not None:
                values = f" ({differs} {actual.get(differs)}, not {expected.get(differs)})"
                by = f"{expected.get('encoder')}{'' if differs == 'encoder' else values}"
                raise ValueError(
                    f"{name}: its features were made by the encoder {actual.get('encoder')}, those of the model's "
                    f"training by {by}; make them as those of the training"
                )

    def named(self, path: Path, duration_s: float | None, name: str | None) -> tuple[np.ndarray, float, str]:
        """Returns what `read` does, with the length and the name that are told in place of the file's."""
        features, length_s = self.read(path)
        return features, duration_s or length_s, name or path.stem

    def _read_one(self, path: Path, extractor: Extractor) -> tuple[np.ndarray, float]:
        extracted = self._cached(path, extractor) if self.is_cached else extractor.extract(path)
        if extracted.note is not None:
            warnings.warn(extracted.note, Note, stacklevel=4)
        return extracted.features, extracted.duration_s

    def _cached(self, path: Path, extractor: Extractor) -> Extracted:
        """Returns the features that lie beside a video, made and put there if need be."""
        mark, cache = fingerprint(path), cache_of(path, extractor, len(self._sources))
        cached = read_part(cache, extractor.recipe, mark)
        if cached is not None:
            return cached
        if cache.exists() and not is_part(cache):
            raise ValueError(f"{shown(cache)}: is there and no cache of features; move it, or leave out --cache")
        extracted = extractor.extract(path)
        write_part(cache, extracted, extractor.recipe, mark)
        return extracted

    def _recipes(self) -> list[dict[str, Any]]:
        unknown = [source for source in self._sources if not isinstance(source.get("extraction"), dict)]
        if unknown or not self._sources:
            files = [str(source.get("file") or source.get("folder") or "?") for source in unknown]
            origin = f": they were read from {', '.join(files)}" if files else ""
            raise ValueError(
                f"the model does not say which encoder made the features of its training{origin}; make features of "
                "the videos as those were made, and name them with --features"
            )
        return [source["extraction"] for source in self._sources]

    def _opened(self, index: int, recipe: dict[str, Any]) -> Extractor:
        name = str(recipe.get("encoder"))
        _, _, revision = name.rpartition("@")
        if self._named:
            if len(self._named) != len(self._sources):
                raise ValueError(f"--encoder: {len(self._named)} named, expected one for each of {len(self._sources)}")
            name = self._named[index]
        elif len(revision) == _LOCAL_REVISION:
            raise ValueError(
                f"the features of the model's training were made by the encoder {name}, which was a folder; name that "
                "with --encoder (frame_encoders in Python)"
            )
        extractor = Extractor(encoder=open_encoder(name, self._device), fps=float(recipe.get("fps", 1.0)))
        _require_same(extractor, recipe, revision)
        return extractor


def cache_of(path: Path, extractor: Extractor, num_sources: int) -> Path:
    """Returns the file of a video's cached features; of several sources each has its own."""
    which = f".{extractor.encoder.name.rpartition('/')[2]}" if num_sources > 1 else ""
    return path.with_name(f"{path.name}{which}{CACHE}")


def differing_field(actual: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """Returns the field that tells two encoders apart; None for one encoder, at whatever rate, or where none does."""
    names = [str(recipe.get("encoder")).rpartition("@") for recipe in (actual, expected)]
    # "color" has no revision
    (ours, our_revision), (theirs, their_revision) = ((name or rest, rest if name else "") for name, _, rest in names)
    are_folders = [len(revision) == _LOCAL_REVISION for revision in (our_revision, their_revision)]
    # folders are known by their weights, others by their names; a folder may hold what the hub has by another name
    if all(are_folders) and our_revision != their_revision or not any(are_folders) and ours != theirs:
        return "encoder"
    same = ("encoder", "fps", "sampling")
    differing = (name for name in {**expected, **actual} if name not in same and actual.get(name) != expected.get(name))
    return next(differing, None)


def _require_same(extractor: Extractor, recipe: dict[str, Any], revision: str) -> None:
    """Refuses an encoder that makes other features than those of the training, as far as can be told."""
    actual = extractor.recipe
    differs = [name for name in {**recipe, **actual} if name != "encoder" and recipe.get(name) != actual.get(name)]
    _, _, ours = str(actual["encoder"]).rpartition("@")
    # a folder's weights can be compared with those of a folder alone
    if len(ours) == len(revision) == _LOCAL_REVISION and ours != revision:
        differs.insert(0, "encoder")
    if differs:
        name = differs[0]
        raise ValueError(
            f"encoder {actual['encoder']}: its {name} is {actual.get(name)}, that of the model's training "
            f"{recipe.get(name)}; name the encoder {recipe.get('encoder')}"
        )
