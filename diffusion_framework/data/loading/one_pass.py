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
    """Yields batches of all samples in their order, with conditions by name.

    Args:
        dataset: Dataset to read.
        batch_size: Number of samples of a batch; the last one may have fewer.
        device: Device for the batches.
    """
    for first in range(0, len(dataset), batch_size):
        indices = np.arange(first, min(first + batch_size, len(dataset)))
        yield to_device(dataset.take(indices), device)
