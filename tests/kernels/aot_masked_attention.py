"""The attention kernels as they are shipped, for aot.py: the reconstructor's frames and words, and the generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_RESULTS = {
    "fwd": ("p_out", "p_lse"),
    "bwd_tile": ("p_grad", "p_lse", "p_grad_q", "p_grad_k", "p_grad_v", "p_grad_bias"),
    "bwd_query": ("p_grad", "p_lse", "p_out", "p_delta", "p_grad_q"),
    "bwd_key": ("p_grad", "p_lse", "p_delta", "p_grad_k", "p_grad_v", "p_grad_bias"),
}
_FP32 = ("p_bias", "p_lse", "p_delta", "p_grad_bias")
_HEADS = 4
# name, queries, keys, head dimension, causal, has a bias, has padding, dtype; tf32 is fp32 on tensor cores
_SHAPES = (
    ("frames", 50, 50, 64, True, True, True, "bf16"),
    ("frames", 50, 50, 64, True, True, True, "fp32"),
    ("frames", 50, 50, 64, True, True, True, "tf32"),
    ("words", 20, 50, 64, False, True, False, "bf16"),
    ("words", 20, 50, 64, False, True, False, "tf32"),
    ("generator", 201, 201, 64, True, False, True, "bf16"),
    ("generator", 201, 201, 64, True, False, True, "tf32"),
    ("wide", 100, 100, 128, True, True, True, "tf32"),
)


def variants() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], int, int]]:
    """Yields name, kernel, signature, constants, warps and stages."""
    from pps_fast.kernels import masked_attention

    for shape in _SHAPES:
        tile = masked_attention.blocks(*shape[1:4], element_bytes=2 if shape[-1] == "bf16" else 4)
        is_tile = masked_attention.is_one_tile(*shape[1:3], tile)
        for part in ("fwd", "bwd_tile") if is_tile else ("fwd", "bwd_query", "bwd_key"):
            kernel = getattr(masked_attention, f"_{part}_kernel")
            yield f"masked_attention_{part}_{shape[0]}_{shape[-1]}", kernel, *_arguments(part, shape, dict(tile))


def _arguments(
    part: str, shape: tuple[Any, ...], tile: dict[str, int]
) -> tuple[dict[str, str], dict[str, Any], int, int]:
    queries, keys, head_dim, causal, has_bias, has_padding, dtype = shape[1:]
    stored = "*bf16" if dtype == "bf16" else "*fp32"
    signature = {name: "*fp32" if name in _FP32 else stored for name in ("p_q", "p_k", "p_v", *_RESULTS[part])}
    constants = {"SCALE": head_dim**-0.5, "CAUSAL": causal, "H": _HEADS, "Q": queries, "T": keys, "D": head_dim}
    for name, kind, is_given in (("p_bias", "*fp32", has_bias), ("p_valid", "*i1", has_padding)):
        signature |= {name: kind} if is_given else {}
        constants |= {} if is_given else {name: None}
    # rows of a packed projection to query, key and value
    row = 3 * _HEADS * head_dim
    for letter, length in (("q", queries), ("k", keys), ("v", keys)):
        constants |= {f"s_{letter}g": length * row, f"s_{letter}h": head_dim, f"s_{letter}n": row}
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    return signature, constants | tile | {"DOT": "tf32" if dtype == "tf32" else "ieee"}, warps, stages
