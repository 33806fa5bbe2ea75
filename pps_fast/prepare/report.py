"""The summary that `python -m pps_fast.prepare` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.data.record import PreparedSamples
from pps_fast.data.statistics import copies_note
from pps_fast.prepare.checks import check_lines


def format_summary(data: PreparedSamples, frame_dim: int, path: Path) -> str:
    """Returns what was prepared as lines of "name  value", with the rows that were left out, if any.

    Args:
        frame_dim: width of the features, which `data` does not have.
        path: the packed file.
    """
    rows = [*_content(data, frame_dim), *_words(data), *_folds(data), *_left_out(data), *check_lines(data.provenance)]
    if (note := copies_note(data.num_frames, data.provenance["options"]["num_segments"])) is not None:
        rows.append(("check segments", note))
    rows.append(("file", f"{path} ({path.stat().st_size / 2**20:.1f} MiB)"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _content(data: PreparedSamples, frame_dim: int) -> list[tuple[str, str]]:
    record, counts = data.provenance, data.provenance["counts"]
    names = {"train": "pool"} if record["is_pool"] else {}
    videos = counts["videos_by_split"]
    per_split = ", ".join(
        f"{names.get(split, split)} {number:,} in {videos[split]:,} videos"
        for split, number in counts["samples"].items()
    )
    source = record["sources"]["features"]
    rows = [
        ("data set", f"{record['name']}, protocol {record['protocol']}"),
        ("videos", f"{len(data.video_ids):,}, mean length {data.duration_s.mean():.1f} s"),
        ("samples", f"{data.num_samples:,} ({per_split})"),
        ("moments", _moments(data)),
        ("features", f"{record['options']['num_segments']} segments x {frame_dim}, float16, from {_origin(source)}"),
    ]
    if (vectors := record["sources"].get("sentence_vectors")) is not None:
        rows.append(("sentences", f"vectors of width {vectors['width']}, by {vectors['by']}, of {vectors['encoder']}"))
    if counts["videos_in_several_splits"]:
        rows.append(("shared videos", f"{counts['videos_in_several_splits']:,} are in more than one split"))
    return rows


def _origin(source: dict[str, Any]) -> str:
    """Returns the format of the one source, or name, width and format of each."""
    parts = source.get("sources", [])
    joined = " + ".join(f"{part['source']} {part['width']} ({part['format']})" for part in parts)
    extraction = source.get("extraction")
    by = "" if extraction is None else f", by {extraction['encoder']} at {extraction['fps']:g} rows a second"
    return joined or f"{source['format']}{by}"


def _moments(data: PreparedSamples) -> str:
    """Returns how long the windows are, and how many samples have none or several."""
    is_timed = data.num_windows > 0
    if not is_timed.any():
        return f"none: {data.num_samples:,} samples without times, which can train and be asked but not be scored"
    share = np.diff(data.truth(np.flatnonzero(is_timed))[:, 0])
    text = f"mean {share.mean():.2f} of the video"
    if (data.num_windows > 1).any():
        text += f"; {len(data.window_s):,} windows, {(data.num_windows > 1).sum():,} samples with several"
    if not is_timed.all():
        text += f"; {(~is_timed).sum():,} samples without times, which can train and be asked but not be scored"
    return text


def _shown_name(record: dict[str, Any], split: str) -> str:
    return "pool" if record["is_pool"] and split == "train" else split


def _words(data: PreparedSamples) -> list[tuple[str, str]]:
    counts = data.provenance["counts"]
    kept, unknown, cut = counts["words_kept"], counts["words_unknown"], counts["words_cut"]
    lengths = data.num_words
    hidden = np.maximum(lengths // 3, 1)
    return [
        ("classes", f"{counts['classes']:,} with the padding, vectors of width {data.word_vectors.shape[1]}"),
        ("words kept", f"{kept:,}, mean {lengths.mean():.2f} a sentence, {lengths.min()} to {lengths.max()}"),
        ("words dropped", f"{unknown:,} not in the vocabulary, {cut:,} beyond the first {data.word_ids.shape[1]}"),
        ("content words", f"{100 * counts['content_words'] / kept:.1f} % of the kept words"),
        ("hidden words", f"{100 * hidden.sum() / kept:.1f} % of the kept words when one in three is hidden"),
    ]


def _folds(data: PreparedSamples) -> list[tuple[str, str]]:
    if data.fold.max() < 0:
        return [("folds", "none")]
    members = [f"{number:,}" for number in np.bincount(data.fold[data.fold >= 0])]
    return [("folds", f"{len(members)} by video, samples {' '.join(members)}")]


def _left_out(data: PreparedSamples) -> list[tuple[str, str]]:
    record = data.provenance
    rows = []
    for name, source in record["sources"].items():
        reasons = source.get("left_out_by_protocol") if isinstance(source, dict) else None
        if reasons:
            listed = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
            rows.append(("by protocol", f"{_shown_name(record, name)}: {listed} left out of {source['rows']:,}"))
    skipped = record["skipped"]
    for kind, number in skipped["counts"].items():
        rows.append(("skipped", f"{number:,} {kind}"))
    rows.extend(("", sentence) for sentence in skipped["examples"])
    return rows
