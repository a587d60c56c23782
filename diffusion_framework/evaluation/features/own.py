"""Features of a small network that is trained on the images themselves."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ...data import ImageDataset
from ...data.loading.cache import cache_folder
from ...progress import progress
from ...storage.replacing import replacing
from .base import FeatureExtractor, FeatureNetwork, read_images, spread
from .onnx import resized

_WIDTHS = (24, 48, 96, 128)  # channels at each resolution; the last is the number of features
_BATCH = 64
_TEMPERATURE = 0.2  # of the loss on instances
_VERSION = 1  # to be raised with each change of the network or its training


class OwnNetwork(FeatureNetwork):
    """Small convolutional network; its features are the means of its last layer's channels.

    Args:
        channels: Channels of the images.
        size: (height, width) that images are resized to.
        outputs: Number of classes of the last layer, such as 4 rotations.
        class_names: Names of these classes; empty if they are rotations.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], outputs: int, class_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.size, self.class_names = size, class_names
        layers: list[nn.Module] = []
        for stage, width in enumerate(_WIDTHS):
            before = _WIDTHS[stage - 1] if stage else channels
            stride = 2 if stage else max(1, round(max(size) / 16))  # first to 16 pixels
            layers += [nn.Conv2d(before, width, 2 * stride + 1, stride, padding=stride)]
            layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
            layers += [nn.GroupNorm(8, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(_WIDTHS[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(resized(images, self.size))

    def embed(self, values: Tensor) -> Tensor:
        """Returns features [batch, 128] of floats in [0, 1]."""
        return self.layers(2 * values - 1).mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        return self.head(features.to(self.head.weight)).argmax(1).cpu()


@dataclass(frozen=True)
class Own(FeatureExtractor):
    """Features of a small network that is trained on the images themselves, without downloads.

    It learns to tell the labels apart, or rotations without labels, and to recognise each image.
    The training runs on the CPU with fixed seeds, and its result is kept in the cache folder.

    Args:
        steps: Number of training steps of 64 images.
        size: Largest side in pixels; larger images are resized to it.
        images: Largest number of training images, evenly spread.
    """

    steps: int = 1000
    size: int = 64
    images: int = 50_000
    comparable: ClassVar[str] = "comparable only among figures in features of the same images"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 16 if name == "size" else 1
            if value < least:
                raise ValueError(
                    f"Expected {name} of at least {least}, got {value}. Fix: choose a larger one."
                )

    @property
    def name(self) -> str:
        return "own"

    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        if images is None:
            raise ValueError(
                "--features: expected images to train features on, got a reference file alone. "
                "Fix: choose inception, or add --training_data.folder PATH."
            )
        path = cache_folder() / "features" / f"{self._key(images)}.safetensors"
        network = self._new(images)
        if not _load(network, path):
            _train(network, *self._read(images, network.size), self.steps, show_progress)
            _save(network, path)
        return network.to(device).eval()

    def _key(self, images: ImageDataset) -> str:
        """Returns a hash of all that the network depends on."""
        version = images.version() if images.worth_caching else ""
        parts = [_VERSION, asdict(self), images.fingerprint(), version, images.image_size]
        parts += [images.channels, list(images.class_names), torch.__version__]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _new(self, images: ImageDataset) -> OwnNetwork:
        height, width = images.image_size
        scale = min(1.0, self.size / max(height, width))
        size = (max(8, round(height * scale)), max(8, round(width * scale)))
        names = tuple(images.class_names) if len(images.class_names) > 1 else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return OwnNetwork(images.channels, size, len(names) or 4, names)

    def _read(self, images: ImageDataset, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Returns uint8 images [n, channels, height, width] of a size, and labels [n]."""
        chosen = spread(len(images), self.images)
        small, labels = [], []
        for part in np.array_split(chosen, -(-len(chosen) // 256)):
            values, label = read_images(images, part)
            small.append((resized(values, size) * 255).round().to(torch.uint8))
            labels += [] if label is None else [label]
        return torch.cat(small), torch.cat(labels) if labels else None


def _train(
    network: OwnNetwork, images: Tensor, labels: Tensor | None, steps: int, show_progress: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)
    for _ in progress(range(steps), steps, "training features", shown=show_progress):
        chosen = torch.randint(len(images), (_BATCH,), generator=generator)
        batch = images[chosen].float() / 255
        loss = _loss(network, batch, None if labels is None else labels[chosen], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _loss(
    network: OwnNetwork, images: Tensor, labels: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Returns the loss on classes and instances of images in [0, 1].

    Classes are the labels or, without labels, rotations (Gidaris et al. 2018). The network also
    tells which of two views show the same image (Chen et al. 2020).
    """
    views = [_augment(images, generator) for _ in range(2)]
    if not network.class_names or labels is None:
        labels = torch.randint(4, (len(images),), generator=generator)
        square = min(images.shape[2:])
        views = [_turned(view[:, :, :square, :square], labels) for view in views]
    features = network.embed(torch.cat(views))
    classes = F.cross_entropy(network.head(features), labels.repeat(2))
    first, second = F.normalize(features - features.mean(0), dim=1).chunk(2)
    scores, own = first @ second.T / _TEMPERATURE, torch.arange(len(images))
    return classes + (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """Returns square images, each rotated by a number of quarter turns."""
    return torch.stack([im.rot90(int(k), (1, 2)) for im, k in zip(images, turns, strict=True)])


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns images in [0, 1] with random scale, shift, brightness and contrast."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *shape, generator=generator)

    matrix = torch.zeros(len(images), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = uniform(0.8, 1.2)
    matrix[:, :, 2] = uniform(-0.2, 0.2, 2)
    places = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
    contrast, brightness = uniform(0.8, 1.2, 1, 1, 1), uniform(-0.1, 0.1, 1, 1, 1)
    return (moved * contrast + brightness).clamp(0, 1)


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save(dict(sorted(tensors.items())))).hexdigest()


def _save(network: OwnNetwork, path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as file:
        file.write(_digest(tensors).encode() + save(tensors))


def _load(network: OwnNetwork, path: Path) -> bool:
    """Loads cached weights; returns False if there are none, or damaged ones."""
    try:
        content = path.read_bytes()
        tensors = load(content[64:])
        if _digest(tensors).encode() != content[:64]:
            return False
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError):
        return False
    return True
