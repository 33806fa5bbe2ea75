"""The options that all experiments share. Importing this file loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pps_fast.devices import Device

Executor = Literal["processes", "local", "slurm"]


@dataclass(frozen=True, kw_only=True)
class LabOptions:
    """Which runs, where, and how many at a time."""

    data: Path | None = None
    """data file written by `python -m pps_fast.prepare`; default: the embedded synthetic data"""
    seeds: int = 1
    """train each row with this many seeds: train.seed and the ones after it"""
    folds: tuple[int, ...] = ()
    """folds to test on, each in turn, for a file prepared with --folds; default: the file's own splits"""
    out: Path = Path("runs/lab")
    """folder for the runs and the tables; tables in one folder share equal runs"""
    jobs: int | None = None
    """runs at the same time; default: one for each GPU, each with its own, else one for each CPU, as memory allows"""
    executor: Executor = "processes"
    """where runs train: processes of this command, or jobs of submitit (extra `cluster`): on this machine, or Slurm"""
    slurm: tuple[str, ...] = ()
    """options of Slurm's jobs, NAME=VALUE each: partition=gpu time=240 gpus_per_node=1 cpus_per_task=4"""
    threads: int = 1
    """CPU threads of each run; to continue an interrupted run bit for bit, use the same number"""
    device: Device = "auto"
    """where to train; auto is the GPU if there is one"""
    tables_only: bool = False
    """train nothing, only write the tables of finished runs again"""
    plots: bool = True
    """draw a plot of each table as well; needs the extra `plot`"""
