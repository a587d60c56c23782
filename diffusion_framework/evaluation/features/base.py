"""Base classes of feature extractors."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ...data import ImageDataset
from ...data.loading.loader import to_device
from ...progress import progress

ImageBatch = UInt8[Tensor, "batch channels height width"]


class FeatureNetwork(nn.Module, ABC):
    """Network that maps images to features.

    Attributes:
        class_names: Names of the classes that `classify` tells apart; empty if it does not.
    """

    class_names: Sequence[str] = ()

    @abstractmethod
    def forward(self, images: ImageBatch) -> Float[Tensor, "batch features"]:
        """Returns features [batch, features] of uint8 images [batch, channels, height, width]."""

    def classify(self, features: Float[Tensor, "batch features"]) -> Int[Tensor, " batch"]:
        """Returns the class of each image, on the CPU; only for a network with `class_names`."""
        raise NotImplementedError


class FeatureExtractor(ABC):
    """Source of a network for features.

    Attributes:
        comparable: Figures that those in these features may be compared with.
    """

    comparable: ClassVar[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the features for tables and files."""

    @abstractmethod
    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        """Returns the network on a device, in evaluation mode.

        Args:
            images: Images that features of one's own are trained on; others need none.
            device: Device of the network.
            show_progress: Whether to show a progress bar.

        Raises:
            ValueError: If the network, its weights or a package is missing.
        """


def spread(length: int, count: int | None) -> np.ndarray:
    """Returns at most `count` indices, evenly spread over range(length); None means all."""
    count = length if count is None else min(count, length)
    return np.unique(np.linspace(0, length - 1, count).round().astype(int))


def read_images(
    images: ImageDataset, indices: Sequence[int] | np.ndarray
) -> tuple[Tensor, Tensor | None]:
    """Returns images [n, channels, height, width] as uint8, and labels [n] if there are any.

    Raises:
        ValueError: If the images have more than 8 bits.
    """
    if images.bits != 8:
        raise ValueError(
            f"--data.bits: expected 8 bits, got {images.bits}. Fix: set --data.bits 8."
        )
    data, told = to_device(images.take(np.asarray(indices)), torch.device("cpu"))
    return data, told.get("labels")


def features_of(
    network: FeatureNetwork,
    batches: Iterator[Tensor],
    *,
    total: int | None = None,
    show_progress: bool = True,
) -> Tensor:
    """Returns features [n, features] of batches of uint8 images, on the CPU.

    Args:
        network: Network of the features.
        batches: Batches of uint8 images [batch, channels, height, width].
        total: Number of batches, for the progress bar.
        show_progress: Whether to show a progress bar.
    """
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    found = []
    with torch.inference_mode():
        for batch in progress(batches, total, "features", shown=show_progress, unit="batch"):
            found.append(network(batch.to(device)).cpu())
    return torch.cat(found).clone()


def to_rgb(images: Tensor) -> Tensor:
    """Returns uint8 RGB images; grey is repeated, and transparent pixels get a white background.

    Args:
        images: uint8 images [batch, channels, height, width] with 1, 3 or 4 channels.

    Raises:
        ValueError: If they have another number of channels.
    """
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == 4:
        opacity = images[:, 3:].float() / 255
        return (images[:, :3] * opacity + 255 * (1 - opacity)).round().to(torch.uint8)
    if channels != 3:
        raise ValueError(
            f"Expected images with 1, 3 or 4 channels, got {channels}. Fix: use --features own."
        )
    return images


def missing_weights(what: str, cause: Exception) -> ValueError:
    """Returns the error of weights that cannot be downloaded."""
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return ValueError(
        f"Expected weights of {what} to download, got {reason:.200}. "
        f"Fix: connect to the internet once, or choose --features own."
    )


def local_file(path: str | os.PathLike[str], flag: str) -> str:
    """Returns the path of an existing file.

    Raises:
        ValueError: If there is none.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{flag}: expected an existing file, got {path}. Fix: correct the path.")
    return os.fspath(path)
