"""Variants of the attention kernels that are shipped, for `aot.py`: the reconstructor's and the generator's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import masked_attention
from tests.kernels.variant import Variant

_RESULTS = {
    "fwd": ("p_out", "p_lse"),
    "bwd_tile": ("p_grad", "p_lse", "p_grad_q", "p_grad_k", "p_grad_v", "p_grad_bias", "p_part"),
    "bwd_q": ("p_grad", "p_lse", "p_out", "p_delta", "p_grad_q", "p_part"),
    "bwd_kv": ("p_grad", "p_lse", "p_delta", "p_grad_k", "p_grad_v", "p_grad_bias"),
}
_FP32 = ("p_bias", "p_lse", "p_delta", "p_grad_bias", "p_part")
_HEADS = 4
# name, queries, keys, head dimension, causal, has a bias, has padding, dtype; tf32 is fp32 on tensor cores.
# Sentences of `ragged` ones lie one behind another, 256 rows in all
_SHAPES = (
    ("frames", 50, 50, 64, True, True, True, "bf16"),
    ("frames", 50, 50, 64, True, True, True, "fp32"),
    ("frames", 50, 50, 64, True, True, True, "tf32"),
    ("one_row", 1, 50, 64, False, True, True, "bf16"),
    ("words", 14, 50, 64, False, True, True, "bf16"),
    ("ragged_words", 14, 50, 64, False, True, True, "bf16"),
    ("ragged_words", 14, 50, 64, False, True, True, "fp32"),
    ("ragged_itself", 14, 14, 64, True, False, True, "bf16"),
    ("ragged_itself", 14, 14, 64, True, False, True, "fp32"),
    ("ragged_long", 70, 70, 64, True, False, True, "bf16"),
    ("long_words", 20, 50, 64, False, True, True, "bf16"),
    ("long_words", 20, 50, 64, False, True, True, "tf32"),
    ("generator", 201, 201, 64, True, False, True, "bf16"),
    ("generator", 201, 201, 64, True, False, True, "tf32"),
    ("wide", 100, 100, 128, True, True, True, "tf32"),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for shape in _SHAPES:
        tile = masked_attention.blocks(*shape[1:4], element_bytes=2 if shape[-1] == "bf16" else 4)
        is_tile = masked_attention.is_one_tile(*shape[1:3], tile)
        for part in ("fwd", "bwd_tile") if is_tile else ("fwd", "bwd_q", "bwd_kv"):
            yield _variant(part, shape, dict(tile))


def _variant(part: str, shape: tuple[Any, ...], tile: dict[str, int]) -> Variant:
    name, queries, keys, head_dim, causal, has_bias, has_padding, dtype = shape
    stored = "*bf16" if dtype == "bf16" else "*fp32"
    pointers = ("p_q", "p_k", "p_v", *_RESULTS[part])
    signature: dict[str, str | int] = {name: "*fp32" if name in _FP32 else stored for name in pointers}
    # 27 masks of a sample have the same keys valid
    signature |= {"Q": queries, "T": keys, "num_alike": 27, "num_masks": 27}
    constants = {"SCALE": head_dim**-0.5, "CAUSAL": causal, "H": _HEADS, "D": head_dim}
    is_ragged = name.startswith("ragged")
    starts = (("p_start_q", "*i32", is_ragged), ("p_start_t", "*i32", is_ragged and causal))
    for pointer, kind, is_present in (("p_bias", "*fp32", has_bias), ("p_valid", "*i1", has_padding), *starts):
        signature |= {pointer: kind} if is_present else {}
        constants |= {} if is_present else {pointer: None}
    # rows of a packed projection to query, key and value
    row = 3 * _HEADS * head_dim
    of_queries = 256 if is_ragged else queries
    of_keys = of_queries if causal else keys
    signature["num_rows"] = of_queries
    for letter, length in (("q", of_queries), ("k", of_keys), ("v", of_keys)):
        signature |= {f"s_{letter}g": length * row, f"s_{letter}h": head_dim, f"s_{letter}n": row}
    signature |= {"s_dqg": of_queries * row, "s_dqn": row} if "p_grad_q" in pointers else {}
    signature |= {"s_dkg": of_keys * row, "s_dkn": row} if "p_grad_k" in pointers else {}
    # of the sub-layers behind this one
    signature |= {"adds": 1} if "p_grad_k" in pointers else {}
    if part != "bwd_tile":
        numbers = {"NUM_Q": -(-queries // tile["BLOCK_Q"]), "NUM_T": -(-keys // tile["BLOCK_T"])}
        constants |= numbers
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    constants |= tile | {"DOT": "tf32" if dtype == "tf32" else "ieee"}
    kernel = getattr(masked_attention, f"masked_attention_{part}_kernel")
    return Variant(f"{name}_{dtype}", kernel, signature, constants, warps, stages)
