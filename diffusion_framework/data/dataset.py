"""What every data set promises."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diffusion_framework.storage.config import RecordsArguments

Picture = UInt[Tensor, "channels height width"]


class TakesBatches(Protocol):
    """What gives whole batches, as `TrainingDataset.take` does."""

    def take(self, indices: np.ndarray) -> Any: ...


class TrainingDataset(RecordsArguments, Dataset[Any], ABC):
    """Samples of a fixed order: tensors, or pairs of a tensor and a dictionary of conditions (a label, a mask, ...).

    Attributes:
        folder: The folder that the samples lie in, if it is one.
        class_names: What label 0, 1, ... stands for; empty without labels, None
            where nothing is known of them.
        worth_caching: Whether drawing takes its time and gives the same in every epoch.
        shard_lengths: Number of samples in each shard, for samples whose neighbours are quicker to
            read than others: these are read shard by shard, and `prefetch` learns which come next.
    """

    folder: str | None = None
    class_names: Sequence[str] | None = None
    worth_caching: bool = False
    shard_lengths: np.ndarray | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def draw(self, index: int, epoch: int) -> Any:
        """Sample `index` as the `epoch`-th pass sees it: whatever is random in it is a function of
        (seed, index, epoch), never of a global generator, so a resumed run repeats it exactly.

        Raises IndexError unless 0 <= index < len(self).
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of which samples stand where: if it changed, sample `index` may be another one."""

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> Any:
        """Returns samples as one batch.

        Override it where many at once are quicker than one by one.

        Args:
            indices: Which samples, [batch] integers.
            epochs: The epoch of each, [batch] integers; None is 0 for all.

        Returns:
            Samples [batch, ...], or a list of them and what comes with them, collated likewise.
        """
        passes = np.zeros_like(indices) if epochs is None else epochs
        return default_collate([self.draw(int(i), int(e)) for i, e in zip(indices, passes, strict=True)])

    def prefetch(self, shards: Sequence[int]) -> None:
        """Learns which shards are read now and next; see `shard_lengths`."""

    def resident(self, device: torch.device) -> "TakesBatches | None":
        """Returns the samples where they need no loading, such as in memory; None while they are not all there.

        Args:
            device: Where batches go.
        """
        return None

    def __getitem__(self, index: int) -> Any:
        return self.draw(index, 0)

    def check_index(self, index: int) -> None:
        """Raises IndexError unless 0 <= index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")


class ImageDataset(TrainingDataset):
    """Images as contiguous tensors [channels, height, width]; with labels, pairs (image, label).

    Attributes:
        image_size: (height, width) of every image.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) of every image.
        bits: 8 for uint8 or 16 for uint16, the type of every image.
        class_names: what label 0, 1, ... stands for; empty without labels, None
            where nothing is known of them.
        worth_caching: whether drawing takes its time and gives the same in every epoch. There is a `version` then.
    """

    image_size: tuple[int, int]
    channels: int
    bits: int = 8
    class_names: list[str]

    def __init__(self, image_size: int | tuple[int, int], channels: int):
        """Raises ValueError for a size below 1 and for channels other than 1, 3 or 4."""
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.channels = channels
        self.class_names = []
        if min(self.image_size) < 1:
            raise ValueError(f"image_size must be at least 1; got {image_size}")
        if channels not in (1, 3, 4):
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA); got {channels}")

    @abstractmethod
    def draw(self, index: int, epoch: int) -> Picture | tuple[Picture, int]: ...

    def version(self) -> str:
        """A hash that changes whenever what `draw` gives does; asked of images that are worth caching."""
        raise NotImplementedError
