"""How the name of a video in a file of features follows from its name in the annotations."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

# parts of a name that are longer are no mark of a data set
_LONGEST_PART = 40
_NUM_TRIED = 20


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What one of the two names has and the other lacks.

    Attributes:
        prefix, suffix: parts of the name in the features: `prefix + x + suffix`.
        video_prefix, video_suffix: parts of the name in the annotations: `video_prefix + x + video_suffix`.
    """

    prefix: str = ""
    suffix: str = ""
    video_prefix: str = ""
    video_suffix: str = ""

    def video_of(self, name: str) -> str | None:
        """Returns the annotated name of a name in the features; None where that lacks the parts."""
        is_long = len(name) >= len(self.prefix) + len(self.suffix)
        if not (is_long and name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        core = name[len(self.prefix) : len(name) - len(self.suffix)]
        return self.video_prefix + core + self.video_suffix

    def by_video(self, names: Iterable[str]) -> dict[str, str]:
        """Returns annotated name -> name in the features, of the names that have the parts."""
        return {video: name for name in names if (video := self.video_of(name)) is not None}


SAME_NAMES = Naming()
"""where nothing differs"""


def hint(asked: Collection[str], known: Collection[str], source: str = "") -> str | None:
    """Returns the one option that alone gives most of some videos their features; None where none does.

    Args:
        asked: annotated names without features.
        known: annotated names that have some, as the options so far give them.
        source: what stands before the option's value where there are several sources, "clip:".
    """
    names = set(known)
    differences = dict.fromkeys(
        difference for video in list(asked)[:_NUM_TRIED] for difference in _differences(video, names)
    )
    counts = {way: sum(_other_name(video, *way) in names for video in asked) for way in differences}
    (option, part), count = max(counts.items(), key=lambda item: item[1], default=(("", ""), 0))
    if not count or 2 * count < len(asked):
        return None
    # a value that begins with a dash would be read as an option
    joint = "=" if (source + part).startswith("-") else " "
    return f"{option}{joint}{source}{part}, which alone would match {count:,} of {len(asked):,}"


def _differences(video: str, names: set[str]) -> Iterable[tuple[str, str]]:
    """Yields (option, part) of names that are the video's but for a part before or behind."""
    for name in names:
        short, long = sorted((video, name), key=len)
        part = len(long) - len(short)
        if not short or not 0 < part <= _LONGEST_PART:
            continue
        which = "video" if long == video else "feature"
        if long.endswith(short):
            yield f"--{which}-prefix", long[:part]
        if long.startswith(short):
            yield f"--{which}-suffix", long[-part:]


def _other_name(video: str, option: str, part: str) -> str | None:
    """Returns the name in the features if the option says how the two differ; None where that is impossible."""
    match option:
        case "--feature-prefix":
            return part + video
        case "--feature-suffix":
            return video + part
        case "--video-prefix":
            return video.removeprefix(part) if video.startswith(part) else None
        case _:
            return video.removesuffix(part) if video.endswith(part) else None
