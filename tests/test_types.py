"""What the records do besides holding tensors."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pps_fast.types import Batch, LossReport


def _batch() -> Batch:
    return Batch(
        frames=torch.rand(2, 3, 4),
        num_frames=torch.tensor([3, 2]),
        words=torch.rand(2, 5, 6),
        word_ids=torch.tensor([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]]),
        num_words=torch.tensor([3, 1]),
        hide_prob=torch.rand(2, 5),
        word_noise=torch.rand(2, 5),
        sample_index=torch.tensor([7, 9]),
    )


def test_a_batch_converts_its_floating_fields_only() -> None:
    batch = _batch()
    moved = batch.to(dtype=torch.float64)
    for field in dataclasses.fields(Batch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        expected = torch.float64 if before.is_floating_point() else torch.int64
        assert after.dtype == expected, field.name
        assert torch.equal(after, before.to(expected)), field.name


def test_a_batch_moves_every_field() -> None:
    moved = _batch().to("meta")
    assert {getattr(moved, field.name).device.type for field in dataclasses.fields(Batch)} == {"meta"}


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _batch().frames = torch.zeros(1)


def test_a_detached_report_has_the_values_and_no_graph() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    report = LossReport(total=weight * 3, terms={"pull": weight * 1}, sample_total=weight * torch.ones(4))
    cut = report.detach()
    assert not any(value.requires_grad for value in (cut.total, cut.sample_total, *cut.terms.values()))
    assert cut.total.item() == 6.0 and cut.terms["pull"].item() == 2.0 and cut.sample_total.tolist() == [2.0] * 4
    assert report.total.requires_grad
