"""The launch makes the keys of `randomness.mask_keys`."""

from __future__ import annotations

import pytest
import torch

from pps_fast import randomness
from pps_fast.ops.mask_keys import mask_keys
from pps_fast.ops.registration import is_interpreted

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
KEYS = torch.randint(-(1 << 31), 1 << 31, (40,), generator=torch.Generator().manual_seed(9)).int()


@needs_interpreter
@pytest.mark.parametrize("num_masks", [1, 7, 43])
def test_keys_are_the_same(num_masks: int) -> None:
    got = mask_keys(KEYS, num_masks, "triton")
    assert got.dtype == torch.int32
    assert torch.equal(got, mask_keys(KEYS, num_masks, "torch"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_more_masks_than_the_stream_has_counters_are_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "MASK_NUMBERS", range(1, 4))
    assert randomness.mask_keys(KEYS, 3).shape == (40, 3)
    with pytest.raises(ValueError, match="4 masks of a sample: expected at most 3"):
        mask_keys(KEYS, 4, backend)


@needs_interpreter
def test_the_registered_operator_passes_opcheck() -> None:
    torch.library.opcheck(torch.ops.pps_fast.mask_keys.default, (KEYS, 3, 1))
