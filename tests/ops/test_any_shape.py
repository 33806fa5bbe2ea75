"""Kernels on shapes that nobody chose: every op whose own test file has no such test, with all gradients.

Sizes are small, since an interpreted program takes 10 ms; hypothesis finds the odd ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pps_fast import equations
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.dispatch import Op
from pps_fast.ops.gaussian_mask import gaussian_exponent, gaussian_mask, gaussian_peak_mask, laplace_mask
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.mixture_exponent import mixture_exponent
from pps_fast.ops.pull_push import push
from tests.support.cases import to_arrays, to_tensors
from tests.support.op_check import equation_of, values_and_gradients
from tests.support.tolerances import CAP

PROPERTY = settings(max_examples=40, derandomize=True, deadline=None)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
SEEDS = st.integers(0, 2**16)


def _check(op: Op, row: str, arrays: dict[str, Any], wrt: tuple[str, ...], dtype: torch.dtype) -> None:
    """The kernel within the op's cap of the float64 equation.

    Not within twice the error of the equation in the same dtype, as elsewhere: of two or three numbers it may be exact
    by chance. What vanishes, such as the gradient of a component that is alone, may be off by rounding.
    """
    inputs = to_tensors(arrays, dtype, wrt)
    got = values_and_gradients(partial(op, backend="triton"), inputs, wrt)
    exact = values_and_gradients(equation_of(op), to_tensors(to_arrays(inputs), torch.float64, wrt), wrt)
    for name, oracle in exact.items():
        error = torch.linalg.vector_norm(got[name].double() - oracle).item()
        rounding = 8 * torch.finfo(got[name].dtype).eps * oracle.numel() ** 0.5
        allowed = CAP[row][got[name].dtype] * torch.linalg.vector_norm(oracle).item() + rounding
        assert error <= allowed, f"{name} {list(oracle.shape)}: {error:.2e} > {allowed:.2e}"


@pytest.mark.parametrize(
    "op", [gaussian_mask, gaussian_peak_mask, laplace_mask, gaussian_exponent], ids=lambda op: op.name
)
@PROPERTY
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9)),
    num_positions=st.integers(2, 70),
    sigma=st.floats(1, 12),
    dtype=DTYPES,
    seed=SEEDS,
)
def test_masks(op: Op, shape: tuple, num_positions: int, sigma: float, dtype: torch.dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants = {"sigma": sigma, "num_positions": num_positions}
    # as wide as the distance of two positions at least: a mask between them is as small as rounding
    width = rng.uniform(min(0.9, sigma / num_positions), 1, shape)
    inputs = {"center": rng.uniform(0.05, 0.95, shape), "width": width, **constants}
    _check(op, "gaussian_mask", inputs, ("center", "width"), dtype)


@st.composite
def _groups(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Groups of 1 to 12 components in any order, each with a component at least."""
    count = draw(st.integers(1, 4))
    more = draw(st.lists(st.integers(0, count - 1), max_size=8))
    return np.array(draw(st.permutations([*range(count), *more]))), count


@pytest.mark.parametrize("op", [importance, mixture, peak_mixture, mixture_exponent], ids=lambda op: op.name)
@PROPERTY
@given(groups=_groups(), num_samples=st.integers(1, 3), num_positions=st.integers(1, 40), dtype=DTYPES, seed=SEEDS)
def test_pooling(op: Op, groups: tuple, num_samples: int, num_positions: int, dtype: torch.dtype, seed: int) -> None:
    (group, count), rng = groups, np.random.default_rng(seed)
    masks = rng.uniform(0.05, 1, (num_samples, len(group), num_positions))
    score = rng.normal(0, 2, masks.shape[:2])
    shares = np.exp(score)
    for k in range(count):
        shares[:, group == k] /= shares[:, group == k].sum(1, keepdims=True)
    pooled = {
        "importance": {"score": score},
        "mixture": {"masks": masks, "log_masks": np.log(masks + 1e-10), "importance": shares},
        "peak_mixture": {"masks": masks},
        "mixture_exponent": {"exponents": np.log(masks), "importance": shares},
    }[op.name]
    _check(op, "attentive_pooling", {**pooled, "group": group, "num_groups": count}, tuple(pooled), dtype)


@PROPERTY
# a normalized row of one position is 1 whatever it was: its gradient is nothing but rounding
@given(groups=_groups(), num_positions=st.integers(2, 70), normalize=st.booleans(), dtype=DTYPES, seed=SEEDS)
def test_push(groups: tuple, num_positions: int, normalize: bool, dtype: torch.dtype, seed: int) -> None:
    group, _ = groups
    masks = np.random.default_rng(seed).uniform(0.05, 1, (2, len(group), num_positions))
    inputs = {"masks": masks, "group": group, "target": 0.15, "normalize": normalize}
    _check(push, "pull_push", inputs, ("masks",), dtype)


@PROPERTY
@given(
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 36), st.integers(1, 36), st.integers(1, 20)),
    causal=st.booleans(),
    is_masked=st.booleans(),
    is_padded=st.booleans(),
    dtype=DTYPES,
    seed=SEEDS,
)
def test_attention(sizes: tuple, causal: bool, is_masked: bool, is_padded: bool, dtype: torch.dtype, seed: int) -> None:
    (num, heads, queries, keys, width), rng = sizes, np.random.default_rng(seed)
    keys = queries if causal else keys
    inputs: dict[str, Any] = {
        "query": rng.normal(size=(num, heads, queries, width)),
        "key": rng.normal(size=(num, heads, keys, width)),
        "value": rng.normal(size=(num, heads, keys, width)),
        "causal": causal,
    }
    wrt: tuple[str, ...] = ("query", "key", "value")
    if is_masked:
        inputs["key_bias"], wrt = np.log(rng.uniform(0, 1, (num, keys)) ** 4 + 1e-10), (*wrt, "key_bias")
    if is_padded:
        inputs["key_valid"] = np.arange(keys) < rng.integers(1, keys + 1, (num, 1))
    _check(masked_attention, "masked_attention", inputs, wrt, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_kernel_that_is_one_percent_off_is_found(dtype: torch.dtype) -> None:
    wrong = Op("push", torch=equations.push, triton=lambda **inputs: equations.push(**inputs) * 1.01)
    masks = np.random.default_rng(0).uniform(0.05, 1, (2, 3, 5))
    with pytest.raises(AssertionError, match="value"):
        _check(wrong, "pull_push", {"masks": masks, "group": np.zeros(3, np.int64), "target": 0.15}, ("masks",), dtype)
