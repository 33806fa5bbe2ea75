"""Variants of the shared attention's kernels that are shipped, for `aot.py`: the reconstructor's frames, the limits."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import shared_attention
from tests.kernels.variant import Variant

_RESULTS = {
    "fwd": ("p_out", "p_lse"),
    "bwd": ("p_grad", "p_lse", "p_grad_q", "p_grad_k", "p_grad_v", "p_grad_bias"),
}
_FP32 = ("p_bias", "p_lse", "p_grad_q", "p_grad_k", "p_grad_v", "p_grad_bias")
_HEADS = 4
# label, masks, positions, head dimension, dtype, how it is multiplied
_SHAPES = (
    ("importance_bf16", 27, 50, 64, "bf16", "ieee"),
    ("importance_fp32", 27, 50, 64, "fp32", "ieee"),
    ("importance_tf32", 27, 50, 64, "fp32", "tf32"),
    ("short_bf16", 3, 20, 64, "bf16", "ieee"),
    ("wide_bf16", 3, 64, 128, "bf16", "ieee"),
    ("wide_fp32", 3, 64, 128, "fp32", "ieee"),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for shape in _SHAPES:
        for part in _RESULTS:
            yield _variant(part, *shape)
        yield _total(*shape)


def _variant(part: str, label: str, masks: int, positions: int, head_dim: int, dtype: str, dot: str) -> Variant:
    element_bytes, is_backward = (4 if dtype == "fp32" else 2), part == "bwd"
    tile = shared_attention.blocks(positions, positions, head_dim, element_bytes)
    _, size = shared_attention.chunks(masks, is_backward)
    pointers = ("p_q", "p_k", "p_v", *_RESULTS[part])
    signature: dict[str, str | int] = {name: "*fp32" if name in _FP32 else f"*{dtype}" for name in pointers}
    signature |= {"p_bias": "*fp32", "p_valid": "*i1", "N": masks, "chunk": size}
    constants = {"SCALE": head_dim**-0.5, "CAUSAL": True, "H": _HEADS, "Q": positions, "T": positions, "D": head_dim}
    # rows of a packed projection to query, key and value
    row = 3 * _HEADS * head_dim
    for letter in "qkv":
        constants |= {f"s_{letter}g": positions * row, f"s_{letter}h": head_dim, f"s_{letter}n": row}
    constants |= {"MOST": shared_attention._BWD_MASKS} if is_backward else {}
    options = shared_attention.warps(tile, element_bytes, dot, is_backward)
    constants |= {"DOT": dot, **tile}
    kernel = getattr(shared_attention, f"shared_attention_{part}_kernel")
    return Variant(label, kernel, signature, constants, options["num_warps"], options["num_stages"])


def _total(label: str, masks: int, positions: int, head_dim: int, dtype: str, dot: str) -> Variant:
    tile = shared_attention.blocks(positions, positions, head_dim, 4 if dtype == "fp32" else 2)
    number, width = shared_attention.chunks(masks, is_backward=True)[0], _HEADS * head_dim
    signature: dict[str, str | int] = {f"p_grad_{letter}": f"*{dtype}" for letter in "qkv"}
    signature |= {f"p_parts_{letter}": "*fp32" for letter in "qkv"}
    signature |= {"p_sum": "*fp32", "Q": positions, "T": positions}
    signature |= {"number_q": number, "number_k": number * -(-positions // tile["BLOCK_Q"])}
    for letter in "qk":
        signature |= {f"s_{letter}g": positions * 3 * width, f"s_{letter}n": 3 * width}
    constants = {
        "C": width,
        "BLOCK_R": max(tile["BLOCK_T"], shared_attention._TOTAL_R),
        "BLOCK_C": shared_attention._TOTAL_C,
    }
    kernel = shared_attention.shared_attention_bwd_total_kernel
    return Variant(label, kernel, signature, constants, shared_attention._TOTAL_WARPS)
