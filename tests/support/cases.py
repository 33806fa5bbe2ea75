"""Seeded random inputs of ops and models, shared by the tests and the benchmarks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.presets import PRESETS
from pps_fast.proposals.layout import MixtureLayout, ramp, uniform
from pps_fast.types import Batch, FeatureSizes

Arrays = dict[str, Any]

LAYOUTS = {"ramp1": ramp(1), "ramp3": ramp(3), "ramp7": ramp(7), "uniform3x4": uniform(3, 4), "single5": uniform(5, 1)}
# layout, T: every layout, every T of the house's list
GRID = (("ramp1", 2), ("ramp3", 7), ("ramp7", 50), ("uniform3x4", 63), ("single5", 200))


@dataclass(frozen=True, kw_only=True)
class Case:
    """Inputs of one op, by the parameter names of its equation.

    Attributes:
        name: also the seed.
        build: from a generator to arrays (float64, int64, bool) and plain numbers.
        wrt: arguments that get a gradient.
    """

    name: str
    build: Callable[[np.random.Generator], Arrays]
    wrt: tuple[str, ...]

    def arrays(self) -> Arrays:
        """Returns the inputs in float64, the same at every call."""
        return self.build(np.random.default_rng(zlib.crc32(self.name.encode())))

    def inputs(self, dtype: torch.dtype, requires_grad: bool = False) -> Arrays:
        """Returns the inputs as tensors, floating ones as `dtype`."""
        return to_tensors(self.arrays(), dtype, self.wrt if requires_grad else ())


def to_tensors(arrays: Arrays, dtype: torch.dtype, wrt: Sequence[str] = ()) -> Arrays:
    """Returns arrays as tensors, floating ones as `dtype`; those named in `wrt` are leaves with a gradient."""
    result = {}
    for name, value in arrays.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
            value = value.to(dtype) if value.is_floating_point() else value
            value = value.requires_grad_() if name in wrt else value
        result[name] = value
    return result


def to_arrays(inputs: Arrays) -> Arrays:
    """Returns tensors as arrays, floating ones as float64: what an op really saw after rounding to its dtype."""
    result = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            value = value.detach()
            value = (value.double() if value.is_floating_point() else value).numpy()
        result[name] = value
    return result


def softmax_by_group(score: np.ndarray, layout: MixtureLayout) -> np.ndarray:
    """[B, E] -> [B, E], summing to 1 in every group."""
    exponential = np.exp(score)
    total = np.zeros_like(score)
    for first, last in zip(layout.offsets, layout.offsets[1:], strict=False):
        total[:, first:last] = exponential[:, first:last].sum(1, keepdims=True)
    return exponential / total


def _off_the_grid(rng: np.random.Generator, shape: tuple[int, ...], num_positions: int) -> np.ndarray:
    """Returns centers that lie neither on a position nor in the middle of two.

    There 1 - f is as small as the rounding of a position's distance in fp32, and its log has no digits.
    """
    share = rng.uniform(0.2, 0.4, shape)
    share = np.where(rng.random(shape) < 0.5, share, 1 - share)
    return (rng.integers(0, num_positions - 1, shape) + share) / (num_positions - 1)


def _mask_case(layout_name: str, num_positions: int, sigma: float, inverse: bool | None = False) -> Case:
    """Without a value of `inverse` the argument is left out."""

    def build(rng: np.random.Generator) -> Arrays:
        shape = (3, LAYOUTS[layout_name].num_components)
        drawn = _off_the_grid(rng, shape, num_positions) if inverse else rng.uniform(0.02, 0.98, shape)
        return {
            "center": drawn,
            "width": rng.uniform(0.1, 0.95, shape),
            "sigma": sigma,
            "num_positions": num_positions,
        } | ({} if inverse is None else {"inverse": inverse})

    kind = "-inverse" if inverse else ""
    return Case(name=f"{layout_name}-T{num_positions}-sigma{sigma:g}{kind}", build=build, wrt=("center", "width"))


def _pooling_case(layout_name: str, num_positions: int, names: tuple[str, ...], **constants: Any) -> Case:
    layout = LAYOUTS[layout_name]

    def build(rng: np.random.Generator) -> Arrays:
        shape = (3, layout.num_components)
        drawn = {
            "masks": rng.uniform(0, 1, (*shape, num_positions)),
            "center": rng.uniform(0.05, 0.95, shape),
            "width": rng.uniform(0.05, 0.6, shape),
            "score": rng.normal(0, 2, shape),
        }
        drawn["log_masks"] = np.log(drawn["masks"] + 1e-10)
        drawn["exponents"] = np.log(drawn["masks"] + 1e-3)
        drawn["importance"] = softmax_by_group(drawn["score"], layout)
        groups = {"group": np.array(layout.group), "num_groups": layout.num_proposals}
        return {name: drawn[name] for name in names} | groups | constants

    return Case(name=f"{layout_name}-T{num_positions}", build=build, wrt=names)


def _push_case(layout_name: str, num_positions: int, normalize: bool, inter: bool, has_exponents: bool = False) -> Case:
    layout = LAYOUTS[layout_name]

    def build(rng: np.random.Generator) -> Arrays:
        group = np.zeros(layout.num_proposals, dtype=np.int64) if inter else np.array(layout.group)
        masks = rng.uniform(0, 1, (3, len(group), num_positions))
        drawn = {"masks": masks, "group": group, "target": 0.15, "normalize": normalize}
        # rows whose masks all underflow to 0
        return drawn | ({"exponents": rng.uniform(-1010, -990, masks.shape)} if has_exponents else {})

    kind = ("inter" if inter else "intra") + ("" if normalize else "-plain") + ("-exponents" if has_exponents else "")
    wrt = ("exponents",) if has_exponents else ("masks",)
    return Case(name=f"{kind}-{layout_name}-T{num_positions}", build=build, wrt=wrt)


def _attention_case(name: str, shape: tuple[int, int, int, int, int], causal: bool, **options: Any) -> Case:
    """`shape` is (G, H, Q, T, h); options: masked, narrow (mask), padded, empty (first row all padding), num_masks."""

    def build(rng: np.random.Generator) -> Arrays:
        num, heads, queries, keys, width = shape
        arrays: Arrays = {
            "query": rng.normal(size=(num, heads, queries, width)),
            "key": rng.normal(size=(num, heads, keys, width)),
            "value": rng.normal(size=(num, heads, keys, width)),
            "causal": causal,
        }
        masks = (num, options["num_masks"]) if "num_masks" in options else (num,)
        if options.get("masked"):
            arrays["key_bias"] = np.log(rng.uniform(0.05, 1, (*masks, keys)))
        if options.get("narrow"):
            distance = np.arange(keys) - rng.integers(0, keys, (*masks, 1))
            arrays["key_bias"] = np.log(np.exp(-3.0 * distance**2) + 1e-10)
        if options.get("padded"):
            length = rng.integers(1, keys + 1, (num, 1))
            arrays["key_valid"] = np.arange(keys) < length
            if options.get("empty"):
                arrays["key_valid"][0] = False
        return arrays

    wrt = ("query", "key", "value") + (("key_bias",) if options.get("masked") or options.get("narrow") else ())
    return Case(name=name, build=build, wrt=wrt)


def _nll_case(num_masks: int, num_columns: int, vocab_size: int, smoothing: float) -> Case:
    def build(rng: np.random.Generator) -> Arrays:
        length = rng.integers(1, num_columns + 1, (3, 1))
        return {
            "logits": rng.normal(0, 3, (3, num_masks, num_columns, vocab_size)),
            "targets": rng.integers(0, vocab_size, (3, num_columns)),
            "is_target": np.arange(num_columns) < length,
            "smoothing": smoothing,
        }

    return Case(name=f"N{num_masks}-L{num_columns}-V{vocab_size}-e{smoothing:g}", build=build, wrt=("logits",))


def _residual_case(
    name: str, shape: tuple[int, int, int], rate: float | None = None, has_first_row: bool = False
) -> Case:
    """`shape` is (G, n, D); without a rate there is no key."""

    def build(rng: np.random.Generator) -> Arrays:
        num, _, width = shape
        arrays: Arrays = {
            "x": rng.normal(0.3, 1, shape),
            "branch": rng.normal(-0.1, 1.5, shape),
            "weight": rng.uniform(0.5, 1.5, width),
            "bias": rng.normal(size=width),
        }
        if rate is not None:
            arrays |= {"dropout_key": rng.integers(-(2**31), 2**31, num, dtype=np.int32), "site": 23, "rate": rate}
        if has_first_row:
            arrays["first_row"] = rng.integers(0, 60, num)
        return arrays

    return Case(name=name, build=build, wrt=("x", "branch", "weight", "bias"))


def _reward_case(num_masks: int, num_positions: int, power: float, is_padded: bool = False) -> Case:
    def build(rng: np.random.Generator) -> Arrays:
        masks, length = rng.uniform(0, 1, (3, num_masks, num_positions)), rng.integers(2, num_positions + 1, (3, 1))
        drawn = {"masks": masks**4, "curve": rng.normal(0.2, 0.05, (3, num_positions)), "power": power}
        return drawn | ({"frame_valid": np.arange(num_positions) < length} if is_padded else {})

    name = f"n{num_masks}-T{num_positions}-power{power:g}" + ("-padded" if is_padded else "")
    return Case(name=name, build=build, wrt=("masks", "curve"))


def _contrastive_case(num_samples: int, num_best: int, num_negatives: int) -> Case:
    def build(rng: np.random.Generator) -> Arrays:
        best = rng.uniform(2, 3, (num_samples, num_best))
        return {
            "best_nll": best,
            "whole_video_nll": rng.uniform(2, 3, num_samples),
            "negative_nll": rng.uniform(2, 3, (*best.shape, num_negatives)),
            "whole_video_margin": 0.3,
            "negative_margin": 0.2,
        }

    wrt = ("best_nll", "whole_video_nll", "negative_nll")
    return Case(name=f"B{num_samples}-n{num_best}-J{num_negatives}", build=build, wrt=wrt)


_MASKS = [
    *(_mask_case(name, t, sigma) for (name, t), sigma in zip(GRID, (4.0, 9.0, 9.0, 4.0, 9.0), strict=True)),
    _mask_case("ramp3", 7, 4.0, inverse=True),
    _mask_case("ramp3", 50, 9.0, inverse=True),
]
_PULL = [_pooling_case(name, t, ("center",)) for name, t in GRID]

CASES: dict[str, list[Case]] = {
    "gaussian_mask": _MASKS,
    "gaussian_peak_mask": _MASKS,
    "laplace_mask": _MASKS,
    # wide, so that gradients are no larger than half precision holds
    "gaussian_exponent": [_mask_case(name, t, 0.5, inverse=None) for name, t in GRID],
    "importance": [_pooling_case(name, t, ("score",)) for name, t in GRID],
    "mixture": [_pooling_case(name, t, ("masks", "log_masks", "importance")) for name, t in GRID],
    "mixture_exponent": [_pooling_case(name, t, ("exponents", "importance")) for name, t in GRID],
    "peak_mixture": [_pooling_case(name, t, ("masks",)) for name, t in GRID],
    "boundaries": [_pooling_case(name, t, ("center", "width", "importance"), shrink=0.15) for name, t in GRID],
    "pull_distant": _PULL,
    "pull_middle": _PULL,
    "pull_all": _PULL,
    "push": [
        *(_push_case(name, t, True, False) for name, t in GRID),
        *(_push_case(name, t, True, True) for name, t in GRID),
        _push_case("ramp3", 7, False, False),
        _push_case("ramp7", 50, False, True),
        _push_case("ramp3", 7, True, False, has_exponents=True),
        _push_case("ramp7", 50, True, False, has_exponents=True),
        _push_case("ramp7", 50, True, True, has_exponents=True),
    ],
    "masked_attention": [
        _attention_case("self_causal-masked", (3, 2, 7, 7, 4), True, masked=True, padded=True),
        _attention_case("self_causal-T50", (2, 2, 50, 50, 8), True, masked=True),
        _attention_case("self_causal-plain", (2, 2, 13, 13, 4), True, padded=True),
        _attention_case("cross-masked-T63", (2, 3, 5, 63, 8), False, masked=True),
        _attention_case("cross-T200", (2, 1, 9, 200, 4), False, padded=True),
        _attention_case("cross-T2", (2, 1, 1, 2, 4), False, masked=True),
        _attention_case("self_causal-narrow", (2, 2, 50, 50, 4), True, narrow=True),
        _attention_case("cross-empty_row", (3, 2, 4, 6, 4), False, masked=True, padded=True, empty=True),
    ],
    "shared_attention": [
        _attention_case("shared-masked", (2, 2, 7, 7, 4), True, masked=True, padded=True, num_masks=5),
        _attention_case("shared-T50", (1, 2, 50, 50, 8), True, masked=True, num_masks=3),
        _attention_case("shared-T63", (1, 1, 63, 63, 4), True, masked=True, padded=True, num_masks=2),
        _attention_case("shared-narrow", (2, 1, 50, 50, 4), True, narrow=True, num_masks=2),
        _attention_case("shared-cross", (2, 2, 5, 9, 4), False, masked=True, num_masks=1),
        _attention_case("shared-many", (1, 1, 2, 2, 3), True, masked=True, num_masks=27),
        _attention_case("shared-empty_row", (3, 2, 6, 6, 4), True, masked=True, padded=True, empty=True, num_masks=2),
    ],
    "reconstruction_nll": [_nll_case(1, 1, 2, 0.1), _nll_case(7, 9, 30, 0.1), _nll_case(15, 20, 301, 0.0)],
    # the last takes more than one block of samples
    "contrastive_loss": [_contrastive_case(*sizes) for sizes in ((1, 1, 1), (5, 3, 2), (6, 1, 1), (260, 7, 2))],
    "residual_norm": [
        _residual_case("plain-D8", (2, 5, 8)),
        _residual_case("plain-D300", (2, 3, 300)),
        _residual_case("dropout-D8", (3, 5, 8), 0.3),
        _residual_case("dropout-D7", (3, 5, 7), 0.5),
        _residual_case("dropout-D64", (2, 9, 64), 0.1),
        _residual_case("dropout-D256", (3, 4, 256), 0.1),
        _residual_case("first_row-D64", (5, 1, 64), 0.1, has_first_row=True),
        _residual_case("first_row-D256", (4, 2, 256), 0.2, has_first_row=True),
        _residual_case("first_row-D300", (2, 2, 300), 0.1, has_first_row=True),
        _residual_case("rate0-D8", (2, 3, 8), 0.0, has_first_row=True),
    ],
    "mask_reward": [_reward_case(*sizes) for sizes in ((7, 50, 0.25), (1, 3, 0.5), (5, 200, 0.25))]
    + [_reward_case(*sizes, is_padded=True) for sizes in ((3, 32, 0.5), (28, 63, 0.25))],
}


SIZES = FeatureSizes(frame_dim=6, word_dim=5, vocab_size=23, num_segments=16)
# as small as a model can be and still have two heads
SHRINK: dict[str, Any] = {
    "encoder.hidden_dim": 8,
    "encoder.num_heads": 2,
    "generator.num_layers": 1,
    "reconstructor.num_layers": 1,
}


# what a choice of the config needs to be accepted
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("proposals.negatives.kind", "complement"): {"proposals.layout": "uniform"},
    ("reconstructor.word_cls", "none"): {"proposals.layout": "uniform"},
    ("reconstructor.word_tokens", "reused"): {"proposals.layout": "uniform", "reconstructor.word_cls": "none"},
}


def small_config(preset: str = "tiny", **changes: Any) -> PPSConfig:
    """Returns a preset with the smallest transformers; `losses__pull=0` overrides losses.pull."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return override(PRESETS[preset], SHRINK | dotted)


def random_batch(
    lengths: Sequence[int] = (4, 7, 1, 5),
    num_columns: int = 9,
    sizes: FeatureSizes = SIZES,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Batch:
    """Returns a batch with sentences of these lengths; sample b is a function of seed and b alone."""
    rows = [_random_sample(np.random.default_rng((seed, b)), n, num_columns, sizes) for b, n in enumerate(lengths)]
    stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    return Batch(sample_index=torch.arange(len(lengths)), **stacked).to(dtype=dtype)


def _random_sample(rng: np.random.Generator, length: int, num_columns: int, sizes: FeatureSizes) -> Arrays:
    is_word = np.arange(num_columns) < length
    weight = np.where(rng.random(num_columns) < 0.5, np.e, 1.0) * is_word
    return {
        "frames": rng.normal(size=(sizes.num_segments, sizes.frame_dim)),
        "num_frames": np.int64(sizes.num_segments),
        "words": rng.normal(size=(num_columns, sizes.word_dim)) * is_word[:, None],
        "word_ids": rng.integers(1, sizes.vocab_size, num_columns) * is_word,
        "num_words": np.int64(length),
        "hide_prob": weight / weight.sum(),
        "word_noise": rng.gumbel(size=num_columns),
        "dropout_key": rng.integers(-(2**31), 2**31, dtype=np.int32),
        "progress": 0.4,
        "part": np.int64(length % 4),
    }


def take(batch: Batch, samples: Sequence[int]) -> Batch:
    """Returns the batch of these samples, in this order."""
    return Batch(**{name: value[list(samples)] for name, value in batch.tensors().items()})


def pad_columns(batch: Batch, extra: int) -> Batch:
    """Returns the batch with more empty word columns."""
    wider = {name: nn.functional.pad(getattr(batch, name), (0, extra)) for name in ("word_ids", "hide_prob")}
    words = nn.functional.pad(batch.words, (0, 0, 0, extra))
    noise = nn.functional.pad(batch.word_noise, (0, extra), value=50.0)
    return replace(batch, words=words, word_noise=noise, **wider)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Redraws every parameter, and an alignment, so that none has its initial special value; returns the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
            parameter.copy_(noise + 1 if "norm.weight" in name else noise)
        for buffer in [buffer for name, buffer in module.named_buffers() if name.startswith("alignment.")]:
            buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
    return module
