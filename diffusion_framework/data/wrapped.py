"""Conversion of other data to a `TrainingDataset`."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, final

import numpy as np
from torch import Tensor

from diffusion_framework.data.dataset import TrainingDataset

_SAMPLES = "a tensor or array, alone or in a pair with a label or a dictionary of conditions"


def as_dataset(data: Any) -> TrainingDataset:
    """Returns the data as a `TrainingDataset`.

    Args:
        data: A `TrainingDataset`, or samples with a length and an index: a tensor or array
            [samples, ...], a list, or a PyTorch dataset. A sample is a tensor or an array, or a
            pair (sample, condition) with a label or a dictionary of conditions.

    Raises:
        ValueError: data of another kind, or without samples.
    """
    if isinstance(data, TrainingDataset):
        return data
    name = type(data).__name__
    getitem = getattr(data, "__getitem__", None)
    if not isinstance(data, Sized) or getitem is None:
        raise ValueError(
            f"Expected data with a length and an index, got {name}. "
            "Fix: give a list of samples, or derive a dataset from TrainingDataset."
        )
    if not len(data):
        raise ValueError(
            f"Expected at least 1 sample, got an empty {name}. Fix: give data with samples."
        )
    try:
        first = getitem(0)
    except (KeyError, TypeError):
        raise ValueError(
            f"Expected samples indexed from 0, got {name}. Fix: give a list of the samples."
        ) from None
    sample, *rest = first if isinstance(first, list | tuple) and first else (first,)
    condition = rest[0] if rest else {}
    fits = isinstance(sample, Tensor | np.ndarray) and len(rest) <= 1
    if not fits or not isinstance(condition, Mapping | int | np.ndarray | np.integer | Tensor):
        raise ValueError(
            f"Expected each sample as {_SAMPLES}, got {_describe(first)} from {name}. "
            "Fix: give a list of such samples, or derive a dataset from TrainingDataset."
        )
    return WrappedDataset(data)


def _describe(sample: Any) -> str:
    """Returns the type of a sample in at most 80 characters."""
    if isinstance(sample, Mapping):
        return f"a dictionary of {', '.join(map(str, sample))}"[:80]
    if isinstance(sample, Sequence) and not isinstance(sample, str):
        items = ", ".join(type(item).__name__ for item in sample)
        return f"{type(sample).__name__} of {items}"[:80]
    return type(sample).__name__


@final
class WrappedDataset(TrainingDataset):
    """Wrapper of another kind of dataset, the same in every epoch; made by `as_dataset`.

    Args:
        data: Samples, indexed from 0.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self._init_args = {"data": type(data)}  # a config names only the class of the data

    def __repr__(self) -> str:
        return type(self.data).__name__

    def __len__(self) -> int:
        return len(self.data)

    def draw(self, index: int, epoch: int) -> Any:
        return self.data[index]

    def fingerprint(self) -> str:
        """Returns the number of samples, because their content is unknown."""
        return str(len(self))
