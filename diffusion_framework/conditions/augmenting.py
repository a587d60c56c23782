"""Augmentation of training images, together with all that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..spaces import DataSpace
from .base import Conditioner
from .bound import BoundConditions, Conditions
from .warp import Warp


def check_augmentation(space: DataSpace, conditions: Mapping[str, Conditioner]) -> None:
    """Raises ValueError if a condition augments data that are not images.

    Args:
        space: Data space of the model.
        conditions: Conditioners of the model by name.
    """
    augments = any(conditioner.augments for conditioner in conditions.values())
    if augments and (space.prepares or not space.flips):
        raise ValueError(
            f"Expected images in ImageSpace for augmentation, got {type(space).__name__}. "
            "Fix: build the network without (augmentation=False), or use ImageSpace."
        )


def bind_batch(
    conditions: Conditions,
    condition: Mapping[str, Any],
    x0: Tensor,
    mask: Tensor | None,
    *,
    training: bool,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | None, BoundConditions]:
    """Binds the conditions of encoded data; in training, with dropout and augmentation.

    Args:
        conditions: Conditions of the model.
        condition: Values of the conditions by name.
        x0: Encoded data, [batch, ...].
        mask: Mask over its leading dimensions, or None.
        training: Whether conditions are dropped, and images are augmented.
        generator: Source of randomness; None for PyTorch's default generator.

    Returns:
        Data, mask and conditions, which are transformed alike.

    Raises:
        ValueError: If a value is missing or does not fit, or that of an augmentation is given.
    """
    warp = _drawn(conditions, condition, x0, generator) if training else None
    if warp is not None:
        mask = None if mask is None else warp.mask(mask, tuple(x0.shape[2:]))
        x0 = warp(x0)
    how: Any = {"drop": training, "generator": generator, "warp": warp}
    return x0, mask, conditions.bind(condition, len(x0), **how)


def _drawn(
    conditions: Conditions,
    condition: Mapping[str, Any],
    x0: Tensor,
    generator: torch.Generator | None,
) -> Warp | None:
    """Returns random transformations of a batch; None if no condition augments it."""
    for name in (name for name in conditions if conditions[name].augments):
        if condition.get(name) is not None:
            raise ValueError(
                f"Expected no value of {name} in training, which draws it, got one. "
                "Fix: leave it out."
            )
        return conditions[name].draw(len(x0), x0.device, generator)
    return None
