"""What the attention kernels share with the equation, and how they are cut into blocks.

That they compile for every architecture is tested with all kernels in test_aot.py, what they compute in
tests/ops.
"""

from __future__ import annotations

import pytest

from pps_fast import equations
from pps_fast.kernels import masked_attention as kernel
from pps_fast.kernels import tiles


def test_constants_are_those_of_the_equation() -> None:
    assert tiles.HIDDEN_SCORE.value == equations.HIDDEN_SCORE


@pytest.mark.parametrize("element_bytes", [2, 4])
@pytest.mark.parametrize("head_dim", [1, 16, 17, 64, 65, 128])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (50, 50), (20, 200), (65, 3), (512, 512)])
def test_blocks_are_powers_of_two_that_a_tensor_core_takes(
    queries: int, keys: int, head_dim: int, element_bytes: int
) -> None:
    tile = kernel.blocks(queries, keys, head_dim, element_bytes)
    sides = [tile["BLOCK_Q"], tile["BLOCK_T"], tile["BLOCK_D"]]
    assert all(side >= 16 and side & (side - 1) == 0 for side in sides)
    assert tile["BLOCK_D"] >= head_dim
    # half of a 99 KB shared memory for the tiles of query, key, value and gradient
    assert 4 * max(sides[:2]) * sides[2] * element_bytes <= 49 << 10


def test_frames_of_the_reconstructor_are_one_tile_in_half_precision() -> None:
    assert kernel.is_one_tile(50, 50, kernel.blocks(50, 50, 64, 2))
    assert not kernel.is_one_tile(65, 20, kernel.blocks(65, 20, 64, 2))
    assert not kernel.is_one_tile(20, 65, kernel.blocks(20, 65, 64, 2))


def test_products_are_exact_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # the interpreter has no tensor cores
    monkeypatch.setattr(tiles, "is_interpreted", lambda: True)
    assert tiles.dot_mode(tf32=True) == tiles.dot_mode(tf32=False) == "upcast"
    monkeypatch.setattr(tiles, "is_interpreted", lambda: False)
    assert (tiles.dot_mode(tf32=False), tiles.dot_mode(tf32=True)) == ("ieee", "tf32")
