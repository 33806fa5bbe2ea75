"""The frames of one video: what is refused, what is counted, and the resampling to segments."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pps_fast.prepare.readers.frames import (
    BadVideo,
    as_float16,
    checked_frames,
    require_signal,
    resample,
    segment_edges,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "kernels_f64.npz"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \[5\], expected \[frames, width\]"),
        (np.zeros((0, 5)), "no frames"),
        (np.zeros((5, 0)), "no frames"),
        (np.zeros((5, 2, 3)), r"shape \[5, 2, 3\]"),
        (np.array([["a"]]), "expected numbers"),
        (np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]]), "2 NaN or infinite values, the first in frame 1"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(array, message):
    with pytest.raises(BadVideo, match=message):
        checked_frames(array)


def test_axes_of_size_one_between_are_removed_but_not_a_single_frame():
    assert checked_frames(np.zeros((7, 1, 1, 5))).shape == (7, 5)
    assert checked_frames(np.zeros((1, 1, 5))).shape == (1, 5)
    assert checked_frames(np.zeros((7, 1))).shape == (7, 1)


def loop_resample(frames: np.ndarray, num_segments: int) -> np.ndarray:
    """The rule, segment by segment."""
    edges = [min(round(j / num_segments * len(frames)), len(frames) - 1) for j in range(num_segments + 1)]
    rows = []
    for start, end in zip(edges, edges[1:], strict=False):
        inside = [frames[i].astype(np.float64) for i in range(start, end)]
        rows.append(sum(inside) / len(inside) if inside else frames[start].astype(np.float64))
    return np.array(rows)


@pytest.mark.parametrize("num_segments", [1, 8, 200])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 8, 45, 100, 199, 200, 201, 300, 401, 1000])
def test_resampling_equals_the_loop(num_frames, num_segments):
    frames = np.random.default_rng(num_frames).standard_normal((num_frames, 3)).astype(np.float32)
    got = resample(frames, num_segments)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, loop_resample(frames, num_segments), rtol=0, atol=1e-14)


def test_resampling_equals_the_published_code():
    golden = np.load(GOLDEN)
    cases = [name.removesuffix("/x") for name in golden.files if name.startswith("resample/") and name.endswith("/x")]
    assert len(cases) == 6
    for case in cases:
        frames, expected = golden[f"{case}/x"], golden[f"{case}/y"]
        np.testing.assert_array_equal(segment_edges(len(frames), 200), golden[f"{case}/edges"])
        # the published means are float32
        np.testing.assert_allclose(resample(frames, 200), expected, rtol=0, atol=3e-7)


def test_edges_are_within_half_a_frame_of_exact_and_within_the_video():
    for num_frames in range(1, 500):
        edges = segment_edges(num_frames, 200)
        assert edges[0] == 0 and edges[-1] == num_frames - 1 and (np.diff(edges) >= 0).all()
        exact = [Fraction(j * num_frames, 200) for j in range(200)]
        assert all(
            abs(int(edge) - at) <= Fraction(1, 2) or edge == num_frames - 1
            for edge, at in zip(edges, exact, strict=False)
        )


def test_float16_is_refused_beyond_its_range_and_exact_within():
    np.testing.assert_array_equal(as_float16(np.array([[65504.0, -1.5]])), np.array([[65504, -1.5]], dtype=np.float16))
    for value in (65505.0, -1e6):
        with pytest.raises(BadVideo, match="beyond the float16 range of 65504"):
            as_float16(np.array([[0.0, value]]))


def test_values_beyond_float32_are_called_too_large_and_not_nan():
    with pytest.raises(BadVideo, match="has the value inf, beyond the float16 range"):
        as_float16(resample(checked_frames(np.full((2, 2), 1e300)), 4))


@pytest.mark.parametrize("value, message", [(0.0, "has only zeros"), (2.9e-8, "no value above 2.9e-08")])
def test_frames_of_which_float16_keeps_nothing_are_refused(value, message):
    with pytest.raises(BadVideo, match=message):
        require_signal(np.full((3, 2), value, dtype=np.float32))


def test_the_smallest_value_that_is_kept_is_float16s():
    assert require_signal(np.full((3, 2), 3e-8, dtype=np.float32)) == {}
    assert np.float16(2.9e-8) == 0 and np.float16(3e-8) > 0


def test_zeros_at_the_ends_and_vanishing_values_are_counted():
    frames = np.ones((5, 2), dtype=np.float32)
    assert require_signal(frames) == {}
    frames[2] = 0
    assert require_signal(frames) == {}
    frames[-1], frames[0] = 0, 0
    assert require_signal(frames) == {"videos end in frames of zeros": 1, "videos begin with frames of zeros": 1}
    small = np.array([[1.0, 1e-9], [1.0, 1.0]], dtype=np.float32)
    assert require_signal(small) == {"videos have values that become zero in float16": 1}


def test_frames_beyond_the_memory_are_refused_before_they_are_converted(monkeypatch):
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: 1 << 20)
    # no memory behind it
    huge = np.broadcast_to(np.float32(1), (1 << 28, 4))
    with pytest.raises(ValueError, match="shape .268435456, 4., which needs 13.0 GiB of memory, 1.0 MiB are free"):
        checked_frames(huge)
