"""The attention kernels as they are shipped, for aot.py: the reconstructor's frames and words, and the generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_RESULTS = {
    "fwd": ("p_out", "p_lse"),
    "bwd_tile": ("p_grad", "p_lse", "p_grad_q", "p_grad_k", "p_grad_v", "p_grad_mask"),
    "bwd_query": ("p_grad", "p_lse", "p_out", "p_delta", "p_grad_q"),
    "bwd_key": ("p_grad", "p_lse", "p_delta", "p_grad_k", "p_grad_v", "p_grad_mask"),
}
_FP32 = ("p_mask", "p_lse", "p_delta", "p_grad_mask")
_HEADS = 4
# name, queries, keys, head dimension, causal, has a mask, has padding, dtype
_SHAPES = (
    ("frames", 50, 50, 64, True, True, True, "bf16"),
    ("frames", 50, 50, 64, True, True, True, "fp32"),
    ("words", 20, 50, 64, False, True, False, "bf16"),
    ("generator", 201, 201, 64, True, False, True, "bf16"),
)


def variants() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], int, int]]:
    """Yields name, kernel, signature, constants, warps and stages."""
    from pps_fast.kernels import masked_attention

    for shape in _SHAPES:
        tile = masked_attention.blocks(*shape[1:4], element_bytes=4 if shape[-1] == "fp32" else 2)
        is_tile = masked_attention.is_one_tile(*shape[1:3], tile)
        for part in ("fwd", "bwd_tile") if is_tile else ("fwd", "bwd_query", "bwd_key"):
            kernel = getattr(masked_attention, f"_{part}_kernel")
            yield f"masked_attention_{part}_{shape[0]}_{shape[-1]}", kernel, *_arguments(part, shape, dict(tile))


def _arguments(
    part: str, shape: tuple[Any, ...], tile: dict[str, int]
) -> tuple[dict[str, str], dict[str, Any], int, int]:
    queries, keys, head_dim, causal, has_mask, has_padding, dtype = shape[1:]
    signature = {name: "*fp32" if name in _FP32 else f"*{dtype}" for name in ("p_q", "p_k", "p_v", *_RESULTS[part])}
    constants = {"SCALE": head_dim**-0.5, "CAUSAL": causal, "H": _HEADS, "Q": queries, "T": keys, "D": head_dim}
    for name, kind, is_given in (("p_mask", "*fp32", has_mask), ("p_valid", "*i1", has_padding)):
        signature |= {name: kind} if is_given else {}
        constants |= {} if is_given else {name: None}
    # rows of a packed projection to query, key and value
    row = 3 * _HEADS * head_dim
    for letter, length in (("q", queries), ("k", keys), ("v", keys)):
        constants |= {f"s_{letter}g": length * row, f"s_{letter}h": head_dim, f"s_{letter}n": row}
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    return signature, constants | tile | {"UPCAST": False}, warps, stages
