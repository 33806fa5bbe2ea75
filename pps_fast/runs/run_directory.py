"""Opening a run directory: a new one must be empty, a resumed one must hold the same run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pps_fast.config import PPSConfig
from pps_fast.config_tree import flatten, to_dict
from pps_fast.data.identity import differing_parts
from pps_fast.files import Note, write_json
from pps_fast.runs import records
from pps_fast.runs.checkpoint import Header, find_checkpoint, read_header
from pps_fast.runs.leftovers import CHECKPOINTS, delete_leftovers, has_only_leftovers
from pps_fast.runs.lock import RunLock
from pps_fast.runs.pointers import prune, read_pointer
from pps_fast.runs.records import CONFIG_FILE as CONFIG_FILE
from pps_fast.runs.records import METRICS_FILE, TRACE_FILE

# fields that may change on resume, because no update of a running epoch depends on them; of the data the content is
# compared, and neither the path nor where they live
_FREE = (
    "train.epochs",
    "train.max_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.trace_every",
    "data.path",
    "data.residence",
)


def open_run(run: Path, config: PPSConfig, data: dict[str, Any], device: str, resume: bool) -> Path | None:
    """Prepares `run` for training and writes its config.json.

    Args:
        run: the run directory, created where it does not exist; this process holds its lock (see `lock`).
        config: of this training.
        data: `checkpoint.describe_data` of the training data.
        device: type of the device.
        resume: continue the run in the directory.
    Returns:
        The checkpoint to continue from, or None for a start at the beginning (a resumed run may not have saved yet).
    Raises:
        ValueError: for a directory that is not empty without `resume`, nothing to resume, checkpoints behind a link,
            or another config, data set or device than the run's.
    """
    check_run(run, config, resume)
    if not resume:
        delete_leftovers(run)
        checkpoint = None
    else:
        checkpoint = find_checkpoint(run, "latest") if read_pointer(run, "latest") is not None else None
        if checkpoint is not None:
            _require_same_input(checkpoint, read_header(checkpoint), data, device)
        # incomplete checkpoints of a killed process must not be mistaken for checkpoints
        prune(run)
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / CONFIG_FILE, to_dict(config))
    return checkpoint


def check_run(run: Path, config: PPSConfig, resume: bool) -> None:
    """Refuses what `open_run` refuses whatever the data are, so that it is told before these are read.

    Raises:
        ValueError: as `open_run`, except for data and device.
    """
    if (run / CHECKPOINTS).is_symlink():
        raise ValueError(
            f"{run / CHECKPOINTS}: a symbolic link, behind which nothing is written or deleted; put the whole run "
            "directory where its checkpoints shall be"
        )
    if resume:
        _require_same_config(run, to_dict(read_config(run)), to_dict(config))
    else:
        require_fresh(run)


def read_config(run: Path) -> PPSConfig:
    """Returns the config of a run; fields that an older run did not have yet have their defaults.

    Raises:
        ValueError: where there is no run, or its config cannot be read.
    """
    if not (run / CONFIG_FILE).is_file():
        raise ValueError(f"{run}: no run to resume here (no {CONFIG_FILE}); leave --resume out to start one")
    return records.read_config(run)


class Rewritable(Protocol):
    """A file that a run has open."""

    def rewrite(self) -> None:
        """Writes the file again where it was deleted."""


def rewrite_deleted(run: Path, config: PPSConfig, lock: RunLock, logs: Sequence[Rewritable] = ()) -> bool:
    """Writes config and open files of a running training again where its directory was deleted, and warns of it.

    Args:
        config: of the training.
        lock: of the run; it is taken again.
        logs: the open files.
    Returns:
        Whether something was missing: then there is no checkpoint, and the caller writes one.
    Raises:
        ValueError: where another process has taken the directory meanwhile.
    """
    if lock.is_there() and (run / CONFIG_FILE).is_file():
        return False
    lock.renew()
    if (run / CONFIG_FILE).is_file():
        return False
    write_json(run / CONFIG_FILE, to_dict(config))
    for log in logs:
        log.rewrite()
    text = "was deleted during the training; config, metrics and the current checkpoint are written again"
    warnings.warn(Note(f"{run}: {text}"), stacklevel=2)
    return True


def require_fresh(run: Path) -> None:
    """Refuses a place for a new run that is a file, or a directory with something in it.

    Temporary files that a killed process has left, and what a desktop or file system leaves anywhere, are nothing. So
    are config and logs of a run that ended before it had saved anything.

    Raises:
        ValueError: with the ways out.
    """
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: a file, expected a directory for the run; choose another --out")
    if run.is_dir() and not has_only_leftovers(run, besides=_logs_of_nothing(run)):
        raise ValueError(
            f"{run}: not empty; continue the run there with --resume, choose another --out, or remove the directory"
        )


def _logs_of_nothing(run: Path) -> tuple[str, ...]:
    """Returns the names that a run has written before its first checkpoint, if this is one that ended so."""
    if not (run / CONFIG_FILE).is_file() or any((run / f"{which}.json").exists() for which in ("latest", "best")):
        return ()
    try:
        read_config(run)
    except ValueError:
        # somebody else's file of that name
        return ()
    return (CONFIG_FILE, METRICS_FILE, TRACE_FILE)


def _require_same_config(run: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    old, new = flatten(saved), flatten(asked)
    # a curriculum goes by the share of the epochs
    free = [name for name in _FREE if name != "train.epochs" or not new["proposals.negatives.curriculum"]]
    names = sorted(name for name in old.keys() | new.keys() if name not in free and old.get(name) != new.get(name))
    if names:
        changes = "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
        raise ValueError(
            f"{run}: resumed with another config: {changes}. Use the run's own values, or another --out "
            f"(only {', '.join(free)} may change)"
        )


def _require_same_input(checkpoint: Path, header: Header, data: dict[str, Any], device: str) -> None:
    differing = differing_parts(header.data, data)
    if differing:
        raise ValueError(
            f"{checkpoint}: trained on {header.data['name']!r}; {data['name']!r} has other {', '.join(differing)}; "
            "resume with the same prepared file, whatever its name is now"
        )
    if header.device != device:
        raise ValueError(
            f"{checkpoint}: written on device {header.device}, this is {device}, whose random numbers differ; "
            f"resume with --device {header.device}"
        )
