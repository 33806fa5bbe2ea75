"""Batches out of a data set's memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.config import PlantedConfig
from pps_fast.data.prepared import read_prepared, write_prepared
from pps_fast.data.sampler import epoch_batches
from pps_fast.data.store import COLUMN_STEP, WORD_STEP, Store
from pps_fast.data.synthetic import planted_data
from pps_fast.randomness import dropout_keys, gumbel_noise

DATA = planted_data(PlantedConfig(num_videos=12, num_segments=16, frame_dim=6))
SAMPLES = np.array([5, 71, 0, 30])


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(DATA)


def test_batch_holds_the_samples_own_rows(store):
    batch = store.batch(SAMPLES, seed=4, epoch=2)
    for row, sample in enumerate(SAMPLES):
        frames = torch.from_numpy(DATA.features[DATA.sample_video[sample]].astype(np.float32))
        torch.testing.assert_close(batch.frames[row], frames, rtol=0, atol=0)
        words = torch.from_numpy(DATA.word_vectors[DATA.word_ids[sample]])
        torch.testing.assert_close(batch.words[row], words, rtol=0, atol=0)
    np.testing.assert_array_equal(batch.word_ids.numpy(), DATA.word_ids[SAMPLES])
    np.testing.assert_array_equal(batch.num_words.numpy(), DATA.num_words[SAMPLES])
    np.testing.assert_array_equal(batch.hide_prob.numpy(), DATA.hide_prob[SAMPLES])
    np.testing.assert_array_equal(batch.word_noise.numpy(), gumbel_noise(4, 2, SAMPLES, DATA.word_ids.shape[1]))
    np.testing.assert_array_equal(batch.dropout_key.numpy(), dropout_keys(4, 2, SAMPLES))
    np.testing.assert_array_equal(batch.sample_index.numpy(), SAMPLES)
    assert batch.num_frames.tolist() == [16] * 4
    assert batch.progress.tolist() == [0.0] * 4


def test_words_of_a_batch_are_counted_in_few_sizes_and_never_too_low() -> None:
    store, every = Store(DATA), np.arange(DATA.num_samples)
    for samples in (SAMPLES, every, every[:1]):
        total = store.total_words(samples)
        assert total % WORD_STEP == 0 and 0 <= total - DATA.num_words[samples].sum() < WORD_STEP
    index, columns = torch.from_numpy(SAMPLES), int(store.num_columns(SAMPLES).max())
    store.begin_pass(4, 2)
    assert store.gather(index, columns).total_words is None
    assert store.gather(index, columns, 9).total_words == 9
    # no batch has more words than columns
    assert store.gather(index, columns, 1000).total_words == 4 * columns


def test_progress_is_that_of_the_pass_and_of_no_batch_handed_out_before() -> None:
    store, index = Store(DATA), torch.from_numpy(SAMPLES)
    store.begin_pass(4, 2, progress=0.25)
    quarter = store.gather(index, 10)
    # the same noise at another time
    store.begin_pass(4, 2, progress=0.5)
    half = store.gather(index, 10)
    assert quarter.progress.tolist() == [0.25] * 4 and half.progress.tolist() == [0.5] * 4
    assert torch.equal(quarter.word_noise, half.word_noise)
    assert store.batch(SAMPLES, seed=4, epoch=2).progress.tolist() == [0.0] * 4


def test_dtypes_are_those_of_the_record(store):
    batch = store.batch(SAMPLES, seed=0)
    assert {getattr(batch, name).dtype for name in ("frames", "words", "hide_prob", "word_noise")} == {torch.float32}
    indices = ("num_frames", "word_ids", "num_words", "sample_index")
    assert {getattr(batch, name).dtype for name in indices} == {torch.int64}
    assert batch.dropout_key.dtype == torch.int32


def test_a_sample_is_the_same_alone_and_in_company(store):
    together = store.batch(SAMPLES, seed=4)
    (columns,) = store.num_columns(SAMPLES[2:3])
    assert columns < together.words.shape[1], "the company must need more columns"
    alone = store.batch(SAMPLES[2:3], seed=4)
    for name, value in alone.tensors().items():
        row = getattr(together, name)[2]
        if name in ("words", "word_ids", "hide_prob", "word_noise"):
            row, rest = row[:columns], row[columns:]
            assert name == "word_noise" or not rest.any(), f"{name} has something in the columns of longer sentences"
        torch.testing.assert_close(value[0], row, rtol=0, atol=0)


def test_columns_are_those_of_the_longest_sentence_in_steps(store):
    everything = np.arange(DATA.num_samples)
    columns, limit = store.num_columns(everything), DATA.word_ids.shape[1]
    assert len(np.unique(columns)) > 1
    for words, width in zip(DATA.num_words.tolist(), columns.tolist(), strict=True):
        assert width == min(next(n for n in range(COLUMN_STEP, 100, COLUMN_STEP) if n >= words), limit)
    for samples in (SAMPLES, SAMPLES[2:3], everything):
        batch = store.batch(samples, seed=0)
        shapes = {getattr(batch, name).shape[1] for name in ("words", "word_ids", "hide_prob", "word_noise")}
        assert shapes == {columns[samples].max()}


def test_words_after_the_last_one_are_zero(store):
    batch = store.batch(np.arange(DATA.num_samples), seed=0)
    after = torch.arange(batch.words.shape[1]) >= batch.num_words[:, None]
    assert after.any() and (~after).any()
    assert not batch.words[after].any()
    assert batch.words[~after].abs().sum(dim=-1).min() > 0


def test_other_videos_change_the_frames_and_nothing_else(store):
    batch = store.batch(SAMPLES, seed=4)
    other = store.batch(SAMPLES, seed=4, videos=np.array([3, 3, 11, 0]))
    expected = torch.from_numpy(DATA.features[[3, 3, 11, 0]].astype(np.float32))
    torch.testing.assert_close(other.frames, expected, rtol=0, atol=0)
    for name in ("words", "word_ids", "num_words", "hide_prob", "word_noise", "sample_index"):
        torch.testing.assert_close(getattr(batch, name), getattr(other, name), rtol=0, atol=0)


def test_seed_and_epoch_change_the_noise_only(store):
    first, second, third = (store.batch(SAMPLES, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0)))
    assert not (first.word_noise == second.word_noise).any()
    assert not (first.word_noise == third.word_noise).any()
    torch.testing.assert_close(first.frames, second.frames, rtol=0, atol=0)


def test_features_are_not_copied_on_the_cpu(store):
    assert store._features.dtype == torch.float16
    assert store._features.data_ptr() == DATA.features.ctypes.data


def test_sizes_are_the_data_sets(store):
    assert store.sizes == DATA.sizes
    assert store.data is DATA


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": np.array([0, 72])}, "samples holds 0 to 72; the data set has 0 to 71"),
        ({"samples": np.array([-1])}, "samples holds -1"),
        ({"samples": np.array([], dtype=np.int64)}, "expected one or more integers"),
        ({"samples": np.array([0.5])}, "dtype float64; expected one or more integers"),
        ({"samples": np.array([[0, 1]])}, r"shape \(1, 2\)"),
        ({"samples": SAMPLES, "videos": np.array([0, 1, 2, 12])}, "videos holds 0 to 12; the data set has 0 to 11"),
        ({"samples": SAMPLES, "videos": np.array([0])}, "1 videos for 4 samples"),
    ],
    ids=["beyond", "negative", "empty", "float", "matrix", "video beyond", "too few videos"],
)
def test_wrong_indices_are_refused(store, arguments, message):
    with pytest.raises(ValueError, match=message):
        store.batch(**arguments, seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_equal_on_both_devices(store):
    batch = Store(DATA, "cuda").batch(SAMPLES, seed=4, videos=SAMPLES % 12)
    for name, value in store.batch(SAMPLES, seed=4, videos=SAMPLES % 12).tensors().items():
        assert getattr(batch, name).is_cuda
        torch.testing.assert_close(getattr(batch, name).cpu(), value, rtol=0, atol=0)


@pytest.fixture
def in_file(tmp_path):
    write_prepared(tmp_path / "x.h5", DATA)
    return read_prepared(tmp_path / "x.h5", "disk")


def test_batches_from_the_file_are_those_from_memory(store, in_file):
    from_file = Store(in_file)
    assert (store.residence, from_file.residence) == ("device", "disk")
    batches = epoch_batches(np.arange(DATA.num_samples), 5, 0, 0)
    for number, samples in enumerate(batches):
        for one in (store, from_file):
            one.begin_pass(4, 1, progress=0.5)
            one.read_ahead(batches[number + 1 : number + 3])
            one.stage(samples)
        columns = int(store.num_columns(samples).max())
        expected, got = (one.gather(torch.from_numpy(samples), columns) for one in (store, from_file))
        for name, value in expected.tensors().items():
            torch.testing.assert_close(getattr(got, name), value, rtol=0, atol=0)
    for videos in (None, SAMPLES % 12):
        expected, got = (one.batch(SAMPLES, seed=4, videos=videos) for one in (store, from_file))
        for name, value in expected.tensors().items():
            torch.testing.assert_close(getattr(got, name), value, rtol=0, atol=0)


def test_noise_of_a_pass_is_drawn_in_parts_and_is_the_same(store, monkeypatch):
    monkeypatch.setattr("pps_fast.data.store._DRAWN", 7)
    in_parts, columns = Store(DATA), DATA.word_ids.shape[1]
    in_parts.begin_pass(4, 2)
    got, expected = in_parts.gather(torch.from_numpy(SAMPLES), columns), store.batch(SAMPLES, seed=4, epoch=2)
    for name in ("word_noise", "dropout_key"):
        assert torch.equal(getattr(got, name)[..., : getattr(expected, name).shape[-1]], getattr(expected, name))


def test_a_batch_leaves_the_noise_of_a_pass_as_it_is():
    store, index = Store(DATA), torch.from_numpy(SAMPLES)
    store.begin_pass(4, 2, progress=0.5)
    before = store.gather(index, 10)
    store.batch(SAMPLES, seed=5)
    for name, value in store.gather(index, 10).tensors().items():
        assert torch.equal(value, getattr(before, name))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("residence", ["host", "disk"])
def test_staged_batches_on_a_gpu_keep_their_memory_and_are_those_of_the_device(residence, store, in_file):
    elsewhere = Store(in_file if residence == "disk" else DATA, "cuda", residence)
    assert elsewhere.residence == residence
    elsewhere.stage(SAMPLES)
    memory = elsewhere._staged.data_ptr(), elsewhere._rows.data_ptr()
    elsewhere.read_ahead([SAMPLES[:2], SAMPLES])
    for samples in (SAMPLES[:2], SAMPLES):
        elsewhere.stage(samples)
        got = elsewhere.gather(torch.from_numpy(samples).cuda(), 10)
        expected = store.gather(torch.from_numpy(samples), 10)
        assert torch.equal(got.frames.cpu(), expected.frames)
    assert memory == (elsewhere._staged.data_ptr(), elsewhere._rows.data_ptr())
