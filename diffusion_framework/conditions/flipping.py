"""Horizontal flips of images, together with all that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..spaces import DataSpace
from ..spaces.base import flipped
from .bound import Conditions


def flip_batch(
    space: DataSpace,
    conditions: Conditions,
    data: Tensor,
    condition: Mapping[str, Any],
    where: Tensor,
) -> tuple[Tensor, Mapping[str, Any]]:
    """Flips images, their conditions and their mask alike, or nothing if one cannot follow.

    Args:
        space: Data space of the model.
        conditions: Conditions of the model.
        data: Data in the user's units, [batch, ...].
        condition: Values of the conditions by name, and `mask`.
        where: True for flipped samples, [batch].
    """
    if data.ndim != 4 or not (space.flips and conditions.flips):
        return data, condition
    told, mask = conditions.flip(condition, where), condition.get("mask")
    if mask is not None and mask.ndim == data.ndim:  # else it does not tell columns apart
        told["mask"] = flipped(mask, where)
    return flipped(data, where), told
