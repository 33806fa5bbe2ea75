"""A data set on the device: batches are gathers there, without a data loader.

Features that are too large for the device come there batch by batch (see `residence`); all else always lives there.

Letters: N videos, M samples of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import Residence
from pps_fast.data.prepared import PreparedData
from pps_fast.data.residence import BatchReader, describe_residence, moved, residence_on
from pps_fast.randomness import dropout_keys, gumbel_noise
from pps_fast.types import Batch, FeatureSizes

# the number of words of a batch is rounded up to a multiple of this: few shapes for captured steps, little padding
WORD_STEP = 32
# multiple of the word columns of a batch: few shapes for kernels and captured steps, little padding
COLUMN_STEP = 2
# samples whose noise is drawn at once: with a million of them it would take 0.6 GB of the host's memory
_DRAWN = 1 << 16


def rounded_columns(num_words: np.ndarray, limit: int) -> np.ndarray:
    """Returns int64 numbers of word columns: numbers of words, rounded up to COLUMN_STEP, at most `limit`."""
    return np.minimum(-(-num_words.astype(np.int64) // COLUMN_STEP) * COLUMN_STEP, limit)


def rounded_words(num_words: np.ndarray) -> int:
    """Returns the sum of numbers of words, rounded up to WORD_STEP."""
    return -(-int(num_words.sum()) // WORD_STEP) * WORD_STEP


class Store:
    """Holds a prepared data set on a device and makes batches of it.

    Features stay float16, as in the file, and become float32 in the batch.

    Args:
        data: the data set; its arrays are not copied where the device is the CPU, so they must not change.
        device: where the tensors live and the batches are made.
        residence: where the features live, the same batches in any; 'auto' goes by their size.

    Attributes:
        residence: 'device', 'host' or 'disk', whatever was asked for.
        about_features: where features live, in words.
    """

    def __init__(self, data: PreparedData, device: torch.device | str = "cpu", residence: Residence = "auto") -> None:
        self.data = data
        self.device = torch.device(device)
        self.residence = residence_on(self.device, data.features, residence)
        self.about_features = describe_residence(data.features, self.residence, residence)
        # [N, S, F] float16 on the device, or what brings those of a batch there
        is_elsewhere = self.residence != "device"
        self._features = torch.empty(0) if is_elsewhere else moved(data.features, self.device)
        self._reader = BatchReader(data.features, self.device) if is_elsewhere else None
        # of the batch that `stage` has brought: features of its videos, and the row among them for each sample
        self._staged, self._rows = torch.empty(0), torch.empty(0, dtype=torch.int64)
        self._word_vectors = self._move(data.word_vectors)  # [V, W]
        self._word_ids = self._move(data.word_ids)  # [M, L]
        self._num_words = self._move(data.num_words)  # [M]
        self._hide_prob = self._move(data.hide_prob)  # [M, L]
        self._sample_video = self._move(data.sample_video)  # [M]
        self._sentences = None if data.sentence_vectors is None else self._move(data.sentence_vectors)  # [M, n]
        self._parts: Tensor | None = None  # [M]
        # of the latest pass; always in the same memory, which a captured step reads
        self._word_noise = torch.zeros(self._word_ids.shape, device=self.device)  # [M, L]
        self._dropout_key = torch.zeros(self._num_words.shape, dtype=torch.int32, device=self.device)  # [M]
        self._progress = torch.zeros((), device=self.device)
        self._pass: tuple[int, int] | None = None

    @property
    def sizes(self) -> FeatureSizes:
        """The sizes a model needs to be built for this data set."""
        return self.data.sizes

    def batch(self, samples: np.ndarray, *, seed: int, epoch: int = 0, videos: np.ndarray | None = None) -> Batch:
        """Returns the batch of some samples; L is the number of columns of its longest sentence (`num_columns`).

        Args:
            samples: [B] integer indices of samples.
            seed, epoch: with the index of a sample, they determine its `word_noise` and `dropout_key` in any batch.
            videos: [B] integer indices of videos to pair the sentences with; each sentence's own when not given.
        Returns:
            Batch on the store's device, floating fields float32.
        Raises:
            ValueError: for an empty list or an index outside the data set.
        """
        samples = _checked(samples, "samples", self.data.num_samples)
        if videos is None:
            videos = self.data.sample_video[samples]
        videos = _checked(videos, "videos", len(self.data.video_ids))
        if len(videos) != len(samples):
            raise ValueError(f"Store.batch: {len(videos)} videos for {len(samples)} samples; expected one for each")
        if self._reader is None:
            features = self._features.index_select(0, self._move(videos))
        else:
            some, rows = np.unique(videos, return_inverse=True)
            features = self._reader.take(some).index_select(0, self._move(rows))
        columns = int(self.num_columns(samples).max())
        batch = self._assembled(self._move(samples), columns, features)
        # the noise of a training's pass stays as it is, and that of no other sample is drawn
        noise = gumbel_noise(seed, epoch, samples, self._word_ids.shape[1])[:, :columns]
        keys = self._move(dropout_keys(seed, epoch, samples))
        return replace(batch, word_noise=self._move(noise), dropout_key=keys, progress=torch.zeros_like(batch.progress))

    def read_ahead(self, batches: Sequence[np.ndarray]) -> None:
        """Announces the next batches, so that features which live elsewhere are under way meanwhile.

        Args:
            batches: [B] integer samples each, in the order in which `stage` or `batch` will be asked for them.
        """
        if self._reader is not None:
            self._reader.announce([np.unique(self.data.sample_video[samples]) for samples in batches])

    def announced(
        self, batches: Sequence[np.ndarray], samples: np.ndarray, videos: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Yields batches one by one, each after the next one was announced.

        Args:
            batches: positions within the samples.
            samples: [n] integer samples.
            videos: [n] videos to pair them with; their own when not given.
        """
        for number, batch in enumerate(batches, start=1):
            if self._reader is not None:
                following = batches[number : number + 1]
                paired = [
                    self.data.sample_video[samples[some]] if videos is None else videos[some] for some in following
                ]
                self._reader.announce([np.unique(video) for video in paired])
            yield batch

    def stage(self, samples: np.ndarray) -> None:
        """Brings the features of a batch to where `gather` takes them from; nothing where they live on the device.

        Args:
            samples: [B] integer samples, in the order of the `gather` that follows.
        """
        if self._reader is None:
            return
        some, rows = np.unique(self.data.sample_video[samples], return_inverse=True)
        features = self._reader.take(some)
        if self.device.type == "cpu":
            self._staged, self._rows = features, self._move(rows)
            return
        if len(self._staged) < len(samples):
            # before any step is captured, which is one of the largest batch and reads the same memory when replayed
            shape = (len(samples), *self.data.features.shape[1:])
            self._staged = torch.empty(shape, dtype=torch.float16, device=self.device)
            self._rows = torch.empty(len(samples), dtype=torch.int64, device=self.device)
        self._staged[: len(some)].copy_(features)
        self._rows[: len(rows)].copy_(torch.from_numpy(rows), non_blocking=True)

    def begin_pass(self, seed: int, epoch: int, progress: float = 0.0) -> None:
        """Draws the noise and dropout keys of one pass over the data, in place, for the `gather`s that follow.

        Args:
            seed, epoch: as in `batch`.
            progress: of the batches' record; 0 outside training.
        """
        self._progress.fill_(progress)
        if self._pass == (seed, epoch):
            return
        for start in range(0, self.data.num_samples, _DRAWN):
            some = np.arange(start, min(start + _DRAWN, self.data.num_samples))
            noise = gumbel_noise(seed, epoch, some, self._word_ids.shape[1])
            self._word_noise[start : start + _DRAWN].copy_(torch.from_numpy(noise))
            keys = dropout_keys(seed, epoch, some)
            self._dropout_key[start : start + _DRAWN].copy_(torch.from_numpy(keys))
        self._pass = (seed, epoch)

    def gather(self, index: Tensor, num_columns: int, total_words: int | None = None) -> Batch:
        """Returns the batch of some samples without checks and without synchronizing with the device.

        Args:
            index: [B] int64 samples, on the store's device; those of the last `stage`, where features live elsewhere.
            num_columns: L, at least that of every sample.
            total_words: at least the words of all samples, for the batch.
        """
        if self._reader is None:
            features = self._features.index_select(0, self._sample_video.index_select(0, index))
        else:
            features = self._staged.index_select(0, self._rows[: len(index)])
        batch = self._assembled(index, num_columns, features)
        return batch if total_words is None else replace(batch, total_words=min(total_words, batch.word_ids.numel()))

    def _assembled(self, index: Tensor, num_columns: int, features: Tensor) -> Batch:
        """Returns the batch of samples [B], with features [B, S, F] float16 of their videos."""
        word_ids = self._word_ids[:, :num_columns].index_select(0, index)  # [B, L]
        return Batch(
            frames=features.float(),  # [B, S, F]
            num_frames=torch.full_like(index, features.shape[1]),
            # class 0 has the vector 0, which makes the columns after the last word zero
            words=self._word_vectors.index_select(0, word_ids.flatten()).unflatten(0, word_ids.shape),  # [B, L, W]
            word_ids=word_ids,
            num_words=self._num_words.index_select(0, index),
            hide_prob=self._hide_prob[:, :num_columns].index_select(0, index),
            word_noise=self._word_noise[:, :num_columns].index_select(0, index),
            dropout_key=self._dropout_key.index_select(0, index),
            sample_index=index,
            progress=self._progress.repeat(len(index)),
            sentence=None if self._sentences is None else self._sentences.index_select(0, index),
            part=None if self._parts is None else self._parts.index_select(0, index),
        )

    def memory(self) -> list[Tensor]:
        """All tensors that `gather` reads, for what relies on where they lie."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def set_parts(self, parts: np.ndarray) -> None:
        """Sets what the batches' `part` is taken from, [M] int64."""
        self._parts = self._move(parts)

    def num_columns(self, samples: np.ndarray) -> np.ndarray:
        """Returns the word columns each sample needs, [B] int64: its words, rounded up so that few shapes occur."""
        num_words = self.data.num_words[_checked(samples, "samples", self.data.num_samples)]
        return rounded_columns(num_words, self.data.word_ids.shape[1])

    def total_words(self, samples: np.ndarray) -> int:
        """Returns the number of words of some samples together, rounded up so that few shapes occur."""
        return rounded_words(self.data.num_words[samples])

    def _move(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _checked(values: np.ndarray, name: str, limit: int) -> np.ndarray:
    """Checks indices on the host, as a wrong one would crash a GPU's context; returns them as int64."""
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise ValueError(
            f"Store.batch: {name} has shape {values.shape} and dtype {values.dtype}; "
            "expected one or more integers in one dimension"
        )
    if values.min() < 0 or values.max() >= limit:
        raise ValueError(
            f"Store.batch: {name} holds {values.min()} to {values.max()}; the data set has 0 to {limit - 1}"
        )
    return values.astype(np.int64)
