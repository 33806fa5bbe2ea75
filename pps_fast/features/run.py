"""Features of many videos: each is kept as soon as it is finished, and one's failure is not the others'."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pps_fast.features.decode import open_video
from pps_fast.features.extract import Extractor
from pps_fast.features.store import FeatureStore, fingerprint
from pps_fast.files import FullDiskError, Note


@dataclass(kw_only=True)
class Outcome:
    """What became of videos.

    Attributes:
        num_before: were finished before.
        num_rows: of features, of those that are new.
        lengths_s: seconds of those that are new.
        failures: a sentence for each that could not be used.
        is_interrupted: not all were looked at.
    """

    num_before: int = 0
    num_rows: int = 0
    lengths_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_interrupted: bool = False


def extract_all(paths: Sequence[Path], extractor: Extractor, store: FeatureStore, is_shown: bool = True) -> Outcome:
    """Makes the features of all videos that are not in the store; what is wrong with one is told and kept for the end.

    Args:
        paths: video files, whose names differ.
        extractor: how.
        store: where to; the caller finishes it.
        is_shown: show progress with the time left, where stderr is a terminal.
    Returns:
        What became of them, also after a Ctrl-C.
    Raises:
        OSError: where a finished video cannot be kept, for want of space for one.
    Warns:
        Note: of a video that is kept although it is not readable throughout.
    """
    outcome = Outcome()
    try:
        marks, lengths_s = _looked_at(paths, store, outcome, is_shown)
        disable = None if is_shown else True
        with tqdm(total=round(sum(lengths_s.values())), desc="features", unit="s", disable=disable) as bar:
            for path, mark in marks.items():
                _extract_one(path, mark, lengths_s[path], extractor, store, outcome, bar)
    except KeyboardInterrupt:
        outcome.is_interrupted = True
    return outcome


def _looked_at(
    paths: Sequence[Path], store: FeatureStore, outcome: Outcome, is_shown: bool
) -> tuple[dict[Path, str], dict[Path, float]]:
    """Returns fingerprint and seconds of the videos that are to be encoded, from their beginnings alone."""
    marks: dict[Path, str] = {}
    lengths_s: dict[Path, float] = {}
    for path in tqdm(paths, desc="look", unit="video", disable=None if is_shown else True, leave=False):
        try:
            mark = fingerprint(path)
            if store.has(path.stem, mark):
                outcome.num_before += 1
                continue
            with open_video(path) as video:
                marks[path], lengths_s[path] = mark, video.duration_s
        except ValueError as error:
            outcome.failures.append(str(error))
    return marks, lengths_s


def _extract_one(
    path: Path, mark: str, length_s: float, extractor: Extractor, store: FeatureStore, outcome: Outcome, bar: tqdm[None]
) -> None:
    bar.set_postfix_str(path.name[-30:])
    before = bar.n
    try:
        extracted = extractor.extract(path, lambda count: _advance(bar, count / extractor.fps))
        store.add(path.stem, extracted, mark)
    except FullDiskError:
        raise
    except ValueError as error:
        outcome.failures.append(str(error))
    else:
        outcome.num_rows += len(extracted.features)
        outcome.lengths_s.append(extracted.duration_s)
        if extracted.note is not None:
            warnings.warn(extracted.note, Note, stacklevel=2)
    # rounded and unreadable rows
    _advance(bar, before + length_s - bar.n)


def _advance(bar: tqdm[None], seconds: float) -> None:
    bar.update(seconds)
