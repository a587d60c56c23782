"""What every data set promises."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import UInt
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_framework.storage.config import RecordsArguments

Picture = UInt[Tensor, "channels height width"]


class TrainingDataset(RecordsArguments, Dataset[Any], ABC):
    """Samples of a fixed order: tensors, or pairs of a tensor and a dictionary of conditions (a label, a mask, ...)."""

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
        class_names: what label 0, 1, ... stands for; empty without labels.
        worth_caching: whether drawing takes its time and gives the same in every epoch. There is a `version` then.
    """

    image_size: tuple[int, int]
    channels: int
    bits: int = 8
    class_names: list[str]
    worth_caching: bool = False

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
