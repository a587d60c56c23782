"""Conditions of real images, under which a model is asked for samples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import ImageDataset
from ...data.loading.loader import to_device

_BATCH = 64


def conditions_of(images: ImageDataset, count: int, names: Collection[str]) -> dict[str, Any]:
    """Returns conditions of images that are spread evenly over a dataset.

    Args:
        images: Dataset.
        count: Number of values; images are repeated if there are fewer.
        names: Names of the conditions; those that the dataset does not have are left out.

    Returns:
        Values by name, [count, ...] or lists.
    """
    chosen = np.arange(count) * len(images) // count
    found: dict[str, list[Any]] = {}
    for first in range(0, count, _BATCH):
        batch = images.take(chosen[first : first + _BATCH])
        _, told = to_device(batch, torch.device("cpu"))
        for name in told.keys() & set(names):
            found.setdefault(name, []).append(told[name])
    return {name: _joined(parts) for name, parts in found.items()}


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return [value for part in parts for value in part]
