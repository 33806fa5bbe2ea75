"""How many runs of an experiment there may be at a time, and which GPU each has."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

import torch

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.feature_file import FeatureFile
from pps_fast.data.prepared import PreparedData
from pps_fast.data.residence import fits
from pps_fast.devices import choose_device, visible_gpus
from pps_fast.files import Note
from pps_fast.lab.options import LabOptions
from pps_fast.lab.runs import Run
from pps_fast.machine import free_memory, note_memory, size_text
from pps_fast.model import build_model
from pps_fast.train.fake_step import SavedBytes, record_step

# of a process with torch and the package, without data and model
_PROCESS = 400 << 20
# weights, gradients, and two moments
_COPIES = 4


def plan_places(runs: list[Run], data: PreparedData, options: LabOptions) -> tuple[list[Run], list[str | None]]:
    """Returns the runs, and for each that there may be at a time the name of its GPU, or None without one.

    Without `options.jobs` there is one run for each GPU or CPU, fewer where memory does not suffice for as many.
    Features that do not fit into memory once for each run stay in their file.

    Raises:
        ValueError: for a device that is not there.
    Warns:
        Note: where memory limits the number, or where it does not suffice for `options.jobs`.
    """
    device = choose_device(options.device)
    gpus = visible_gpus() if device.type == "cuda" else []
    wanted = options.jobs or len(gpus) or _num_cpus()
    # more than there are runs need no memory
    wanted, free = min(wanted, max(len(runs), 1)), free_memory()
    # read as the data were: features that cannot be read in their file are in memory
    stays = isinstance(data.features, FeatureFile) and not fits(wanted * data.features.nbytes, free)
    if stays:
        runs = [_in_file(run) for run in runs]
    needed = memory_of_run(runs[0].config, data, device, with_features=not stays)
    count = wanted
    if options.jobs is not None:
        note_memory(wanted * needed, free, f"{wanted} runs at a time", "lower --jobs or use a larger machine")
    elif free is not None and wanted * needed > free:
        count = max(1, free // needed)
        sizes = f"each needs about {size_text(needed)} of memory, {size_text(free)} are free"
        text = f"{count} at a time and not {wanted} runs: {sizes}; --jobs chooses another number"
        warnings.warn(text, Note, stacklevel=2)
    return runs, [gpus[index % len(gpus)] if gpus else None for index in range(count)]


def memory_of_run(config: PPSConfig, data: PreparedData, device: torch.device, *, with_features: bool) -> int:
    """Returns about how many bytes of the host's memory the process of a run takes.

    Args:
        with_features: whether it holds the features; a file's samples are held in any case, and are not counted.
    """
    needed = _PROCESS + with_features * data.features.nbytes
    if device.type == "cuda" or config.data.path is None:
        # on a GPU the rest lies there; the embedded data are small, as are the models that are tried on them
        return needed
    with torch.device("meta"):
        weights = sum(value.numel() * value.element_size() for value in build_model(config, data.sizes).parameters())
    needed += _COPIES * weights
    if config.method == "proposals":
        with SavedBytes() as saved:
            record_step(config, data.sizes, data.word_ids.shape[1], device, config.train.batch_size)
        needed += saved.total
    return needed


def _in_file(run: Run) -> Run:
    # a residence that was chosen stays
    is_chosen = run.config.data.residence != "auto"
    return run if is_chosen else replace(run, config=override(run.config, {"data.residence": "disk"}))


def _num_cpus() -> int:
    # not on every system
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
