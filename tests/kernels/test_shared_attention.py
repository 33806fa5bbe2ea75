"""How the masks and rows of the shared attention are cut into programs.

That they compile for every architecture is tested with all kernels in test_aot.py, what they compute in
tests/ops.
"""

from __future__ import annotations

import pytest

from pps_fast.kernels import shared_attention as kernel


@pytest.mark.parametrize("element_bytes", [2, 4])
@pytest.mark.parametrize("head_dim", [1, 16, 17, 64, 65, 128])
@pytest.mark.parametrize("length", [1, 2, 50, 64])
def test_a_block_holds_all_keys_and_its_sides_are_powers_of_two(length: int, head_dim: int, element_bytes: int) -> None:
    tile = kernel.blocks(length, length, head_dim, element_bytes)
    assert all(side >= 16 and side & (side - 1) == 0 for side in tile.values())
    assert tile["BLOCK_T"] >= length and tile["BLOCK_D"] >= head_dim


@pytest.mark.parametrize("is_backward", [False, True])
def test_chunks_hold_every_mask_once_and_about_the_same_number(is_backward: bool) -> None:
    for num_masks in range(1, 100):
        number, size = kernel.chunks(num_masks, is_backward)
        assert (number - 1) * size < num_masks <= number * size
        assert size <= (16 if is_backward else 8)


def test_exact_products_of_64_keys_are_kept_from_the_tensor_cores() -> None:
    tile = kernel.blocks(50, 50, 64, 4)
    # Triton gives them to sm_100's with 4 or 8 warps, where either side of the result has 64 rows
    assert kernel.warps(tile, 4, "ieee", is_backward=True)["num_warps"] == 16
    assert tile["BLOCK_Q"] < 64
