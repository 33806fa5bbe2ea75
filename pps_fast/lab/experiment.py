"""Plans, trains and looks up the runs behind the rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pps_fast.config import PPSConfig, require
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import select_samples
from pps_fast.devices import MAX_THREADS
from pps_fast.lab.capacity import plan_places
from pps_fast.lab.cluster import ClusterPool, require_submitit, slurm_options
from pps_fast.lab.options import LabOptions
from pps_fast.lab.pool import Outcome, ProcessPool, job_options, run_jobs
from pps_fast.lab.results import read_result
from pps_fast.lab.runs import RESULT_FILE, Run, is_finished, num_updates, plan_run
from pps_fast.lab.statistics import SeedFold

# of a row; each is a run
_MOST_SEEDS = 10_000
# in Slurm's queue at a time
_MOST_JOBS = 500


@dataclass(frozen=True, kw_only=True)
class Design:
    """Seeds and folds of every row; the fold None stands for the splits of the data file."""

    seeds: tuple[int, ...]
    folds: tuple[int | None, ...]

    @property
    def seed_folds(self) -> list[SeedFold]:
        """Every (seed, fold), ordered by seed, so that the first finished runs already make a complete table."""
        return [(seed, fold) for seed in self.seeds for fold in self.folds]


def design_of(config: PPSConfig, num_seeds: int, folds: tuple[int, ...]) -> Design:
    """Returns the seeds train.seed, train.seed + 1, ... on the folds; without folds, on data.fold.

    Raises:
        ValueError: for fewer than one seed, or a fold that is named twice.
    """
    require(1 <= num_seeds <= _MOST_SEEDS, "seeds", num_seeds, f"1 to {_MOST_SEEDS:,}")
    require(len(set(folds)) == len(folds), "folds", list(folds), "each fold once")
    first = config.train.seed
    return Design(seeds=tuple(range(first, first + num_seeds)), folds=folds or (config.data.fold,))


def with_data(config: PPSConfig, path: Path | None) -> PPSConfig:
    """Returns the config with the absolute path of a data file, so that a run can continue from any working directory.

    Raises:
        ValueError: for another file in data.path.
    """
    configured = config.data.path
    if path is not None and configured is not None and Path(configured).resolve() != path.resolve():
        raise ValueError(f"--data {path} and data.path = {configured}: two data sets; give one of them")
    chosen = path or configured
    return config if chosen is None else override(config, {"data.path": str(Path(chosen).resolve())})


def plan(rows: dict[str, PPSConfig], design: Design, described: dict[str, Any]) -> list[Run]:
    """Returns the runs of all rows without repetition, ordered by seed.

    Args:
        rows: what a row is called in messages -> its config.
        described: `checkpoint.describe_data` of the data set.
    """
    runs: dict[str, Run] = {}
    for seed, fold in design.seed_folds:
        where = f"seed {seed}" + ("" if fold is None else f", fold {fold}")
        for about, config in rows.items():
            run = plan_run(config, described, seed, fold, f"{about}, {where}")
            runs.setdefault(run.name, run)
    return list(runs.values())


def run_planned(runs: list[Run], data: PreparedData, options: LabOptions) -> Outcome:
    """Trains in options.out the runs that are not finished; see `pool.run_jobs`.

    Raises:
        ValueError: for options, a fold that the data set does not have, or a test split without times, before anything
            is trained.
    """
    require(1 <= options.threads <= MAX_THREADS, "threads", options.threads, f"1 to {MAX_THREADS:,}")
    require(options.jobs is None or options.jobs >= 1, "jobs", options.jobs, "at least 1")
    is_on_slurm = options.executor == "slurm"
    require(is_on_slurm or not options.slurm, "slurm", list(options.slurm), "none, or --executor slurm")
    if options.executor != "processes":
        require_submitit()
    splits = {run.config.data: select_samples(data, run.config.data) for run in runs}
    for each in splits.values():
        require(data.num_windows[each.test].any(), "the test split", "no samples with times", "samples to score")
    updates = {run.name: num_updates(run.config, splits[run.config.data]) for run in runs}
    jobs = job_options(options.out, options.device, options.threads)
    if is_on_slurm:
        # memory and GPUs of a job are Slurm's affair
        places: list[str | None] = [None] * (options.jobs or _MOST_JOBS)
    else:
        runs, places = plan_places(runs, data, options)
    if options.executor == "processes":
        return run_jobs(runs, updates, jobs, ProcessPool(jobs, places))
    return run_jobs(runs, updates, jobs, ClusterPool(jobs, options.executor, places, slurm_options(options.slurm)))


def finished_runs(config: PPSConfig, design: Design, described: dict[str, Any], folder: Path) -> dict[SeedFold, Path]:
    """Returns the directories of a row's finished runs by seed and fold."""
    runs = {seed_fold: plan_run(config, described, *seed_fold, "") for seed_fold in design.seed_folds}
    paths = {seed_fold: folder / "runs" / run.name for seed_fold, run in runs.items()}
    return {seed_fold: path for seed_fold, path in paths.items() if is_finished(path)}


def known_data(folder: Path) -> dict[str, Any]:
    """Returns name and sha256 of the data set that the finished runs of a folder were made on.

    Raises:
        ValueError: without finished runs, or with runs on several data sets.
    """
    paths = sorted((folder / "runs").glob(f"*/{RESULT_FILE}"))
    data_sets = {data["sha256"]: data for data in (read_result(path.parent)["data"] for path in paths)}
    if len(data_sets) != 1:
        names = ", ".join(f"{data['name']} {sha[:12]}" for sha, data in data_sets.items()) or "none"
        raise ValueError(
            f"{folder}: finished runs on data sets: {names}; --tables-only expects one. Leave it out: finished runs "
            "are not done again"
        )
    return next(iter(data_sets.values()))


def load_once(configs: list[PPSConfig]) -> PreparedData:
    """Loads the data set that all rows share.

    Raises:
        ValueError: where rows name different data sets.
    """
    wanted = {(config.data.path, config.data.planted if config.data.path is None else None) for config in configs}
    if len(wanted) > 1:
        names = " and ".join(sorted(path or repr(planted) for path, planted in wanted))
        raise ValueError(f"rows on different data sets, {names}: give one with --data, or equal --data.planted options")
    # to describe and divide them; the runs read the features themselves
    return load_data(configs[0].data, copies=0)
