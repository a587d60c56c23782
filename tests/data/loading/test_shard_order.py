"""The order of images in shards: shuffled, computed, and from few shards at a time."""

import itertools

import numpy as np
import pytest
import torch
from grey_images import greys
from tar_shards import open_shards, write_shards

from diffusion_framework.data.loading.loader import loaded_batches, shuffled_batches
from diffusion_framework.data.loading.shard_order import ShardedBatches

LENGTHS = np.array([3, 5, 4, 6, 3, 4, 5, 7, 1])


def batches_of(lengths, batch_size=12, count=100, **options):
    """Returns the first `count` batches as lists of (index, epoch)."""
    return list(itertools.islice(ShardedBatches(lengths, batch_size, 3, **options), count))


@pytest.mark.parametrize("batch_size", [1, 3, 12, 40, 7])
def test_each_epoch_of_a_lane_reads_its_shards_one_after_the_other(batch_size):
    batches = batches_of(LENGTHS, batch_size, 1600 // batch_size)
    lanes = {1: 1, 3: 3, 12: 6, 40: 8, 7: 7}[batch_size]
    shard_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    width = batch_size // lanes
    for lane in range(lanes):
        draws = [key for batch in batches for key in batch[lane * width : (lane + 1) * width]]
        assert [epoch for _, epoch in draws] == sorted(epoch for _, epoch in draws)
        for _, epoch in itertools.groupby(draws, key=lambda key: key[1]):
            visits = [shard for shard, _ in itertools.groupby(int(shard_of[i]) for i, _ in epoch)]
            assert len(visits) == len(set(visits)), (
                "each shard is read to its end before the next one"
            )


@pytest.mark.parametrize("batch_size", [1, 12, 16, 39, 40])
@pytest.mark.parametrize(
    "lengths", [LENGTHS, [100, 100, 100, 5], [1, 1], [50, 1, 1, 1, 1, 1, 1, 1, 1, 1]], ids=str
)
def test_every_epoch_has_each_image_once_whatever_the_lengths_of_the_shards(lengths, batch_size):
    total = sum(lengths)
    counts, seen = np.zeros(total, int), {}
    for batch in batches_of(np.array(lengths), batch_size, 7 * total // batch_size + 1):
        for index, epoch in batch:
            counts[index] += 1
            seen.setdefault(epoch, []).append(index)
        assert counts.max() - counts.min() <= 1 + (batch_size > total)
    orders = [seen[epoch] for epoch in range(6)]
    assert all(sorted(order) == list(range(total)) for order in orders)
    assert len(set(map(tuple, orders))) > 4 or total == 2, "each epoch has its own order"


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_processes_share_each_batch_of_one_order(world):
    shares = zip(
        *(batches_of(LENGTHS, rank=rank, world=world) for rank in range(world)), strict=True
    )
    assert [[key for share in shares for key in share] for shares in shares] == batches_of(LENGTHS)


def test_the_order_can_start_at_any_batch():
    whole = batches_of(LENGTHS, count=400)
    for start in (1, 84, 85, 86, 390):
        assert batches_of(LENGTHS, count=10, start=start) == whole[start : start + 10]
    lengths = np.full(10_000, 100_000)  # a billion images
    (batch,) = batches_of(lengths, 1000, 1, start=10**9)
    assert all(0 <= index < 10**9 and epoch == 1000 for index, epoch in batch)
    assert len({index // 100_000 for index, _ in batch}) == 8


def test_each_process_reads_few_shards_of_its_own_at_a_time():
    lengths = np.full(40, 50)
    prefetched = [[] for _ in range(4)]
    reads = []
    for rank, calls in enumerate(prefetched):
        batches = batches_of(lengths, 16, 100, rank=rank, world=4, prefetch=calls.append)
        reads.append([{index // 50 for index, _ in batch} for batch in batches])
        assert max(map(len, reads[-1])) <= 4, "2 lanes, each in one shard or at the border of two"
        assert all(len(shards) == 4 for shards in calls)
    own = [set.union(*shards) for shards in reads]
    assert all(not a & b for a, b in itertools.combinations(own, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_data_workers_keep_the_order(tmp_path, workers):
    pattern = write_shards(tmp_path / "in")
    dataset = open_shards(pattern, tmp_path, labels=True)
    dataset[0]  # opens a shard before the workers are forked
    batches = shuffled_batches(dataset, 4, 5, 2, 1, 2)
    assert isinstance(batches, ShardedBatches)
    expected = list(itertools.islice(batches, 40))
    with loaded_batches(dataset, batches, workers, torch.device("cpu")) as loaded:
        for keys, (images, labels) in zip(expected, loaded, strict=False):
            assert greys(images) == [index for index, _ in keys]
            indices = [index for index, _ in keys]
            shard_of = np.searchsorted(np.cumsum(dataset.shard_lengths), indices, side="right")
            assert labels.tolist() == shard_of.tolist()
