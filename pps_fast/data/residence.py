"""Where features live while a run goes on: on the device, in the host's memory, or in their file.

Batches are bit for bit the same. What does not lie on the device is brought there batch by batch: a thread reads the
next batches into memory while a step runs, and on a GPU the next one is copied beside the step that runs, too.

Letters: n videos of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import Residence
from pps_fast.data.feature_file import FeatureFile, Features
from pps_fast.devices import free_memory_of
from pps_fast.machine import size_text

SHARE = 0.5
"""of the free memory that features may take where 'auto' decides; models and batches need the rest"""

_WHERE = {"device": "on the device", "host": "in the host's memory", "disk": "read from the file"}


def fits(num_bytes: int, free: int | None) -> bool:
    """Whether features of that size go into a memory of which `free` bytes are free (None: unknown, then they do)."""
    return free is None or num_bytes <= SHARE * free


def residence_on(device: torch.device, features: Features, wanted: Residence) -> Residence:
    """Returns where features live for batches on a device: 'device', 'host' or 'disk'.

    Args:
        features: in memory, or in a file where they do not fit or shall not be.
        wanted: 'auto' takes the device where they fit into `SHARE` of its free memory.
    """
    is_file = isinstance(features, FeatureFile)
    if device.type == "cpu":
        # its memory is the host's
        return "disk" if is_file else "device"
    if wanted == "device" or (wanted == "auto" and fits(features.nbytes, free_memory_of(device))):
        return "device"
    return "disk" if is_file else "host"


def describe_residence(features: Features, residence: Residence, wanted: Residence) -> str:
    """Returns in words where features live, and that their size decided it."""
    by_size = " (by size: data.residence = 'auto')" if wanted == "auto" else ""
    return f"features of {size_text(features.nbytes)} {_WHERE[residence]}{by_size}"


class BatchReader:
    """Brings the features of batches to a device; a thread reads those that are announced.

    Args:
        features: in memory or in a file; they must not change.
        device: where the results are.
    """

    def __init__(self, features: Features, device: torch.device) -> None:
        self.features, self.device = features, device
        # one: a second thread would read the same disk
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._coming: dict[bytes, Future[Tensor]] = {}
        self._copied: dict[bytes, tuple[Tensor, torch.cuda.Event]] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def announce(self, batches: Sequence[np.ndarray]) -> None:
        """Reads ahead: starts to read the features of some batches, and to copy the first of them to the device.

        What was announced before and neither taken nor announced again is given up.

        Args:
            batches: [n] int64 videos each, in the order in which they will be taken.
        """
        names = [videos.tobytes() for videos in batches]
        for name in self._coming.keys() - set(names):
            self._coming.pop(name).cancel()
        for name in self._copied.keys() - set(names):
            del self._copied[name]
        for name, videos in zip(names, batches, strict=True):
            if name not in self._coming and name not in self._copied:
                # allocated here: a capture of this thread forbids others to allocate pinned memory
                self._coming[name] = self._thread.submit(self._read, videos, self._room(len(videos)))
        if self._stream is not None and names and names[0] in self._coming:
            values = self._coming.pop(names[0]).result()
            with torch.cuda.stream(self._stream):
                self._copied[names[0]] = (values.to(self.device, non_blocking=True), self._stream.record_event())

    def take(self, videos: np.ndarray) -> Tensor:
        """Returns [n, S, F] float16 features of n videos on the device, announced or not."""
        name = videos.tobytes()
        if name in self._copied:
            on_device, event = self._copied.pop(name)
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)
            # its memory belongs to the other stream, which must not use it again before this one is done
            on_device.record_stream(current)
            return on_device
        coming = self._coming.pop(name, None)
        values = self._read(videos, self._room(len(videos))) if coming is None else coming.result()
        return values.to(self.device, non_blocking=True)

    def _room(self, num_videos: int) -> Tensor:
        shape = (num_videos, *self.features.shape[1:])
        return torch.empty(shape, dtype=torch.float16, pin_memory=self._stream is not None)

    def _read(self, videos: np.ndarray, room: Tensor) -> Tensor:
        if isinstance(self.features, FeatureFile):
            self.features.read(videos, room.numpy())
        else:
            # "clip": with "raise" numpy would read into a buffer of its own first; the videos were checked before
            np.take(self.features, videos, axis=0, out=room.numpy(), mode="clip")
        return room


def moved(features: Features, device: torch.device) -> Tensor:
    """Returns all features on a device, [N, S, F]; those in the memory of a CPU are not copied."""
    if isinstance(features, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(features)).to(device)
    on_device = torch.empty(features.shape, dtype=torch.float16, device=device)
    start = 0
    for block in features.blocks():
        on_device[start : start + len(block)] = torch.from_numpy(block)
        start += len(block)
    return on_device
