"""Opens datasets and their batches."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from accelerate import Accelerator

from ..data import ImageFolder, TrainingDataset
from ..data.held_out import hold_out
from ..data.loading.loader import loaded_batches, shuffled_batches, to_device
from ..data.wrapped import as_dataset
from ..spaces.base import InvalidSampleError
from .checks import expect
from .signals import Overdue, outlive_signals, time_limit, worker_deaths_awaited

Keys = list[tuple[int, int]]
Cache = Literal["auto", "memory", "disk", "off"]
_CHECKED_BATCHES = 32  # last batches to search for invalid samples
_END_OF_A_WORKER = 5.0  # seconds to wait for a killed data worker


@dataclass(frozen=True)
class Loading:
    """Options for loading samples.

    Args:
        num_workers: Number of data workers of each training process; 0 loads samples in the
            training process itself.
        cache: Place of the cache for decoded images of a folder: 'memory', 'disk' (below
            `~/.cache/diffusion_framework`, kept for later runs), 'off', or 'auto', the first of
            these with enough room.
        timeout: Seconds to wait for a batch before the run is saved and ends with an error; 0 waits
            without limit.

    Raises:
        ValueError: If a field is out of range.
    """

    num_workers: int = 2
    cache: Cache = "auto"
    timeout: float = 600.0

    def __post_init__(self) -> None:
        wanted = "loading.num_workers of at least 0"
        expect(
            self.num_workers >= 0, wanted, self.num_workers, "set it to 0 to load without workers"
        )
        known = self.cache in get_args(Cache)
        names = ", ".join(get_args(Cache))
        expect(known, f"loading.cache among {names}", self.cache, "choose one of these")
        wanted, fix = "loading.timeout of at least 0", "set it to 0 to wait without limit"
        expect(self.timeout >= 0, wanted, self.timeout, fix)

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
    ) -> Iterator[LoadedBatches]:
        """Returns a context manager of the endless batches of this process.

        Args:
            dataset: Dataset to train on, which collates its batches.
            batch_size: Number of samples of a batch over all processes.
            seed: Seed of the order.
            start: Index of the first batch.
            accelerator: Accelerator of the run.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        order = partial(shuffled_batches, dataset, batch_size, seed, rank=rank, world=world)
        keys = partial(_keys_after, order, start)
        others = set(multiprocessing.active_children())
        options = self.num_workers, accelerator.device, outlive_signals
        loading = loaded_batches(dataset, order(start=start), *options)
        with loading as loaded, worker_deaths_awaited():
            workers = set(multiprocessing.active_children()) - others
            try:
                yield LoadedBatches(loaded, self, dataset, keys, accelerator.device)
            except BaseException:
                for worker in workers:  # one that hangs would keep this process from ending
                    worker.kill()
                    worker.join(_END_OF_A_WORKER)
                raise


def _keys_after(order: Callable[..., Iterable[Keys]], start: int, taken: int) -> Iterable[Keys]:
    """Returns the keys of the batches that follow a number of batches taken."""
    return order(start=start + taken)


class LoadedBatches(Iterator[Any]):
    """Batches of a process, which remembers how many it has taken.

    Args:
        loaded: Batches from the data workers.
        options: Options with the time limit of a batch.
        dataset: Dataset of the samples.
        keys: Function from a number of batches taken to the keys of those that follow.
        device: Device of the model.

    Attributes:
        failed: Error that ended the loading, or None.
    """

    def __init__(
        self,
        loaded: Iterator[Any],
        options: Loading,
        dataset: TrainingDataset,
        keys: Callable[[int], Iterable[Keys]],
        device: torch.device,
    ) -> None:
        self._loaded, self._options, self._keys = loaded, options, keys
        self._dataset, self._device = dataset, device
        self._taken = 0
        self.failed: BaseException | None = None

    def __next__(self) -> Any:
        """Returns the next batch.

        Raises:
            OSError: If no batch comes in time, or a data worker has died.
        """
        try:
            with time_limit(self._options.timeout):
                batch = next(self._loaded)
        except BaseException as error:
            self.failed = self._explained(error)
            if self.failed is error:
                raise
            raise self.failed from error
        self._taken += 1
        return batch

    def _explained(self, error: BaseException) -> BaseException:
        """Returns an error of the data workers in words that users can act on."""
        workers, text = self._options.num_workers, str(error)
        if isinstance(error, Overdue):
            return OSError(
                f"Expected a batch within {self._options.timeout:g} s, got none from {workers} "
                "data workers. Fix: find out why the data hang, such as a server that does not "
                "answer, or raise loading.timeout."
            )
        if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
            return OSError(
                f"Expected {workers} data workers, got the end of one ({text}). Fix: lower "
                "loading.num_workers if the memory is too small, and resume."
            )
        return error

    def find_cause(self, error: BaseException, check: Callable[..., None]) -> None:
        """Checks the samples of the last batches after an error that an invalid one may cause.

        Args:
            error: Error that ended the run.
            check: Function that raises for invalid data, such as `model.check`.

        Raises:
            InvalidSampleError: If a sample is invalid; it names the sample.
        """
        if self.failed is not None or not isinstance(error, ValueError | FloatingPointError):
            return
        recent = min(self._taken, _CHECKED_BATCHES)
        for keys in itertools.islice(self._keys(self._taken - recent), recent):
            check_each(self._dataset, keys, self._device, check)


def check_each(
    dataset: TrainingDataset,
    keys: Keys,
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


def split_data(
    dataset: TrainingDataset, validation: Any, seed: int
) -> tuple[TrainingDataset, TrainingDataset | None]:
    """Returns the data to train on and to validate on.

    Args:
        dataset: Training data.
        validation: Any argument of `as_dataset`, a share of the training data, or None.
        seed: Seed of the choice of a share.

    Raises:
        ValueError: If the share is out of range, or the data cannot be split.
    """
    if isinstance(validation, float):
        return hold_out(dataset, validation, seed)
    return dataset, None if validation is None else as_dataset(validation)
