"""Base classes of all datasets."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt
from torch import Tensor
from torch.utils.data import Dataset

from ..parts.counting import counted
from ..storage.config import RecordsArguments
from .loading.handover import collate

ImageTensor = UInt[Tensor, "channels height width"]

_MOST_NUMBERS = 2**31  # in an image


class TakesBatches(Protocol):
    """Source of whole batches; see `TrainingDataset.take`."""

    def take(self, indices: np.ndarray) -> Any: ...


class TrainingDataset(RecordsArguments, Dataset[Any], ABC):
    """Base class of datasets of tensors, or of pairs of a tensor and its conditions.

    Conditions are a class label, or a dictionary of values by name (labels, a mask, ...).

    Attributes:
        folder: Folder that holds the samples, or None.
        class_names: Names of the labels 0, 1, ...; empty without labels, None if unknown.
        worth_caching: Whether drawing a sample is slow and gives the same values in every epoch.
        shard_lengths: Number of samples in each shard, or None without shards. Shards are read one
            after the other, and `prefetch` is told the next ones.
        environment: Name of the environment in which a policy of this data acts, if it has one.
    """

    folder: str | None = None
    class_names: Sequence[str] | None = None
    worth_caching: bool = False
    shard_lengths: np.ndarray | None = None
    environment: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def draw(self, index: int, epoch: int) -> Any:
        """Returns sample `index` as epoch `epoch` sees it.

        All randomness is a function of (seed, index, epoch), never of a global generator, so that
        a resumed run repeats it exactly.

        Raises:
            IndexError: unless 0 <= index < len(self).
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a hash of which sample has which index."""

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> Any:
        """Returns a batch of samples. Override it if reading many at once is faster.

        Args:
            indices: Indices of the samples, integers [batch].
            epochs: Epoch of each sample, integers [batch]; None for epoch 0.

        Returns:
            Samples [batch, ...], or a list of the samples and their collated conditions.
        """
        epochs = np.zeros_like(indices) if epochs is None else epochs
        return collate([self.draw(int(i), int(e)) for i, e in zip(indices, epochs, strict=True)])

    def prefetch(self, shards: Sequence[int]) -> None:
        """Prepares to read these shards, the current and the next ones."""

    def resident(self, device: torch.device) -> "TakesBatches | None":
        """Returns a source of batches that needs no data workers, or None if not yet available.

        Args:
            device: Device of the training.
        """
        return None

    def class_labels(self) -> np.ndarray | None:
        """Returns the class of each sample, or None if that takes reading the samples."""
        return None

    def subset(self, indices: np.ndarray) -> "TrainingDataset":
        """Returns a dataset of these samples, in this order.

        Args:
            indices: Indices of the samples, integers [number].

        Raises:
            ValueError: If the samples are not independent, or not at hand.
        """
        if self.shard_lengths is not None:
            raise ValueError(
                "Expected validation data of their own with shards, got a share of them. "
                "Fix: give other shards as the validation data."
            )
        return Subset(self, indices)

    def describe(self) -> str:
        """Returns the number of samples, their shape and classes on one line, for the summary."""
        return f"{counted(len(self), 'sample')}{self._classes()}"

    def notes(self) -> list[str]:
        """Returns what a user should know of the data, such as skipped files, one line each."""
        return []

    def _classes(self) -> str:
        names = [*(self.class_names or ())]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return f", {counted(len(names), 'class')} ({shown:.60})" if names else ""

    def __getitem__(self, index: int) -> Any:
        return self.draw(index, 0)

    def check_index(self, index: int) -> None:
        """Raises IndexError unless 0 <= index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(
                f"Expected an index in [0, {len(self)}), got {index}. Fix: count from 0."
            )


class Subset(TrainingDataset):
    """Some of the samples of another dataset.

    Args:
        whole: Dataset.
        indices: Indices of the samples, in order, integers [number].
    """

    def __init__(self, whole: TrainingDataset, indices: np.ndarray) -> None:
        self.whole, self.indices = whole, indices
        self.folder, self.class_names = whole.folder, whole.class_names
        self.environment = whole.environment

    def __len__(self) -> int:
        return len(self.indices)

    def draw(self, index: int, epoch: int) -> Any:
        self.check_index(index)
        return self.whole.draw(int(self.indices[index]), epoch)

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> Any:
        return self.whole.take(self.indices[indices], epochs)

    def fingerprint(self) -> str:
        """Returns a hash of the whole and of the indices."""
        chosen = self.indices.astype(np.int64).tobytes()
        return hashlib.sha256(self.whole.fingerprint().encode() + chosen).hexdigest()

    def describe(self) -> str:
        return f"{len(self):,} of {self.whole.describe()}"

    def notes(self) -> list[str]:
        return self.whole.notes()


class ImageDataset(TrainingDataset):
    """Images as contiguous tensors [channels, height, width], alone or with their conditions.

    A sample with conditions is a pair (image, label), or (image, conditions by name).

    Attributes:
        image_size: (height, width) of every image.
        channels: Channels of every image, such as 1 (grey), 3 (RGB) or 4 (RGBA).
        bits: Bits per channel of every image: 8 (uint8) or 16 (uint16).
        class_names: Names of the labels 0, 1, ...; empty without labels.
        worth_caching: Whether drawing an image is slow and gives the same pixels in every epoch;
            if so, `version` is implemented.
    """

    image_size: tuple[int, int]
    channels: int
    bits: int = 8
    class_names: list[str]

    def __init__(self, image_size: int | tuple[int, int], channels: int):
        """Sets the shape of the images.

        Args:
            image_size: Side of the square images, or (height, width); at least 1.
            channels: 1 for grey, 3 for RGB, 4 for RGBA, or another number.

        Raises:
            ValueError: a size or a number of channels below 1, or images too large.
        """
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.channels = channels
        self.class_names = []
        if min(self.image_size) < 1:
            raise ValueError(f"Expected image_size of at least 1, got {image_size}. Fix: try 64.")
        if channels < 1:
            raise ValueError(
                f"Expected channels of at least 1, got {channels}. "
                "Fix: take 1 for grey, 3 for RGB, 4 for RGBA, or the number in TIFF files."
            )
        if channels * math.prod(self.image_size) > _MOST_NUMBERS:
            raise ValueError(
                f"Expected images of at most {_MOST_NUMBERS} numbers, got {channels} channels of "
                f"image_size {image_size}. Fix: choose smaller images."
            )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of what a cache keeps of each sample."""
        return (self.channels, *self.image_size)

    def row(self, index: int) -> tuple[Tensor, int]:
        """Returns what a cache keeps of a sample: its pixels and a number, such as its label."""
        drawn = self.draw(index, 0)
        return drawn if isinstance(drawn, tuple) else (drawn, 0)

    def from_row(self, pixels: Tensor, number: int) -> Any:
        """Returns the sample from which `row` made pixels and a number."""
        return (pixels, number) if self.class_names else pixels

    def from_rows(self, pixels: Tensor, numbers: Tensor) -> list[Any]:
        """Returns the batch of the samples from which `row` made pixels and numbers.

        Args:
            pixels: Pixels [batch, *row_shape].
            numbers: Numbers [batch], int64.
        """
        return [pixels, numbers] if self.class_names else [pixels]

    def describe(self) -> str:
        height, width = self.image_size
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(self.channels, f"{self.channels} channels")
        depth = "" if self.bits == 8 else f", {self.bits} bits"
        shape = f"{width} x {height} {colours}{depth}"
        return f"{counted(len(self), 'image')}, {shape}{self._classes()}"

    def version(self) -> str:
        """Returns a hash that changes whenever the images do; needed only if `worth_caching`."""
        raise NotImplementedError
