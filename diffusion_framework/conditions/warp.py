"""`Warp`, geometric transformations of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@final
@dataclass(frozen=True, eq=False)
class Warp:
    """Linear transformations about the centre of images, then shifts, one for each image.

    Pixels outside of an image are its reflection.

    Attributes:
        numbers: Description of each transformation for the network, [batch, n]; 0 for none.
        inverse: Matrices [batch, 2, 2] from transformed (x, y) to those before, in pixels.
        shift: Shifts (x, y) as a share of width and height, [batch, 2].
    """

    numbers: Tensor
    inverse: Tensor
    shift: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Returns transformed images [batch, channels, height, width]; others are unchanged."""
        places = self._places(*images.shape[2:]).to(images.dtype)
        warped = grid_sample(images, places, padding_mode="reflection", align_corners=False)
        moved = (self.numbers != 0).any(dim=1)
        return torch.where(moved[:, None, None, None], warped, images)

    def mask(self, mask: Tensor, size: tuple[int, ...]) -> Tensor:
        """Returns the loss mask of transformed images, in which only pixels of True ones count.

        Args:
            mask: Boolean mask [batch, ...] over leading dimensions of the images.
            size: Height and width of the images.
        """
        if mask.ndim < 3:  # without rows
            return mask
        whole = mask.reshape(*mask.shape, *(1,) * (4 - mask.ndim))
        whole = whole.expand(*whole.shape[:2], *size)
        return self(whole.float()) > 0.999

    def _places(self, height: int, width: int) -> Tensor:
        """Returns the place that each pixel comes from, [batch, height, width, 2].

        Matrix products are written out, since autocast would round them to half precision.
        """
        shift_x, shift_y = (part[:, None, None] for part in self.shift.unbind(dim=1))
        options: Any = {"device": self.shift.device, "dtype": self.shift.dtype}
        x = torch.arange(width, **options) - (width - 1) / 2 - width * shift_x
        y = torch.arange(height, **options)[:, None] - (height - 1) / 2 - height * shift_y
        (xx, xy), (yx, yy) = (
            [entry[:, None, None] for entry in row.unbind(dim=1)]
            for row in self.inverse.unbind(dim=1)
        )
        before = (xx * x + xy * y) * (2 / width), (yx * x + yy * y) * (2 / height)
        return torch.stack(before, dim=-1)


def rotation(angle: Tensor) -> Tensor:
    """Returns matrices [batch, 2, 2] that rotate (x, y) clockwise, as y points down.

    Args:
        angle: Angles in radians, [batch].
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).unflatten(1, (2, 2))


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Returns diagonal matrices [batch, 2, 2] of factors [batch]."""
    return torch.stack([x, y], dim=1)[:, :, None] * torch.eye(2, device=x.device, dtype=x.dtype)


def product(*matrices: Tensor) -> Tensor:
    """Returns the products of matrices [batch, 2, 2]; see `Warp` on autocast."""
    result = matrices[0]
    for other in matrices[1:]:
        result = (result[:, :, :, None] * other[:, None]).sum(dim=2)
    return result
