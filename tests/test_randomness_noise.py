"""Noise and dropout keys by counters: their distribution, and what they depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pps_fast.randomness import counter_hash, dropout_keys, gumbel_noise


def hidden(prob: np.ndarray, count: int, num_draws: int) -> np.ndarray:
    """Returns [num_draws, count] positions chosen by the largest log(p) + noise, best first."""
    noise = gumbel_noise(3, 0, np.arange(num_draws), len(prob))
    return np.argsort(-(np.log(prob) + noise), axis=1)[:, :count]


def plackett_luce(prob: np.ndarray, ordered: tuple[int, ...]) -> float:
    """Probability that successive draws without replacement give exactly this order."""
    left, chance = 1.0, 1.0
    for item in ordered:
        chance *= prob[item] / left
        left -= prob[item]
    return chance


def test_ordered_top_two_follows_plackett_luce():
    prob = np.array([0.45, 0.3, 0.15, 0.1])
    num_draws = 40_000
    drawn = hidden(prob, 2, num_draws)
    for pair in itertools.permutations(range(4), 2):
        exact = plackett_luce(prob, pair)
        share = (drawn == np.array(pair)).all(axis=1).mean()
        assert abs(share - exact) < 4.5 * np.sqrt(exact * (1 - exact) / num_draws), pair


def test_inclusion_agrees_with_draws_without_replacement():
    weight = np.exp([1.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0])
    prob, num_draws = weight / weight.sum(), 20_000
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.choice(len(prob), size=3, replace=False, p=prob) for _ in range(num_draws)])
    expected = np.bincount(chosen.ravel(), minlength=len(prob)) / num_draws
    share = np.bincount(hidden(prob, 3, num_draws).ravel(), minlength=len(prob)) / num_draws
    # 0.02 is 4.5 standard errors of the difference of the two estimates
    np.testing.assert_allclose(share, expected, atol=0.02)


def test_distribution_is_standard_gumbel():
    noise = np.sort(gumbel_noise(0, 0, np.arange(10_000), 10).astype(np.float64), axis=None)
    empirical = (np.arange(noise.size) + 0.5) / noise.size
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed by chance once in a thousand seeds
    assert np.abs(np.exp(-np.exp(-noise)) - empirical).max() < 1.95 / np.sqrt(noise.size)


def test_extreme_hashes_give_finite_noise(monkeypatch):
    extremes = np.array([[0, 2**64 - 1]], dtype=np.uint64)
    monkeypatch.setattr("pps_fast.randomness.counter_hash", lambda *counters: extremes)
    noise = gumbel_noise(0, 0, np.array([0]), 2)
    assert np.isfinite(noise).all()
    assert -3.7 < noise[0, 0] < -3.5 and 36.5 < noise[0, 1] < 36.8


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    together = gumbel_noise(5, 2, np.arange(50), 12)
    shuffled = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(gumbel_noise(5, 2, shuffled, 12), together[shuffled])
    np.testing.assert_array_equal(gumbel_noise(5, 2, np.array([17]), 12)[0], together[17])
    np.testing.assert_array_equal(gumbel_noise(5, 2, np.arange(50), 7), together[:, :7])


@pytest.mark.parametrize(
    "other",
    [
        gumbel_noise(1, 0, np.arange(2000), 10),
        gumbel_noise(-1, 0, np.arange(2000), 10),
        gumbel_noise(2**63, 0, np.arange(2000), 10),
        gumbel_noise(0, 1, np.arange(2000), 10),
        gumbel_noise(0, 0, np.arange(2000) + 1, 10),
        gumbel_noise(0, 0, np.arange(2000), 11)[:, 1:],
    ],
    ids=["seed", "negative seed", "large seed", "epoch", "sample", "column"],
)
def test_noise_is_uncorrelated_between_counters(other):
    noise = gumbel_noise(0, 0, np.arange(2000), 10)
    assert not (noise == other).any()
    # 0.032 is 4.5 standard errors of a correlation of 20,000 pairs
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.032


def test_every_bit_of_the_hash_is_balanced_and_flips_with_a_neighboring_counter():
    values = counter_hash(0, 0, np.arange(20_000))
    flips = values[1:] ^ values[:-1]
    for bits in (values, flips):
        shares = [((bits >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)]
        # 0.018 is 5 standard errors
        np.testing.assert_allclose(shares, 0.5, atol=0.018)


def test_order_and_number_of_counters_matter():
    values = [counter_hash(*counters).item() for counters in [(1, 2), (2, 1), (1,), (1, 0), (0, 1), (1, 2, 0)]]
    assert len(set(values)) == len(values)


def test_hash_is_the_same_on_every_machine():
    # splitmix64 with state 0 gives this as its first number (public test vector)
    assert counter_hash(0).item() == 0xE220A8397B1DCDAF


def test_dropout_key_of_a_sample_does_not_depend_on_its_batch():
    together = dropout_keys(5, 2, np.arange(50))
    shuffled = np.random.default_rng(0).permutation(50)
    assert together.dtype == np.int32 and together.shape == (50,)
    np.testing.assert_array_equal(dropout_keys(5, 2, shuffled), together[shuffled])
    np.testing.assert_array_equal(dropout_keys(5, 2, np.array([17])), together[17:18])


def test_dropout_keys_differ_between_seeds_epochs_and_samples():
    keys = [dropout_keys(seed, epoch, np.arange(1000)) for seed in (-1, 0, 1, 2**63) for epoch in (0, 1, 2)]
    # 12,000 numbers of 32 bits have 0.017 equal pairs on average
    assert len(np.unique(keys)) == 12_000


def test_every_bit_of_dropout_keys_is_balanced_and_flips_with_the_next_sample():
    keys = dropout_keys(0, 0, np.arange(20_000)).view(np.uint32)
    for bits in (keys, keys[1:] ^ keys[:-1]):
        shares = [((bits >> np.uint32(bit)) & np.uint32(1)).mean() for bit in range(32)]
        # 0.018 is 5 standard errors
        np.testing.assert_allclose(shares, 0.5, atol=0.018)


def test_dropout_keys_are_not_what_the_noise_is_made_of():
    keys = dropout_keys(0, 0, np.arange(2000)).astype(np.float64)
    noise = gumbel_noise(0, 0, np.arange(2000), 40)
    for column in range(40):
        # 0.11 is 5 standard errors of a correlation of 2,000 pairs
        assert abs(np.corrcoef(keys, noise[:, column])[0, 1]) < 0.11
