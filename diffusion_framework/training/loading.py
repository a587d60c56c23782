"""How batches reach the training loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from accelerate import Accelerator

from ..data import ImageFolder, TrainingDataset
from ..data.loading.loader import loaded_batches, shuffled_batches
from ..data.wrapped import as_dataset
from .checks import expect
from .stopping import outlive_signals

Cache = Literal["auto", "memory", "disk", "off"]


@dataclass(frozen=True)
class Loading:
    """How samples are read.

    Args:
        num_workers: Data-loading processes of each training process; 0 loads in the training
            process itself.
        cache: Place for decoded images of a folder, so that only the first epoch decodes them:
            'memory', 'disk' (below `~/.cache/diffusion_framework`, for later runs too), 'off', or
            'auto', the first of these with enough room.

    Raises:
        ValueError: a field out of range.
    """

    num_workers: int = 2
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        wanted = "loading.num_workers of at least 0"
        expect(self.num_workers >= 0, wanted, self.num_workers, "0 loads without data workers")
        known = self.cache in get_args(Cache)
        names = ", ".join(get_args(Cache))
        expect(known, f"loading.cache among {names}", self.cache, "take one of these")

    def check(self, dataset: TrainingDataset) -> None:
        """Raises ValueError if samples are to be kept that may differ from epoch to epoch."""
        fits = dataset.worth_caching or self.cache in ("auto", "off")
        expect(
            fits,
            f"images of a folder, cropped at the center, for loading.cache={self.cache!r}",
            type(dataset).__name__,
            "set loading.cache to auto or off",
        )

    def batches(
        self,
        dataset: TrainingDataset,
        batch_size: int,
        seed: int,
        start: int,
        accelerator: Accelerator,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Opens the endless batches of this process, as the dataset collates them.

        Args:
            dataset: Samples to train on.
            batch_size: Samples of a batch over all processes.
            seed: Seed for the order.
            start: Number of the first batch.
            accelerator: The run's.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        order = shuffled_batches(dataset, batch_size, seed, start, rank, world)
        return loaded_batches(dataset, order, self.num_workers, accelerator.device, outlive_signals)


def open_dataset(
    folder_or_dataset: Any, sample_shape: tuple[int, ...], convert_image_to: str | None
) -> TrainingDataset:
    """Returns the training data of a Trainer's argument.

    Args:
        folder_or_dataset: A path of a folder of images, or what `as_dataset` takes.
        sample_shape: Shape of the model's samples, (channels, height, width) for a folder.
        convert_image_to: Pillow mode that images of a folder are converted to first.

    Raises:
        ValueError: data that does not fit the model, or is none.
        FileNotFoundError: a folder that does not exist.
    """
    if not isinstance(folder_or_dataset, str | os.PathLike):
        fix = "set it on the dataset instead"
        expect(convert_image_to is None, "convert_image_to with a path only", convert_image_to, fix)
        return as_dataset(folder_or_dataset)
    fits = len(sample_shape) == 3
    wanted = "a model of images [channels, height, width] for a folder of images"
    expect(fits, wanted, sample_shape, "give a dataset of such samples")
    channels, height, width = sample_shape
    return ImageFolder(
        folder_or_dataset, (height, width), channels, convert_image_to=convert_image_to
    )
