"""`Observations`, a conditioner for a policy's streams of vectors and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces import ImageSpace, Normalizer
from ..spaces.base import at_least_float32
from .base import Conditioner, Keywords, as_tensor, checked_samples, trained_none
from .image_features import center_crop, channels_first, image_network, random_crop


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
        images: Number of channels of each image stream, by name. Images are uint8 or uint16, or
            floats in [0, 1].
        steps: Number of consecutive observations, the newest last.
        normalizer: Normaliser of vector streams; None for `Normalizer()`, which maps their limits
            to [-1, 1].
        backbone: Residual network of torchvision for images, untrained and with group norm in place
            of batch norm.
        keypoints: Number of spatial-softmax keypoints per image, each with two coordinates.
        ranges: Smallest and largest value of image streams with other units, by name, such as
            {"depth": [0, 4000]} for millimetres.
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
        ranges: dict[str, tuple[float, float]] | None = None,
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
        self.spaces = _image_spaces(self.images, ranges or {})
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
        streams = self.checked(value)
        networks = dict(zip(sorted(self.images), self.networks, strict=True))
        parts = [
            self._encode_images(networks[name], self.spaces[name], streams[name])
            if name in networks
            else self.normalizer.normalize(name, streams[name])
            for name in self.names
        ]
        return {self.keywords[0]: torch.cat(parts, dim=2)}

    def none(self, batch: int) -> Keywords:
        return {self.keywords[0]: trained_none(self.nothing).expand(batch, self.steps, -1)}

    @property
    def needs_fit(self) -> bool:
        return self.normalizer.needs_fit

    def observe(self, value: Any) -> None:
        streams = self.checked(value, fitted=False)
        self.normalizer.observe({name: streams[name].flatten(0, 1) for name in self.streams})

    def finish(self) -> None:
        self.normalizer.finish()

    def newest(self, observation: Mapping[str, Any]) -> tuple[dict[str, Tensor], bool]:
        """Returns one observation of one or several environments as streams on the device.

        Args:
            observation: Newest value of each stream, [...] or [environments, ...]. Channels of
                images may come last. Other streams are ignored.

        Returns:
            Streams [environments, ...], and whether they came from a single environment.

        Raises:
            ValueError: If a stream is missing, or has another shape or range.
        """
        if missing := [name for name in self.names if name not in observation]:
            raise ValueError(
                f"Expected observations {self.names}, got none for {missing}. "
                "Fix: pass these streams by name."
            )
        streams = {name: self._newest(name, observation[name]) for name in self.names}
        single = all(v.ndim == (3 if name in self.images else 1) for name, v in streams.items())
        streams = {name: v[None] if single else v for name, v in streams.items()}
        _check_lengths(streams, "environments")
        for name in self.images:
            self._check_range(name, streams[name].cpu())  # acting reads its result anyway
        return streams, single

    def _newest(self, name: str, value: Any) -> Tensor:
        """Returns the newest value of a stream, with or without environments, as a tensor."""
        values = as_tensor(value, self.device, f"numbers in {name!r}")
        size, dims, rest = self.streams.get(name), 1, ""
        if name in self.images:
            size, dims, rest = self.images[name], 3, ", height, width"
            values = channels_first(values, size)
        if values.ndim not in (dims, dims + 1) or values.shape[-dims] != size:
            raise ValueError(
                f"Expected {name!r} [{size}{rest}] or [environments, {size}{rest}], got "
                f"{[*values.shape]}. Fix: pass the newest observation alone."
            )
        # Numbers may be whole by chance; images keep the dtype that tells their range.
        is_whole_image = name in self.images and not values.is_floating_point()
        return values if is_whole_image else at_least_float32(values)

    def _check_range(self, name: str, images: Tensor) -> None:
        """Raises ValueError for images [batch, ...] on the CPU that are out of range."""
        known = self.spaces[name].value_range
        is_free = known is None and not images.is_floating_point()  # integers fill their range
        if is_free or images.device.type != "cpu":
            return
        low, high = known or (0.0, 1.0)
        values, slack = at_least_float32(images), 1e-4 * (high - low)
        checked_samples(
            values,
            (values >= low - slack) & (values <= high + slack),
            f"{name!r} in [{low:g}, {high:g}]",
            "pass 8-bit frames as uint8 or divide them by 255; for other units, set "
            f"ranges={{{name!r}: (lowest, highest)}} of Observations",
        )

    def checked(self, value: Any, fitted: bool = True) -> dict[str, Tensor]:
        """Returns the known streams as tensors on the device; raises the errors of `encode`.

        Args:
            value: Streams by name.
            fitted: Whether statistics must be known.
        """
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
            if name in self.images:
                self._check_range(name, values)
            if name in self.streams:
                checked_samples(
                    values,
                    torch.isfinite(values),
                    f"finite numbers in {name!r}",
                    "clean the data, or repair the sensor",
                )
        _check_lengths(streams, "samples")
        if fitted and self.device.type == "cpu" and self.needs_fit:
            raise ValueError(
                "Expected statistics of the observations, got none yet. "
                "Fix: train the policy, call fit(batches) first, or load a checkpoint."
            )
        return streams

    def _encode_images(self, network: nn.Module, space: ImageSpace, images: Tensor) -> Tensor:
        batch, steps = images.shape[:2]
        x = space.encode(images.flatten(0, 1), {})
        if self.crop is not None:
            # All images of a sample share a crop. Like nn.Dropout, it uses the default generator.
            x = (
                random_crop(x, self.crop, repeat=steps)
                if self.training
                else center_crop(x, self.crop)
            )
        dtype = next(network.parameters()).dtype
        return network(x.to(dtype)).reshape(batch, steps, -1)


def _image_spaces(
    images: Mapping[str, int], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, ImageSpace]:
    """Returns the space of each image stream.

    Raises:
        ValueError: If a range is given for another stream, or does not rise.
    """
    if unknown := sorted(set(ranges) - set(images)):
        raise ValueError(
            f"Expected ranges of image streams {sorted(images)}, got {unknown}. "
            "Fix: name a stream of images."
        )
    return {name: ImageSpace(ranges.get(name)) for name in images}


def _check_lengths(streams: Mapping[str, Tensor], what: str) -> None:
    """Raises ValueError unless all streams have the same first dimension."""
    if len({len(values) for values in streams.values()}) > 1:
        counts = ", ".join(f"{name} {[*values.shape]}" for name, values in streams.items())
        raise ValueError(
            f"Expected the same number of {what} in all streams, got {counts}. "
            "Fix: pass one observation of each stream for each of them."
        )
