"""One pass through a whole dataset, for its statistics."""

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
    """Yields all samples in order, in batches with a dictionary of conditions.

    Args:
        dataset: Dataset to read.
        batch_size: Samples of a batch; the last batch may have fewer.
        device: Device for the batches.
    """
    for first in range(0, len(dataset), batch_size):
        indices = np.arange(first, min(first + batch_size, len(dataset)))
        yield to_device(dataset.take(indices), device)
