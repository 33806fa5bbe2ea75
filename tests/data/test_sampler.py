"""Batches of an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from pps_fast.data.sampler import epoch_batches

SAMPLES = np.arange(100, 203)


def test_every_sample_is_in_exactly_one_batch_and_the_last_is_smaller():
    batches = epoch_batches(SAMPLES, 32, seed=8, epoch=0)
    assert [len(batch) for batch in batches] == [32, 32, 32, 7]
    assert all(batch.dtype == np.int64 for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), SAMPLES)


def test_order_is_a_function_of_seed_and_epoch():
    order = np.concatenate(epoch_batches(SAMPLES, 32, seed=8, epoch=3))
    np.testing.assert_array_equal(order, np.concatenate(epoch_batches(SAMPLES, 10, seed=8, epoch=3)))
    np.testing.assert_array_equal(order, np.concatenate(epoch_batches(SAMPLES[::-1], 32, seed=8, epoch=3)))
    for seed, epoch in ((8, 4), (9, 3), (3, 8)):
        other = np.concatenate(epoch_batches(SAMPLES, 32, seed=seed, epoch=epoch))
        assert (order == other).mean() < 0.1


def test_each_place_is_equally_likely():
    orders = np.stack([np.concatenate(epoch_batches(np.arange(5), 5, seed=0, epoch=epoch)) for epoch in range(4000)])
    shares = np.stack([(orders == sample).mean(axis=0) for sample in range(5)])
    # 0.028 is 4.5 standard errors
    np.testing.assert_allclose(shares, 0.2, atol=0.028)


def test_no_samples_give_no_batches():
    assert epoch_batches(np.array([], dtype=np.int64), 4, seed=0, epoch=0) == []


def test_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size = 0: expected at least 1"):
        epoch_batches(SAMPLES, 0, seed=0, epoch=0)
