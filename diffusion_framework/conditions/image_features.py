"""Image features from a residual network with a spatial softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Spatial softmax, which maps feature maps to keypoints (Finn et al. 2016).

    A 1 x 1 convolution makes one channel per keypoint. The softmax of a channel is a distribution
    over positions, whose mean is the keypoint. Maps [batch, channels, height, width] become
    coordinates [batch, 2 keypoints] in [-1, 1].

    Args:
        channels: Number of input channels.
        keypoints: Number of keypoints.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        height, width = x.shape[-2:]
        if height * width == 1:
            raise ValueError(
                "Expected feature maps of more than one cell, got one. "
                "Fix: use larger images or a larger crop."
            )
        share = x.flatten(2).softmax(dim=2).unflatten(2, (height, width))
        across = (share.sum(2) * torch.linspace(-1, 1, width, device=x.device)).sum(2)
        down = (share.sum(3) * torch.linspace(-1, 1, height, device=x.device)).sum(2)
        return torch.stack([across, down], dim=2).flatten(1)


def channels_first(images: Tensor, channels: int) -> Tensor:
    """Returns images [..., channels, height, width], whose channels may have been last."""
    if images.ndim < 3 or images.shape[-3] == channels or images.shape[-1] != channels:
        return images
    return images.movedim(-1, -3)


def random_crop(images: Tensor, size: int, repeat: int = 1) -> Tensor:
    """Crops each image to a square at a random position.

    Args:
        images: Images, [batch, channels, height, width].
        size: Side of the square in pixels.
        repeat: Number of consecutive images that share a position.

    Returns:
        Crops, [batch, channels, size, size].
    """
    height, width = _check_crop(images, size)
    groups = len(images) // repeat
    pixels = torch.arange(size, device=images.device)
    top, left = (
        torch.randint(0, side - size + 1, (groups, 1), device=images.device).repeat_interleave(
            repeat, 0
        )
        + pixels
        for side in (height, width)
    )
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[index, top[:, :, None], left[:, None, :]].movedim(3, 1)


def center_crop(images: Tensor, size: int) -> Tensor:
    """Crops each image to its central square, [batch, channels, size, size]."""
    height, width = _check_crop(images, size)
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def _check_crop(images: Tensor, size: int) -> tuple[int, int]:
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"Expected crop in [1, {min(height, width)}], the shorter side of the images, got "
            f"{size}. Fix: lower crop, or use larger images."
        )
    return height, width


def image_network(channels: int, backbone: str, keypoints: int) -> nn.Module:
    """Builds a residual network of torchvision with group norm and a spatial softmax.

    Args:
        channels: Number of image channels.
        backbone: Name of the network, such as 'resnet18'.
        keypoints: Number of keypoints; the network returns [batch, 2 keypoints].

    Raises:
        ValueError: If backbone is not a residual network of torchvision.
    """
    import torchvision.models  # slow to import and needed for images only

    if backbone not in torchvision.models.list_models(include="resnet*"):
        raise ValueError(
            f"Expected backbone to be a residual network of torchvision, got {backbone!r}. "
            "Fix: set backbone='resnet18'."
        )

    def norm(dim: int) -> nn.GroupNorm:
        return nn.GroupNorm(max(1, dim // 16), dim)

    network = torchvision.models.get_model(backbone, weights=None, norm_layer=norm)
    stem = network.conv1
    network.conv1 = nn.Conv2d(channels, stem.out_channels, 7, stride=2, padding=3, bias=False)
    width = network.fc.in_features
    body = list(network.children())[:-2]  # without the pooling and the classifier
    return nn.Sequential(*body, SpatialSoftmax(width, keypoints))
