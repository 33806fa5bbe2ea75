"""What checks the checks: helpers that compare must fail on what they exist to catch, and say by how much."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.compare import assert_agree, assert_close
from tests.support.slow import SLOW
from tests.support.tolerances import CAP

ROOT = Path(__file__).resolve().parents[1]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _triple(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    oracle = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    return oracle.to(dtype), oracle


@pytest.mark.parametrize("dtype", DTYPES)
def test_close_accepts_the_rounded_oracle_and_returns_nothing(dtype: torch.dtype) -> None:
    rounded, oracle = _triple(dtype)
    assert assert_close("gaussian_mask", rounded, rounded, oracle) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_close_refuses_one_percent(dtype: torch.dtype) -> None:
    rounded, oracle = _triple(dtype)
    with pytest.raises(AssertionError, match=r"error \S+e-0[23] > allowed"):
        assert_close("gaussian_mask", rounded * 1.01, rounded, oracle)


def test_close_refuses_five_percent_in_bfloat16() -> None:
    rounded, oracle = _triple(torch.bfloat16)
    with pytest.raises(AssertionError, match=r"error \S+e-02 > allowed"):
        assert_close("gaussian_mask", rounded * 1.05, rounded, oracle)


def test_close_caps_the_error_even_beside_a_bad_reference() -> None:
    rounded, oracle = _triple()
    with pytest.raises(AssertionError, match=r"> allowed 1\.000e-05"):
        assert_close("gaussian_mask", rounded * 1.01, rounded * 1.3, oracle)


def test_close_refuses_one_wrong_element() -> None:
    rounded, oracle = _triple()
    got = rounded.clone()
    got[1, 2, 3] += 0.01
    with pytest.raises(AssertionError, match="gaussian_mask"):
        assert_close("gaussian_mask", got, rounded, oracle)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_close_refuses_nan_and_infinity_even_where_all_three_have_it(value: float) -> None:
    rounded, oracle = _triple()
    rounded[0, 0, 0] = value
    oracle[0, 0, 0] = value
    with pytest.raises(AssertionError, match="1 NaN or infinite of 60"):
        assert_close("gaussian_mask", rounded, rounded, oracle)


def test_close_refuses_shapes_that_would_broadcast() -> None:
    rounded, oracle = _triple()
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close("gaussian_mask", rounded[:1], rounded, oracle)


def test_close_refuses_an_empty_comparison() -> None:
    rounded, oracle = _triple()
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_close("gaussian_mask", rounded[:0], rounded[:0], oracle[:0])


def test_close_refuses_another_dtype_than_the_reference() -> None:
    rounded, oracle = _triple()
    with pytest.raises(AssertionError, match="got is torch.float64, reference torch.float32"):
        assert_close("gaussian_mask", oracle, rounded, oracle)


def test_close_refuses_a_float32_oracle() -> None:
    rounded, _ = _triple()
    with pytest.raises(AssertionError, match="the oracle is torch.float32"):
        assert_close("gaussian_mask", rounded, rounded, rounded)


def test_close_refuses_an_op_without_a_cap() -> None:
    rounded, oracle = _triple()
    with pytest.raises(AssertionError, match="no cap for torch.float32"):
        assert_close("no_such_op", rounded, rounded, oracle)


def test_close_measures_absolutely_where_the_oracle_is_zero() -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    assert_close("gaussian_mask", zero.float(), zero.float(), zero)
    with pytest.raises(AssertionError, match="error 2.000e-03"):
        assert_close("gaussian_mask", zero.float() + 1e-3, zero.float(), zero)


def test_every_cap_fails_a_perturbation_of_five_percent() -> None:
    for op, row in CAP.items():
        assert row.keys() == set(DTYPES), op
        assert all(0 < cap < 0.05 for cap in row.values()), op


def test_agree_is_exact_by_default_and_returns_nothing() -> None:
    _, oracle = _triple()
    assert assert_agree("x", oracle, oracle.numpy()) is None
    with pytest.raises(AssertionError, match="x .*largest error"):
        assert_agree("x", oracle * (1 + 1e-15), oracle.numpy())


def test_agree_refuses_one_percent_and_names_the_place() -> None:
    got = torch.tensor([[1.0, 2.0], [3.0, 4.04]], dtype=torch.float64)
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(AssertionError, match=r"4\.000e-02 > allowed 4\.000e-09 at \[1, 1\]"):
        assert_agree("x", got, expected, rtol=1e-9)
    assert_agree("x", got, expected, atol=0.05)


def test_agree_scales_with_the_largest_expected_value() -> None:
    expected = np.array([1e-6, 100.0])
    assert_agree("x", np.array([1.1e-6, 100.0]), expected, rtol=1e-8)
    with pytest.raises(AssertionError, match="largest error"):
        assert_agree("x", np.array([1e-5, 100.0]), expected, rtol=1e-8)


@pytest.mark.parametrize("side", ["got", "expected"])
def test_agree_refuses_nan_on_either_side(side: str) -> None:
    arrays = {"got": np.zeros(3), "expected": np.zeros(3)}
    arrays[side][1] = np.nan
    with pytest.raises(AssertionError, match=f"{side} has 1 NaN"):
        assert_agree("x", **arrays, atol=1.0)


def test_agree_refuses_wrong_shapes_and_empty_ones() -> None:
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_agree("x", np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_agree("x", np.zeros((0, 3)), np.zeros((0, 3)))


def test_agree_refuses_integers_for_floats_and_compares_integers_exactly() -> None:
    with pytest.raises(AssertionError, match="got is torch.int64, expected torch.float64"):
        assert_agree("x", np.array([1, 2]), np.array([1.0, 2.0]))
    assert_agree("x", np.array([1, 2], dtype=np.int32), np.array([1, 2]))
    with pytest.raises(AssertionError, match="1 of 2 elements differ, the first at flat index 1"):
        assert_agree("x", np.array([1, 2]), np.array([1, 3]), atol=5.0)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_agree("x", np.array([True]), np.array([False]))


def test_poison_fills_floating_memory_and_leaves_integers(poisoned_empty: None) -> None:
    assert torch.empty(3).isnan().all() and torch.empty_like(torch.zeros(2)).isnan().all()
    assert torch.zeros(2).new_empty(4, dtype=torch.bfloat16).isnan().all()
    assert torch.empty(3, dtype=torch.int64).dtype == torch.int64
    assert not torch.zeros(3).isnan().any()


def test_poison_ends_with_its_test() -> None:
    assert "poisoned" not in torch.empty.__qualname__


@pytest.mark.parametrize("turn", [0, 1])
def test_every_test_starts_from_the_same_seeds(turn: int) -> None:
    assert torch.initial_seed() == 0
    assert torch.rand(1).item() == pytest.approx(0.4962566)
    assert np.random.rand() == pytest.approx(0.5488135)


def test_the_list_of_slow_tests_names_tests_that_exist() -> None:
    for file, names in SLOW.items():
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not [name for name in names if f"def {name}(" not in source], file


@pytest.mark.parametrize(
    ("reason", "status"), [("needs the plot extra", 1), ("needs ../shared/data", 0), ("needs a CUDA device", 0)]
)
def test_an_unexpected_skip_fails_under_strict_skips(reason: str, status: int, tmp_path: Path) -> None:
    """A small suite beside this one's conftest."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_x.py").write_text(f"import pytest\ndef test_x(): pytest.skip({reason!r})\ndef test_y(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-skips", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout
    assert ("were skipped because: needs the plot extra" in done.stdout) == (status == 1)
