"""What the records do besides holding tensors."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pps_fast.types import Batch, LossReport, MaskSet, join_masks


def _batch() -> Batch:
    return Batch(
        frames=torch.rand(2, 3, 4),
        num_frames=torch.tensor([3, 2]),
        words=torch.rand(2, 5, 6),
        word_ids=torch.tensor([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]]),
        num_words=torch.tensor([3, 1]),
        hide_prob=torch.rand(2, 5),
        word_noise=torch.rand(2, 5),
        dropout_key=torch.tensor([-5, 2**31 - 1], dtype=torch.int32),
        sample_index=torch.tensor([7, 9]),
        progress=torch.tensor([0.5, 0.5]),
        sentence=torch.rand(2, 3),
        part=torch.tensor([0, 4]),
        total_words=6,
    )


def test_a_batch_converts_its_floating_fields_only() -> None:
    batch = _batch()
    moved = batch.to(dtype=torch.float64)
    assert moved.total_words == batch.total_words
    for name, before in batch.tensors().items():
        after = moved.tensors()[name]
        expected = torch.float64 if before.is_floating_point() else before.dtype
        assert after.dtype == expected, name
        assert torch.equal(after, before.to(expected)), name


def test_a_batch_moves_every_field() -> None:
    moved = _batch().to("meta").tensors()
    assert {field.name for field in dataclasses.fields(Batch)} == {*moved, "total_words"}
    assert {value.device.type for value in moved.values()} == {"meta"}


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


def _masks(number: int, has_key: bool = True, seed: int = 0) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    dropout_key = torch.randint(-(2**31), 2**31, (2, number), generator=generator).to(torch.int32) if has_key else None
    return MaskSet(log_masks=-torch.rand(2, number, 3, generator=generator), dropout_key=dropout_key)


def test_masks_are_taken_with_their_keys() -> None:
    masks, index = _masks(4), torch.tensor([[3, 0, 0], [1, 2, 3]])
    taken = masks.take(index)
    for sample in range(2):
        for mask in range(3):
            assert torch.equal(taken.log_masks[sample, mask], masks.log_masks[sample, index[sample, mask]])
            assert taken.dropout_key[sample, mask] == masks.dropout_key[sample, index[sample, mask]]
    assert taken.dropout_key.dtype == torch.int32
    assert _masks(4, has_key=False).take(index).dropout_key is None


@pytest.mark.parametrize("has_key", [True, False])
def test_masks_are_split_where_they_were_joined(has_key: bool) -> None:
    parts = [_masks(number, has_key, seed=number) for number in (3, 1, 2)]
    joined = join_masks(parts)
    assert joined.log_masks.shape == (2, 6, 3)
    assert (joined.dropout_key is not None) == has_key
    for got, part in zip(joined.split((3, 1, 2)), parts, strict=True):
        assert torch.equal(got.log_masks, part.log_masks)
        assert torch.equal(got.dropout_key, part.dropout_key) if has_key else got.dropout_key is None


def test_a_gradient_reaches_the_masks_that_were_taken() -> None:
    log_masks = torch.rand(1, 3, 2, requires_grad=True)
    MaskSet(log_masks=log_masks).take(torch.tensor([[2, 0]])).log_masks.sum().backward()
    assert log_masks.grad.tolist() == [[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]]


def test_masks_with_and_without_dropout_keys_are_not_joined() -> None:
    bare = MaskSet(log_masks=torch.zeros(2, 1, 4))
    keyed = MaskSet(log_masks=torch.zeros(2, 1, 4), dropout_key=torch.zeros(2, 1, dtype=torch.int32))
    with pytest.raises(ValueError, match="1 of 2 parts have dropout keys: expected all or none"):
        join_masks((bare, keyed))
