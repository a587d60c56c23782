"""Checks the shapes of the inputs of networks of images. It takes microseconds, and compiles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..conditions.augmentation import AUGMENTATION_SIZE


@dataclass(frozen=True)
class ImageInputs:
    """Shapes that a network of images takes.

    Args:
        channels: Channels of the noised images.
        image_size: (height, width) of the images.
        num_classes: Number of classes, or None for a network without.
        image_channels: Channels of the images of a condition, or None.
        vector_dim: Size of a vector, or None.
        token_dim: Width of a token, or None.
        multiple: Number of which any other height and width may be a multiple; None for images of
            image_size alone.
    """

    channels: int
    image_size: tuple[int, int]
    num_classes: int | None = None
    image_channels: int | None = None
    vector_dim: int | None = None
    token_dim: int | None = None
    multiple: int | None = None

    def stacked(self, self_condition: bool) -> int:
        """Returns the number of channels of the images, the last estimate and the condition."""
        return self.channels * (2 if self_condition else 1) + (self.image_channels or 0)

    def check(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        labels: Tensor | None = None,
        image: Tensor | None = None,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        token_mask: Tensor | None = None,
        second_time: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> None:
        """Raises ValueError for an input of another shape; missing conditions are left out."""
        sizes, channels = tuple(x.shape[2:]), self.channels
        fits = sizes == self.image_size
        if self.multiple is not None and len(sizes) == 2:
            fits = min(sizes) > 0 and sizes[0] % self.multiple == sizes[1] % self.multiple == 0
        if x.ndim != 4 or x.shape[1] != channels or not fits:
            height, width = self.image_size
            more = "" if self.multiple is None else f", or multiples of {self.multiple}"
            raise _misfit("x", f"[batch, {channels}, {height}, {width}]{more}", x)
        batch = x.shape[0]
        check_shape("time", time, (batch,))
        check_shape("second_time", second_time, (batch,))
        check_shape("self_cond", self_cond, tuple(x.shape))
        check_shape("augmentation", augmentation, (batch, AUGMENTATION_SIZE))
        if self.num_classes is not None:
            check_shape("labels", labels, (batch,))
        if self.image_channels is not None:
            check_shape("image", image, (batch, self.image_channels, *sizes))
        if self.vector_dim is not None:
            check_shape("vector", vector, (batch, self.vector_dim))
        if self.token_dim is not None and tokens is not None:
            count = tokens.shape[1] if tokens.ndim == 3 else 0
            check_shape("tokens", tokens, (batch, count, self.token_dim))
            check_shape("token_mask", token_mask, (batch, count))


def check_shape(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises ValueError for anything but a tensor of this shape; None passes."""
    if value is not None and (not isinstance(value, Tensor) or tuple(value.shape) != shape):
        raise _misfit(name, f"[{', '.join(map(str, shape))}]", value)


def _misfit(name: str, wanted: str, value: object) -> ValueError:
    got = f"{value!r:.60}"
    if isinstance(value, Tensor):
        got = f"[{', '.join(map(str, value.shape))}]"
    return ValueError(
        f"Expected {name} of shape {wanted}, got {got}. Fix: bring {name} into this shape, or "
        "build the network for the other one."
    )
