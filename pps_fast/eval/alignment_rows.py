"""The closed-form alignment as a baseline: what a model without networks learns from the same training pairs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pps_fast.alignment.fit import fit_alignment
from pps_fast.alignment.model import AlignmentModel, FittedAlignment
from pps_fast.alignment.zero_shot import identity_alignment, joint_encoder
from pps_fast.config import AlignmentConfig, CurveReading, PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.store import Store

ALIGNMENT_ROWS: dict[str, CurveReading] = {
    "alignment, Gaussian filter": "filter",
    "alignment, max-sum window": "window",
}
"""row -> how it reads its moments; all else is the default of `config.AlignmentConfig`"""
ZERO_SHOT_ROW = "zero-shot, Gaussian filter"
"""row of an alignment that nothing was fitted for, where frames and sentences come from one joint encoder"""


def alignment_models(store: Store, train: np.ndarray, config: PPSConfig, count: int) -> dict[str, AlignmentModel]:
    """Returns the models of the rows, fitted to the training pairs, and the zero-shot one that needs no pairs.

    There are none where the config leaves the rows out. Those that are fitted need training pairs, the zero-shot one
    frames and sentences of one joint encoder. The row that a model is itself is left out.

    Args:
        store: the data set on the device that fits.
        train: [P] int64 training samples.
        config: of the model that the rows stand beside.
        count: moments of each answer.
    """
    rows = {name: AlignmentConfig(reading=reading) for name, reading in ALIGNMENT_ROWS.items() if len(train)}
    if joint_encoder(store.data.recipe or {}) is not None:
        rows[ZERO_SHOT_ROW] = AlignmentConfig(map="identity")
    models = {}
    for name, options in rows.items() if config.inference.alignment_rows else ():
        if config.method == "alignment" and config.alignment == options:
            continue
        changes = {"alignment": options, "proposals.num_proposals": count, "losses.num_best": 1}
        # the moment of most reward, as the alignment alone answers: votes of proposals are the model's own business
        changes["inference.selector"] = "alignment"
        model = AlignmentModel(override(config, changes), store.sizes)
        is_fitted = options.map == "fitted"
        model.alignment.take(_fit(_Pairs(store, train)) if is_fitted else identity_alignment(store.sizes, options))
        models[name] = model.to(store.device).eval()
    return models


class _Pairs:
    """Training pairs, equal where the content of the data set and the samples are."""

    def __init__(self, store: Store, train: np.ndarray) -> None:
        self.store, self.train = store, train
        self._identity = (tuple(sorted(store.data.content.items())), train.tobytes(), store.device.type)

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pairs) and self._identity == other._identity


@lru_cache(maxsize=4)
def _fit(pairs: _Pairs) -> FittedAlignment:
    return fit_alignment(pairs.store.data, pairs.train, AlignmentConfig(), pairs.store.device)
