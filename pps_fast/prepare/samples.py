"""Reads annotation files into the samples of a data set, with the video and split of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.prepare.feature_options import sources_of
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.annotations import Annotation, detect_annotation_format, read_annotations, read_durations
from pps_fast.prepare.readers.joined import AnyReader, JoinedReader, open_sources
from pps_fast.prepare.readers.naming import hint
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.protocols import apply_protocol, check_one_duration
from pps_fast.prepare.sources import describe_source
from pps_fast.reading import listed, require_file


@dataclass(frozen=True, kw_only=True)
class Samples:
    """M annotations with the split of each; videos are numbered in order of first appearance.

    Attributes:
        rows: M annotations.
        split: M times "train", "validation" or "test".
    """

    rows: list[Annotation]
    split: list[str]

    def keep(self, is_kept: np.ndarray) -> Samples:
        """Returns the samples where the [M] bool array is true."""
        kept = np.flatnonzero(is_kept)
        return Samples(rows=[self.rows[i] for i in kept], split=[self.split[i] for i in kept])

    @property
    def video_ids(self) -> list[str]:
        """N videos, each once."""
        return list(dict.fromkeys(row.video_id for row in self.rows))

    @property
    def sample_video(self) -> np.ndarray:
        """[M] int64 index into `video_ids`."""
        number = {video_id: index for index, video_id in enumerate(self.video_ids)}
        return np.array([number[row.video_id] for row in self.rows], dtype=np.int64)

    @property
    def duration_s(self) -> np.ndarray:
        """[N] float64 lengths of the videos in seconds."""
        length = {row.video_id: row.duration_s for row in self.rows}
        return np.array([length[video_id] for video_id in self.video_ids], dtype=np.float64)

    @property
    def window_s(self) -> np.ndarray:
        """[W, 2] float64 start and end of every window in seconds."""
        windows = [window for row in self.rows for window in row.windows]
        return np.array(windows, dtype=np.float64).reshape(-1, 2)

    @property
    def window_sample(self) -> np.ndarray:
        """[W] int64 the sample of each window."""
        return np.repeat(np.arange(len(self.rows)), [len(row.windows) for row in self.rows])

    @property
    def query_id(self) -> list[str | int | None] | None:
        """M names or numbers as annotated, or None where no row has one."""
        names = [row.query_id for row in self.rows]
        return None if all(name is None for name in names) else names

    @property
    def sentences(self) -> list[str]:
        """M sentences."""
        return [row.sentence for row in self.rows]


def read_samples(options: PrepareOptions, problems: Problems) -> tuple[Samples, dict[str, Any]]:
    """Reads every annotation file under the protocol; bad rows go to `problems`.

    Returns:
        The samples, and the provenance of each file by split, with what the protocol left out.

    Raises:
        ValueError: for a file that cannot be read.
    """
    lengths = _lengths_of(options)
    durations = {**lengths, **read_durations(options.durations, problems)}
    rows: list[Annotation] = []
    split: list[str] = []
    sources: dict[str, Any] = {}
    for name, path in options.annotation_files.items():
        chosen = options.annotation_format
        require_file(path)
        file_format = detect_annotation_format(path) if chosen == "auto" else chosen
        read = read_annotations(path, file_format, durations, problems)
        if not read and problems.count("no duration") > 1:
            # the same for every row: said once
            raise ValueError(f"{path}: {_no_length(options, lengths, durations)}")
        if options.pool is None:
            read = of_split(read, name, path)
        kept, dropped = apply_protocol(read, options.protocol, problems)
        rows += kept
        split += [name] * len(kept)
        sources[name] = {
            **describe_source(path),
            "format": file_format,
            "rows": len(read),
            "left_out_by_protocol": dict(sorted(dropped.items())),
        }
        if any(len(row.windows) != 1 for row in kept):
            sources[name]["windows"] = sum(len(row.windows) for row in kept)
            sources[name]["rows_without_times"] = sum(not row.windows for row in kept)
    sources["durations"] = [describe_source(path) for path in options.durations]
    agree = check_one_duration(rows, problems)
    return Samples(rows=rows, split=split).keep(agree), sources


def _lengths_of(options: PrepareOptions) -> dict[str, float]:
    """Returns video -> seconds, as files of `python -m pps_fast.features` tell them; none for other features."""
    paths = [] if options.is_planted else [source.path for source in sources_of(options)]
    if not any(path.is_file() for path in paths):
        return {}
    try:
        with open_sources(sources_of(options)) as reader:
            return dict(reader.told.lengths_s)
    except ValueError:
        # told when the features are read, after the annotations
        return {}


def _no_length(options: PrepareOptions, lengths: dict[str, float], durations: dict[str, float]) -> str:
    """Says that no row has a length of its video, and what would help."""
    known = [csv.name for csv in options.durations] + [path.name for path in options.features if lengths]
    where = listed(known) or "this format, which has none"
    where += "".join(f", whose videos are named like {name!r}" for name in list(durations)[:1])
    remedy = ", or pass what differs in the names, such as --video-suffix .mp4" if lengths else ""
    return f"no row has a length of its video in {where}; name their csv with --durations{remedy}"


def of_split(rows: list[Annotation], split: str, path: Path) -> list[Annotation]:
    """Returns the rows of a split; a row that does not say its split belongs to every one.

    Raises:
        ValueError: where there are rows and none is of the split.
    """
    kept = [row for row in rows if row.split in (None, split)]
    if rows and not kept:
        splits = listed(sorted({str(row.split) for row in rows}))
        raise ValueError(f"{path}: no row is of the split {split}, they are of {splits}; name the file for these alone")
    return kept


def with_features(samples: Samples, reader: AnyReader, problems: Problems) -> Samples:
    """Returns the samples whose video has features; the others go to `problems`.

    Raises:
        ValueError: where none of several has.
    """
    known = reader.ids()
    is_known = np.array([row.video_id in known for row in samples.rows], dtype=bool)
    missing = np.flatnonzero(~is_known)
    unknown = list(dict.fromkeys(samples.rows[index].video_id for index in missing))
    remedy = (_remedy(unknown, reader) or _one_split(samples, is_known)) if unknown else None
    if len(is_known) > 1 and not is_known.any():
        raise ValueError(_no_features(unknown, reader, remedy))
    for index in missing:
        row = samples.rows[index]
        what = f"video {row.video_id} has no features in {reader.lacking(row.video_id).name}"
        # once is enough
        what += f" (pass {remedy})" if remedy is not None and index == missing[0] else ""
        problems.add("unknown video", row.where, what)
    return samples.keep(is_known)


def _remedy(unknown: list[str], reader: AnyReader) -> str | None:
    """Returns the option by which most of the videos without features have some, or None."""
    source = reader.lacking(unknown[0])
    lacking = [video for video in unknown if video not in source.locate]
    return hint(lacking, source.locate, f"{source.name}:" if isinstance(reader, JoinedReader) else "")


def _one_split(samples: Samples, is_known: np.ndarray) -> str | None:
    """Returns what helps where every video without features is of a split that has none at all, or None."""
    split = np.array(samples.split)
    has_features = {name: bool(is_known[split == name].any()) for name in dict.fromkeys(samples.split)}
    with_some = [name for name in has_features if has_features[name]]
    if len(with_some) != 1 or len(has_features) < 2:
        return None
    return f"the annotations of the split {with_some[0]} alone, in folds: --pool FILE --folds 5"


def _no_features(asked: list[str], reader: AnyReader, remedy: str | None) -> str:
    """Says that none of the annotated videos has features, and what would help."""
    names = sorted(reader.lacking(asked[0]).locate)
    has = f"it has {listed(names, 3)}" if names else "it has no video"
    what = f"has features of none of the {len(asked):,} annotated videos ({listed(asked, 3)})"
    pass_it = f"pass {remedy}" if remedy else "name other features, or what follows the names with --feature-suffix"
    return f"{reader.lacking(asked[0]).name}: {what}; {has}; {pass_it}"
