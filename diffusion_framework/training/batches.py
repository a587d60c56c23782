"""Which images make up which batch: a function of the seed and the position alone, so that nothing has to be saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..noise import keyed_generator


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Endless shuffled batches as lists of (index, epoch); each epoch shuffles anew and batches run across its end.

    All processes walk one global sequence, of which each takes its share of every batch.

    Args:
        length: Number of images.
        batch_size: Images of one global batch, over all processes.
        seed: Of the order.
        start: Number of the first batch, to go on where a run stopped.
        rank: Of this process.
        world: Number of processes; divides batch_size.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.share = batch_size // world
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position = self.start * self.batch_size + self.offset
        epoch, order = -1, torch.empty(0)
        while True:
            batch = []
            for draw in range(position, position + self.share):
                if draw // self.length != epoch:
                    epoch = draw // self.length
                    order = torch.randperm(self.length, generator=keyed_generator("cpu", self.seed, epoch))
                batch.append((int(order[draw % self.length]), epoch))
            yield batch
            position += self.batch_size


class _Draws(Dataset):
    """A dataset asked by (index, epoch), whether or not it tells epochs apart."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, epoch = key
        return self.dataset.draw(index, epoch) if hasattr(self.dataset, "draw") else self.dataset[index]


def batch_loader(dataset: Any, batches: ShuffledBatches, num_workers: int, pin_memory: bool) -> DataLoader:
    """A loader of the batches. Images stay uint8 until they are on the device."""
    return DataLoader(
        _Draws(dataset),
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
    )


def to_device(batch: Any, device: torch.device, flip: torch.Generator | None) -> tuple[torch.Tensor, dict[str, Any]]:
    """A batch of the loader as images in [0, 1] on the device, and the conditions that came with them.

    Args:
        batch: Images [batch, channels, height, width], uint8 or floats in [0, 1], or those and labels [batch].
        device: Where to put them.
        flip: A generator on the device that decides which images are mirrored left to right; None mirrors none.
    """
    images, *labels = batch if isinstance(batch, list | tuple) else (batch,)
    condition = {"labels": labels[0].to(device, non_blocking=True)} if labels else {}
    images = images.to(device, non_blocking=True)
    if flip is not None:
        mirrored = torch.rand(len(images), 1, 1, 1, device=device, generator=flip) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    if images.dtype == torch.uint8:
        images = images.float() / 255
    return images, condition
