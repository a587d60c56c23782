"""Opens datasets and their batches."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from accelerate import Accelerator

from ..data import ImageFolder, TrainingDataset
from ..data.loading.loader import loaded_batches, shuffled_batches, to_device
from ..data.wrapped import as_dataset
from ..spaces.base import InvalidSampleError
from .checks import expect
from .stopping import outlive_signals

Cache = Literal["auto", "memory", "disk", "off"]
_CHECKED_BATCHES = 32  # last batches to search for invalid samples


@dataclass(frozen=True)
class Loading:
    """Options for loading samples.

    Args:
        num_workers: Number of data workers of each training process; 0 loads samples in the
            training process itself.
        cache: Place of the cache for decoded images of a folder: 'memory', 'disk' (below
            `~/.cache/diffusion_framework`, kept for later runs), 'off', or 'auto', the first of
            these with enough room.

    Raises:
        ValueError: If a field is out of range.
    """

    num_workers: int = 2
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        wanted = "loading.num_workers of at least 0"
        expect(
            self.num_workers >= 0, wanted, self.num_workers, "set it to 0 to load without workers"
        )
        known = self.cache in get_args(Cache)
        names = ", ".join(get_args(Cache))
        expect(known, f"loading.cache among {names}", self.cache, "choose one of these")

    def check(self, dataset: TrainingDataset) -> None:
        """Raises ValueError if the cache is set and samples may differ from epoch to epoch."""
        fits = dataset.worth_caching or self.cache in ("auto", "off")
        expect(
            fits,
            f"a folder of images with center crops for loading.cache={self.cache!r}",
            type(dataset).__name__,
            "set loading.cache to auto or off",
        )

    @contextmanager
    def batches(
        self,
        dataset: TrainingDataset,
        batch_size: int,
        seed: int,
        start: int,
        accelerator: Accelerator,
        check: Callable[..., None],
    ) -> Iterator[Iterator[Any]]:
        """Returns a context manager of the endless batches of this process.

        If the training fails, the last batches are checked, and the error names an invalid sample.

        Args:
            dataset: Dataset to train on, which collates its batches.
            batch_size: Number of samples of a batch over all processes.
            seed: Seed of the order.
            start: Index of the first batch.
            accelerator: Accelerator of the run.
            check: Function that raises for invalid data, such as `model.check`.

        Raises:
            InvalidSampleError: If the training failed and one of the last samples is invalid.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        order = partial(shuffled_batches, dataset, batch_size, seed, rank=rank, world=world)
        device, taken = accelerator.device, 0

        def counted(loaded: Iterator[Any]) -> Iterator[Any]:
            nonlocal taken
            for batch in loaded:
                taken += 1
                yield batch

        with loaded_batches(
            dataset, order(start=start), self.num_workers, device, outlive_signals
        ) as loaded:
            try:
                yield counted(loaded)
            except (ValueError, FloatingPointError):
                recent = min(taken, _CHECKED_BATCHES)
                for keys in itertools.islice(order(start=start + taken - recent), recent):
                    check_each(dataset, keys, device, check)
                raise


def check_each(
    dataset: TrainingDataset,
    keys: list[tuple[int, int]],
    device: torch.device,
    check: Callable[..., None],
) -> None:
    """Checks samples one by one.

    Args:
        dataset: Dataset of the samples.
        keys: Index and epoch of each sample.
        device: Device of the model.
        check: Function that raises for invalid data, such as `model.check`.

    Raises:
        InvalidSampleError: If a sample is invalid; it has the index of the sample in the dataset.
    """
    for index, epoch in keys:
        data, condition = to_device(dataset.take(np.array([index]), np.array([epoch])), device)
        try:
            check(data, **condition)
        except InvalidSampleError as error:
            raise error.counted_in("the training data", index) from None


def open_dataset(
    folder_or_dataset: Any, sample_shape: tuple[int, ...], convert_image_to: str | None
) -> TrainingDataset:
    """Returns the training data of a Trainer's argument.

    Args:
        folder_or_dataset: Path of a folder of images, or any argument of `as_dataset`.
        sample_shape: Shape of the model's samples, (channels, height, width) for a folder.
        convert_image_to: Pillow mode that images of a folder are converted to first.

    Raises:
        ValueError: If the argument is not a dataset, or does not fit the model.
        FileNotFoundError: If the folder does not exist.
    """
    if not isinstance(folder_or_dataset, str | os.PathLike):
        fix = "set it on the dataset instead"
        wanted = "convert_image_to=None with a dataset"
        expect(convert_image_to is None, wanted, convert_image_to, fix)
        return as_dataset(folder_or_dataset)
    fits = len(sample_shape) == 3
    wanted = "a model of images [channels, height, width] for a folder of images"
    expect(fits, wanted, sample_shape, "give a dataset of samples of this shape")
    channels, height, width = sample_shape
    return ImageFolder(
        folder_or_dataset, (height, width), channels, convert_image_to=convert_image_to
    )
