"""The largest sizes that a config may ask for, far beyond any in use: a slip of the finger is met before it allocates.

What is below may still be too much for a machine: that is told from its free memory (`machine`).
"""

from __future__ import annotations

_LAYERS = 200
_COMPONENTS = 100
_EVER = 1_000_000_000_000
_SEED = 2**63 - 1

LARGEST: dict[str, int] = {
    "data.fold": 1_000_000,
    "data.planted.num_videos": 1_000_000,
    "data.planted.num_segments": 65_536,
    "data.planted.frame_dim": 1_048_576,
    "data.planted.seed": _SEED,
    "encoder.hidden_dim": 65_536,
    "encoder.num_heads": 65_536,
    "generator.num_layers": _LAYERS,
    "generator.num_word_layers": _LAYERS,
    "proposals.num_proposals": _COMPONENTS,
    "proposals.components_per_proposal": _COMPONENTS,
    "proposals.negatives.num_components": _COMPONENTS,
    "reconstructor.num_layers": _LAYERS,
    "reconstructor.num_word_layers": _LAYERS,
    "reconstructor.stride": 1_000_000,
    "reconstructor.hidden_words_divisor": 1_000_000,
    "losses.num_best": _COMPONENTS,
    "inference.batch_size": 1_000_000,
    "inference.seed": _SEED,
    "inference.num_bootstrap": 1_000_000,
    "alignment.parts": 100,
    "train.epochs": 1_000_000_000,
    "train.max_steps": _EVER,
    "train.batch_size": 1_000_000,
    "train.warmup_updates": _EVER,
    "train.seed": _SEED,
    "train.evaluate_every": _EVER,
    "train.checkpoint_every": _EVER,
    "train.log_every": _EVER,
    "train.trace_every": _EVER,
}
"""dotted name of every whole number of a config -> its largest value"""
