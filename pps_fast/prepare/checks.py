"""What preparation checks beyond single rows, and what its report tells about data that look wrong."""

from __future__ import annotations

from typing import Any

from pps_fast.data.tokens import EncodedSentences
from pps_fast.machine import require_memory

# by their name these protocols leave rows out
_FILTERS = ("filtered",)
_FLOAT16, _FLOAT64, _INT64 = 2, 8, 8


def require_room_for_video(num_segments: int, frame_dim: int) -> None:
    """Refuses segments of one video that would not fit into the memory; features are packed one video at a time.

    Raises:
        ValueError: naming the two sizes and the option that changes them.
    """
    # what resampling takes, and the [num_segments, frame_dim] float16 it gives
    needed = num_segments * (4 * _INT64 + (2 * _FLOAT64 + _FLOAT16) * frame_dim)
    what = f"features of {num_segments:,} segments x {frame_dim:,} for one video, which"
    require_memory(needed, what, "lower --num-segments or use a larger machine")


def num_halved(encoded: EncodedSentences) -> int:
    """Returns how many sentences keep less than half of their words."""
    all_words = encoded.num_words + encoded.num_unknown + encoded.num_cut
    return int((2 * encoded.num_words < all_words).sum())


def check_lines(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns lines of the report, (name, sentence), about data that look wrong but may be right.

    These are videos that begin or end in frames of zeros or lose values in float16, sentences that lose most of their
    words, and a filtering protocol that met nothing to filter. Records of older files lack some of the counts.
    """
    sources, counts = provenance["sources"], provenance["counts"]
    seen = sources["features"].get("checks", {})
    lines = [("check features", f"{number:,} {kind}") for kind, number in sorted(seen.items())]
    halved = counts.get("sentences_halved", 0)
    if halved:
        share = 100 * halved / sum(counts["samples"].values())
        lines.append(("check words", f"{halved:,} sentences ({share:.1f} %) keep less than half of their words"))
    lines += [("check vocabulary", note) for note in sources["vocabulary"].get("notes", ())]
    for name, source in sources.items():
        if provenance["protocol"] in _FILTERS and isinstance(source, dict) and source.get("left_out_by_protocol") == {}:
            what = f"{name}: none of {source['rows']:,} rows left out: filtered before, or times of another kind"
            lines.append(("check protocol", what))
    return lines
