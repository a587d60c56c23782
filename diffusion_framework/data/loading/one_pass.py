"""One pass through a dataset, for statistics of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from .loader import to_device


def one_pass(dataset: Any, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Batches of all samples in their order, none flipped, with what came with them by name.

    Args:
        dataset: Has a length, and gives samples by their index or, with `take`, many at once.
        batch_size: Number of samples of a batch; the last one may have fewer.
        device: Where batches are put.
    """
    take = getattr(dataset, "take", None)
    for first in range(0, len(dataset), batch_size):
        indices = np.arange(first, min(first + batch_size, len(dataset)))
        batch = take(indices) if take else default_collate([dataset[int(i)] for i in indices])
        yield to_device(batch, device, flip=None)
