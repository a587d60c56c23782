"""The computed shuffle, and the order of batches."""

from itertools import islice

import numpy as np
import pytest
from scipy.stats import chisquare, ks_1samp, uniform

from diffusion_framework.data.loading.loader import ShuffledBatches
from diffusion_framework.data.loading.order import permute
from diffusion_framework.process.noise import mix


def test_permute_is_a_bijection_for_every_length():
    for length in [*range(1, 130), 1000, 4097, 65536, 99_991]:
        for key in (0, mix(length)):
            shuffled = permute(np.arange(length), length, key)
            assert np.array_equal(np.sort(shuffled), np.arange(length)), length


def test_a_part_equals_that_part_of_the_whole():
    whole = permute(np.arange(1000), 1000, 5)
    assert np.array_equal(permute(np.arange(300, 700), 1000, 5), whole[300:700])
    assert np.array_equal(permute(np.array([[999, 0]]), 1000, 5), whole[[[999, 0]]])
    keys = np.array([5, 6, 5], np.uint64)
    mixed = permute(np.array([7, 7, 8]), 1000, keys)
    assert mixed.tolist() == [whole[7], permute(np.array([7]), 1000, 6)[0], whole[8]]


@pytest.mark.parametrize("length", [10**9, 2**58])
def test_values_of_long_ranges_are_uniform(length):
    scattered = np.random.default_rng(0).integers(0, length, 20_000)
    last = np.arange(length - 20_000, length)
    for positions in (scattered, last):
        out = permute(positions, length, 3)
        assert out.max() < length and len(np.unique(out)) == len(np.unique(positions))
        assert ks_1samp(out / length, uniform.cdf).pvalue > 1e-4
        assert (
            ks_1samp((np.diff(out.astype(np.int64)) % length) / length, uniform.cdf).pvalue > 1e-4
        )


def test_the_number_of_hashes_does_not_grow_with_the_length(monkeypatch):
    calls = []
    module = permute.__globals__
    monkeypatch.setitem(module, "mix", lambda *keys: calls.append(1) or mix(*keys))
    counts = []
    for length in (1000, 10**9):
        calls.clear()
        for key in range(50):
            permute(np.arange(16), length, key)
        counts.append(len(calls))
    assert counts[1] <= 1.5 * counts[0]


@pytest.mark.parametrize("length", [2, 3, 5, 7, 10, 33])
def test_over_many_epochs_positions_and_neighbours_are_uniform(length):
    keys = mix(1, np.arange(20_000, dtype=np.uint64))
    orders = np.stack(
        [permute(np.full(len(keys), i), length, keys) for i in range(length)], axis=1
    ).astype(int)
    p_values = [
        chisquare(np.bincount(orders[:, i], minlength=length)).pvalue for i in range(length)
    ]
    assert min(p_values) > 1e-5
    for i in range(length - 1):
        pairs = np.zeros((length, length))
        np.add.at(pairs, (orders[:, i], orders[:, i + 1]), 1)
        assert length == 2 or chisquare(pairs[~np.eye(length, dtype=bool)]).pvalue > 1e-5


def test_orders_of_epochs_and_seeds_are_uncorrelated():
    length, count = 500, 60
    orders = np.stack(
        [permute(np.arange(length), length, mix(s, e)) for s in range(6) for e in range(10)]
    )
    correlations = np.corrcoef(orders.astype(float)) - np.eye(count)
    assert np.abs(correlations).max() < 5 / length**0.5
    same = (orders[:, None] == orders[None]).sum(axis=2)[~np.eye(count, dtype=bool)]
    assert abs(same.mean() - 1) < 0.1, "random orders agree in one position on average"


def test_a_position_out_of_range_is_an_error():
    with pytest.raises(IndexError, match=r"\[0, 10\), got 10"):
        permute(np.array([10]), 10, 0)


def batches_of(count, length=10, **options):
    """Returns the first `count` batches as lists of (index, epoch)."""
    return list(islice(ShuffledBatches(length, 4, seed=3, **options), count))


def test_batches_cover_each_epoch_once_and_can_start_anywhere():
    batches = batches_of(700)
    draws = [key for batch in batches for key in batch]
    for epoch in range(280):
        assert sorted(index for index, e in draws if e == epoch) == list(range(10))
    orders = [[index for index, e in draws if e == epoch] for epoch in range(280)]
    assert len({tuple(order) for order in orders}) == 280
    assert batches_of(4, start=6) == batches[6:10]
    assert batches_of(4, start=600) == batches[600:604]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_each_batch_of_one_order(world):
    shares = zip(*(batches_of(300, rank=rank, world=world) for rank in range(world)), strict=True)
    assert [[key for share in shares for key in share] for shares in shares] == batches_of(300)


def test_batches_of_a_billion_images_late_in_training():
    (batch,) = batches_of(1, length=10**9, start=10**12)
    assert all(0 <= index < 10**9 and epoch == 4000 for index, epoch in batch)
