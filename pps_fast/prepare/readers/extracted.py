"""What `python -m pps_fast.features` writes beside the features in its HDF5 file: how they were made, and lengths.

file.attrs             format, recipe (JSON)
file[video]            [n, F] float32, the features of a video
file[video].attrs      duration_s
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py

from pps_fast.prepare.readers.naming import Naming
from pps_fast.reading import FAILURES, Refused

FORMAT = "pps_fast features 1"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a file tells besides features.

    Attributes:
        recipe: how they were made; None for a file of somebody else.
        lengths_s: video -> seconds.
    """

    recipe: dict[str, Any] | None = None
    lengths_s: Mapping[str, float] = field(default_factory=dict)


def told_in(file: h5py.File, naming: Naming) -> Told:
    """Returns what a file tells; nothing for a file of somebody else.

    Args:
        naming: how names of videos differ from those in the features.
    Raises:
        Refused: as `read_recipe`.
    """
    recipe = read_recipe(file)
    if recipe is None:
        return Told()
    by_name, locate = read_lengths(file), naming.by_video(file)
    return Told(recipe=recipe, lengths_s={video: by_name[name] for video, name in locate.items() if name in by_name})


def read_recipe(file: h5py.File) -> dict[str, Any] | None:
    """Returns how the features of a file were made; None for a file of somebody else.

    Raises:
        Refused: where the record of a file of ours is damaged.
    """
    if file.attrs.get("format") != FORMAT:
        return None
    try:
        recipe = json.loads(str(file.attrs["recipe"]))
    except FAILURES as error:
        raise Refused("damaged: how its features were made cannot be read; make it again") from error
    if not isinstance(recipe, dict):
        raise Refused("damaged: how its features were made is no record; make it again")
    return recipe


def read_lengths(file: h5py.File) -> dict[str, float]:
    """Returns name in the features -> length in seconds, of the videos of a file of ours that have one."""
    lengths = {}
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            continue
        try:
            length = float(file[name].attrs["duration_s"])
        except FAILURES:
            # whoever needs it says that it is not there
            continue
        if 0 < length < math.inf:
            lengths[name] = length
    return lengths
