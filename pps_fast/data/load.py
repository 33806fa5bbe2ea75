"""Loads the data set that a config names."""

from __future__ import annotations

from pps_fast.config import DataConfig
from pps_fast.data.prepared import PreparedData, read_prepared, read_samples
from pps_fast.data.record import PreparedSamples
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data


def load_data(config: DataConfig, *, copies: int = 1) -> PreparedData:
    """Returns the prepared file `config.path`, or the embedded planted-moment data when no path is given.

    Args:
        copies: how many processes of this machine will hold the features in memory, which 'auto' goes by; 0 leaves
            them in the file where they can be read there.
    Raises:
        ValueError: for a file that is missing or not one of prepared data.
    """
    if config.path is None:
        return planted_data(config.planted)
    return read_prepared(config.path, config.residence, copies=copies)


def load_samples(config: DataConfig) -> PreparedSamples:
    """Returns the same data set without features, which of a prepared file are not read.

    Raises:
        ValueError: as `load_data`.
    """
    return planted_data(config.planted) if config.path is None else read_samples(config.path)


def describe_samples(store: Store, splits: Splits) -> str:
    """Returns what a run reads, in a line: sizes, samples of each split, and where the features live."""
    data, sizes = store.data, store.sizes
    counts = ", ".join(f"{name} {len(getattr(splits, name))}" for name in ("train", "validation", "test"))
    name = data.provenance.get("name", "unnamed")
    return (
        f"data {name}: {len(data.video_ids)} videos of {sizes.num_segments} segments x "
        f"{sizes.frame_dim}, samples: {counts}, {sizes.vocab_size} classes; {store.about_features}"
    )
