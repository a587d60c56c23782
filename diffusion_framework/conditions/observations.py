"""`Observations`, a conditioner for a policy's streams of vectors and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces import ImageSpace, Normalizer
from .base import Conditioner, Keywords, as_tensor, checked_samples, trained_none
from .image_features import center_crop, image_network, random_crop


@final
class Observations(Conditioner):
    """Conditioner for the latest observations, as streams of vectors and images.

    Vectors are normalised, and each image stream has a residual network of its own. The features of
    all streams are concatenated in the order of their names:

        value     {"state": [batch, steps, size],
                   "camera": [batch, steps, channels, height, width]}
        context   [batch, steps, features]

    Streams with other names are ignored. "None" is a learned vector.

    Args:
        streams: Size of the vectors of each vector stream, by name.
        images: Number of channels of each image stream, by name. Images are uint8, or floats in
            [0, 1].
        steps: Number of consecutive observations, the newest last.
        normalizer: Normaliser of vector streams; None for `Normalizer()`, which maps their limits
            to [-1, 1].
        backbone: Residual network of torchvision for images, untrained and with group norm in place
            of batch norm.
        keypoints: Number of spatial-softmax keypoints per image, each with two coordinates.
        crop: Side in pixels of the square crop of each image, random in training and central
            otherwise; None for whole images.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the context.

    Raises:
        ValueError: If no stream is given, a name is given twice, or an option is out of range.
    """

    def __init__(
        self,
        streams: dict[str, int] | None = None,
        images: dict[str, int] | None = None,
        *,
        steps: int = 2,
        normalizer: Normalizer | None = None,
        backbone: str = "resnet18",
        keypoints: int = 32,
        crop: int | None = None,
        dropout: float = 0.0,
        keyword: str = "context",
    ) -> None:
        super().__init__((keyword,), dropout)
        self.streams, self.images, self.steps, self.crop = (
            dict(streams or {}),
            dict(images or {}),
            steps,
            crop,
        )
        self.names = sorted([*self.streams, *self.images])
        if steps < 1 or not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"Expected at least 1 step and streams of different names, got steps={steps} and "
                f"{self.names}. Fix: name each stream once, in streams or in images."
            )
        self.normalizer = normalizer if normalizer is not None else Normalizer()
        self.normalizer.build({name: (numbers,) for name, numbers in self.streams.items()})
        networks = [image_network(c, backbone, keypoints) for _, c in sorted(self.images.items())]
        self.networks = nn.ModuleList(networks)
        self.numbers = 2 * keypoints * len(self.images) + sum(
            numbers + len(self.normalizer.angles.get(name, []))
            for name, numbers in self.streams.items()
        )
        self.nothing = nn.Parameter(torch.zeros(self.numbers)) if dropout else None

    def encode(self, value: Any) -> Keywords:
        """Encodes unnormalised streams to the context [batch, steps, features].

        Raises:
            ValueError: If a stream is missing, or has another shape or range. On the CPU, also if a
                value is NaN or infinite, or the statistics are not fitted.
        """
        streams = self._checked(value)
        networks = dict(zip(sorted(self.images), self.networks, strict=True))
        parts = [
            self._encode_images(networks[name], streams[name])
            if name in networks
            else self.normalizer.normalize(name, streams[name])
            for name in self.names
        ]
        return {self.keywords[0]: torch.cat(parts, dim=2)}

    def none(self, like: Keywords) -> Keywords:
        nothing = trained_none(self.nothing)
        return {
            keyword: nothing.to(context).expand_as(context) for keyword, context in like.items()
        }

    @property
    def needs_fit(self) -> bool:
        return self.normalizer.needs_fit

    def observe(self, value: Any) -> None:
        streams = self._checked(value, fitted=False)
        self.normalizer.observe({name: streams[name].flatten(0, 1) for name in self.streams})

    def finish(self) -> None:
        self.normalizer.finish()

    def count(self, value: Any) -> int:
        """Returns the batch size of a value, after the checks of `encode`."""
        return len(self._checked(value)[self.names[0]])

    def _checked(self, value: Any, fitted: bool = True) -> dict[str, Tensor]:
        """Checks the streams and moves them to the device as tensors."""
        given = sorted(value) if isinstance(value, Mapping) else [type(value).__name__]
        if not isinstance(value, Mapping) or not set(self.names) <= set(given):
            raise ValueError(
                f"Expected observations {self.names}, got {given}. Fix: pass these streams by name."
            )
        streams = {
            name: as_tensor(value[name], self.device, f"numbers in {name!r}") for name in self.names
        }
        for name, values in streams.items():
            size = self.streams.get(name, self.images.get(name))
            dims = 3 if name in self.streams else 5
            if values.ndim != dims or values.shape[1] != self.steps or values.shape[2] != size:
                rest = ", height, width" if name in self.images else ""
                raise ValueError(
                    f"Expected {name!r} [batch, {self.steps}, {size}{rest}], got "
                    f"{[*values.shape]}. Fix: pass the latest observations, the newest last."
                )
            if name in self.streams:
                checked_samples(
                    values,
                    torch.isfinite(values),
                    f"finite numbers in {name!r}",
                    "clean the data, or repair the sensor",
                )
        if fitted and self.device.type == "cpu" and self.needs_fit:
            raise ValueError(
                "Expected statistics of the observations, got none yet. "
                "Fix: train the policy, call fit(batches) first, or load a checkpoint."
            )
        return streams

    def _encode_images(self, network: nn.Module, images: Tensor) -> Tensor:
        batch, steps = images.shape[:2]
        x = ImageSpace().encode(images.flatten(0, 1), {})
        if self.crop is not None:
            # All images of a sample share a crop. Like nn.Dropout, it uses the default generator.
            x = (
                random_crop(x, self.crop, repeat=steps)
                if self.training
                else center_crop(x, self.crop)
            )
        dtype = next(network.parameters()).dtype
        return network(x.to(dtype)).reshape(batch, steps, -1)
