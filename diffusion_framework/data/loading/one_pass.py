"""One pass through a dataset, for statistics of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dataset import TrainingDataset
from .loader import to_device


def one_pass(
    dataset: TrainingDataset, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Batches of all samples in their order, none flipped, with what came with them by name.

    Args:
        dataset: The samples.
        batch_size: Number of samples of a batch; the last one may have fewer.
        device: Where batches are put.
    """
    for first in range(0, len(dataset), batch_size):
        indices = np.arange(first, min(first + batch_size, len(dataset)))
        yield to_device(dataset.take(indices), device, flip=None)
