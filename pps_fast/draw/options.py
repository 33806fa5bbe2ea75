"""The options of `python -m pps_fast.draw`, a class for each picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pps_fast.devices import Device


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Options of the pictures of one query."""

    sample: int | None = None
    """number of the sample in the data set, from 0"""
    query: str | None = None
    """draw the first sample of the split whose sentence has these words in a row"""
    split: Literal["test", "validation", "train"] = "test"
    """split to choose the sample from; --sample may be of any split"""
    data: Path | None = None
    """data file written by `python -m pps_fast.prepare`; default: the one the model was trained on"""
    device: Device = "auto"
    """where the model runs; auto is the GPU if there is one"""
    out: Path | None = None
    """.png or .svg file; default: a png of the picture's name in the first run's folder"""


@dataclass(frozen=True, kw_only=True)
class Timeline(QueryOptions):
    """one query: its true moment, the proposals with their components, and the vote"""

    model: Path
    """run folder of `python -m pps_fast.train`, or one of its checkpoints"""


@dataclass(frozen=True, kw_only=True)
class Variants(QueryOptions):
    """one query: the answers of several models (the paper's Fig. 5)"""

    models: tuple[Path, ...]
    """run folders, or checkpoints, trained on the same data"""
    labels: tuple[str, ...] = ()
    """a name for each; default: the names of the folders"""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """learning curves: losses, gradient norm, learning rate, what the video tells, validation mIoU"""

    runs: tuple[Path, ...]
    """run folders"""
    labels: tuple[str, ...] = ()
    """a name for each; default: the names of the folders"""
    out: Path | None = None
    """.png or .svg file; default: curves.png in the first run's folder"""


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """how the components of a proposal move in training, for runs with --train.trace-every"""

    runs: tuple[Path, ...]
    """run folders, trained on the same data"""
    labels: tuple[str, ...] = ()
    """a name for each; default: the names of the folders"""
    samples: tuple[int, ...] = ()
    """traced samples to draw, a row each; default: those with the longest and the shortest sentence"""
    proposal: int | None = None
    """1 to K; default: the last, which has the most components in the paper's layout"""
    data: Path | None = None
    """data file written by `python -m pps_fast.prepare`; default: the one the runs were trained on"""
    out: Path | None = None
    """.png or .svg file; default: trajectories.png in the first run's folder"""


PictureOptions = (
    Annotated[Timeline, tyro.conf.subcommand("timeline")]
    | Annotated[Variants, tyro.conf.subcommand("variants")]
    | Annotated[Curves, tyro.conf.subcommand("curves")]
    | Annotated[Trajectories, tyro.conf.subcommand("trajectories")]
)
