"""The curve joins the frames of the generator, and only as the config says."""

from __future__ import annotations

import pytest
import torch

from pps_fast.encoder.curve import CurveEmbedding
from tests.support.cases import randomize, small_config
from tests.support.compare import assert_agree

CURVE = torch.tensor([[1.0, 4.0, 2.0, 2.5, 0.0], [3.0, 3.5, 9.0, -1.0, 2.0]], dtype=torch.float64)
FRAMES = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALID = torch.tensor([True] * 5 + [False]).expand(2, 6)


def _embedding(curve: str) -> CurveEmbedding:
    return randomize(CurveEmbedding(small_config(encoder__curve=curve)).double())


def _rows(embedding: CurveEmbedding, sample: int) -> list[list[float]]:
    """The z-scored curve times the weight, plus bias and position, by loops."""
    curve = CURVE[sample].tolist()
    mean = sum(curve) / 5
    deviation = (sum((s - mean) ** 2 for s in curve) / 5) ** 0.5
    weight, bias = embedding.projection.weight[:, 0], embedding.projection.bias
    angle = [10000 ** (-i / 3) for i in range(4)]
    rows = []
    for t, s in enumerate(curve):
        waves = torch.tensor([t * w for w in angle], dtype=torch.float64)
        position = torch.cat((waves.sin(), waves.cos())) if t else torch.zeros(8)
        rows.append(((s - mean) / deviation * weight + bias + position).tolist())
    return rows


@pytest.mark.parametrize("num_rows", [5, 6])
@pytest.mark.parametrize("curve", ["added", "only"])
def test_the_curve_stands_beside_the_frames_or_in_their_place(curve: str, num_rows: int) -> None:
    embedding, frames = _embedding(curve), FRAMES[:, :num_rows]
    joined = embedding(frames, CURVE, VALID[:, :num_rows])
    rows = torch.tensor([_rows(embedding, 0), _rows(embedding, 1)], dtype=torch.float64)
    expected = rows + frames[:, :5] if curve == "added" else rows
    assert_agree("frames", joined[:, :5], expected, atol=1e-12)
    assert torch.equal(joined[:, 5:], frames[:, 5:]), "v_cls"


def test_scale_and_offset_of_a_curve_mean_nothing() -> None:
    embedding = _embedding("only")
    assert_agree("scaled", embedding(FRAMES, 7 * CURVE - 3, VALID), embedding(FRAMES, CURVE, VALID), atol=1e-12)


def test_padding_is_not_read() -> None:
    embedding, curve = _embedding("only"), CURVE.clone()
    valid = VALID & (torch.arange(6) < 4)
    before = embedding(FRAMES, curve, valid)
    curve[:, 4] = 100.0
    assert torch.equal(embedding(FRAMES, curve, valid), before)


def test_without_it_the_frames_pass_and_there_is_nothing_to_train() -> None:
    embedding = CurveEmbedding(small_config())
    assert embedding(FRAMES, CURVE, VALID) is FRAMES and not list(embedding.parameters())
