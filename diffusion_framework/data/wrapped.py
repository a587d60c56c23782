"""Conversion of other data to a `TrainingDataset`."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from .dataset import TrainingDataset
from .images.decode import to_plain_mode
from .images.deep import is_deep
from .images.resize import to_tensor
from .loading.handover import collate

DATA_KEYS = ("data", "image", "images", "img", "pixel_values")
"""Keys of a dictionary that hold the data of a sample, in the order of preference."""
_SAMPLES = (
    "a tensor, array or image, alone, in a pair with a label or a dictionary of conditions, "
    f"or in a dictionary under {', '.join(DATA_KEYS)}"
)


def as_dataset(data: Any) -> TrainingDataset:
    """Returns the data as a `TrainingDataset`.

    Args:
        data: A `TrainingDataset`, or samples with a length and an index: a tensor or array
            [samples, ...], a list, or a dataset of PyTorch, torchvision or Hugging Face. A sample
            is a tensor, an array or a Pillow image, alone or in a pair (sample, condition) with a
            label or a dictionary of conditions. A dictionary with one of `DATA_KEYS` is such a
            pair: its other values are conditions by name, with "label" as "labels".

    Raises:
        ValueError: data of another kind, or without samples.
    """
    if isinstance(data, TrainingDataset):
        return data
    name = type(data).__name__
    if isinstance(data, DataLoader):
        raise ValueError(
            f"Expected a dataset, got a {name}. "
            "Fix: give its dataset; the Trainer makes shuffled batches that a resumed run repeats."
        )
    getitem = getattr(data, "__getitem__", None)
    if not isinstance(data, Sized) or getitem is None or isinstance(data, IterableDataset):
        raise ValueError(
            f"Expected data with a length and an index, got {name}. "
            "Fix: give a list of samples, or write streams to tar shards (data.Shards)."
        )
    if not len(data):
        raise ValueError(
            f"Expected at least 1 sample, got an empty {name}. Fix: give data with samples."
        )
    try:
        first = getitem(0)
    except (KeyError, TypeError, NotImplementedError):
        raise ValueError(
            f"Expected samples indexed from 0, got {name}. Fix: give a list of the samples."
        ) from None
    if as_sample(first) is None:
        raise ValueError(
            f"Expected each sample as {_SAMPLES}, got {_describe(first)} from {name}. "
            "Fix: give a list of such samples, or derive a dataset from TrainingDataset."
        )
    return WrappedDataset(data)


def as_sample(item: Any) -> Tensor | tuple[Tensor, Any] | None:
    """Returns an item of a dataset as a tensor, or a pair of a tensor and its conditions.

    Returns None for an item of another kind.
    """
    if isinstance(item, Mapping):
        key = next((key for key in DATA_KEYS if key in item), None)
        if key is None:
            return None
        others = {"labels" if k == "label" else k: v for k, v in item.items() if k != key}
        data = _as_array(item[key])
        item = (data, others) if others else (data,)
    parts = tuple(item) if isinstance(item, list | tuple) else (item,)
    if len(parts) not in (1, 2) or (data := as_numbers(parts[0])) is None:
        return None
    if len(parts) == 1:
        return data
    condition = parts[1]
    fits = isinstance(condition, Mapping | int | np.ndarray | np.integer | Tensor)
    return (data, _as_condition(condition)) if fits else None


def _as_condition(value: Any) -> Any:
    """Returns lists of numbers as tensors, because PyTorch would batch them number by number."""
    if isinstance(value, Mapping):
        return {name: _as_condition(one) for name, one in value.items()}
    array = _as_array(list(value)) if isinstance(value, list | tuple) else None
    is_numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    return as_numbers(array) if is_numbers else value


def _as_array(value: Any) -> Any:
    """Returns nested lists of numbers, as in rows of a table, as an array; else the value."""
    try:
        return np.asarray(value) if isinstance(value, list) else value
    except (ValueError, TypeError, RuntimeError):  # lists of different lengths, other values
        return value


def as_numbers(value: Any) -> Tensor | None:
    """Returns a tensor, array or Pillow image as a tensor, or None for other values."""
    if isinstance(value, Image.Image):
        return to_tensor(value if is_deep(value) else to_plain_mode(value))
    if isinstance(value, np.ndarray):
        kind, size = value.dtype.kind, value.dtype.itemsize
        if kind not in "biuf" or size > 8:  # no type of PyTorch
            return None
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))  # writable
    fits = isinstance(value, Tensor) and value.ndim and not value.is_complex()
    return value.detach() if fits else None


def _describe(sample: Any) -> str:
    """Returns the type of a sample in at most 80 characters."""
    if isinstance(sample, Mapping):
        return f"a dictionary of {', '.join(map(str, sample))}"[:80]
    if isinstance(sample, Sequence) and not isinstance(sample, str):
        items = ", ".join(type(item).__name__ for item in sample)
        return f"{type(sample).__name__} of {items}"[:80]
    if isinstance(sample, Tensor | np.ndarray):
        return f"{type(sample).__name__} {[*sample.shape]} of {sample.dtype}"
    return type(sample).__name__


def _class_names(data: Any, first: Any) -> list[str] | None:
    """Returns the names of the classes that a dataset of torchvision or Hugging Face tells."""
    sample = as_sample(first)
    condition = sample[1] if isinstance(sample, tuple) else {}
    if isinstance(condition, Mapping) and set(condition) != {"labels"}:
        return None
    names, features = getattr(data, "classes", None), getattr(data, "features", None)
    if isinstance(features, Mapping):
        column = features.get("label") or features.get("labels")
        names = names or getattr(column, "names", None)
    is_text = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if is_text and names else None


@final
class WrappedDataset(TrainingDataset):
    """Wrapper of another kind of dataset, the same in every epoch; made by `as_dataset`.

    Args:
        data: Samples, indexed from 0.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.class_names = _class_names(data, data[0])
        self._init_args = {"data": type(data)}  # a config names only the class of the data

    def __repr__(self) -> str:
        return type(self.data).__name__

    def __len__(self) -> int:
        return len(self.data)

    def draw(self, index: int, epoch: int) -> Any:
        item = self.data[index]
        if (sample := as_sample(item)) is None:
            raise ValueError(
                f"Expected each sample as {_SAMPLES}, got {_describe(item)} in sample {index}. "
                "Fix: give all samples in one form."
            )
        return sample

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> Any:
        """Returns a batch of samples; see `TrainingDataset.take`.

        Raises:
            ValueError: samples of different forms or shapes, or of values that make no batch.
        """
        samples = [self.draw(int(index), 0) for index in indices]
        try:
            return collate(samples)
        except (RuntimeError, TypeError, KeyError, ValueError):
            forms = [_form(sample) for sample in samples]
            index = next((i for i, form in enumerate(forms) if form != forms[0]), 0)
            raise ValueError(
                f"Expected samples of one form, got {forms[0]} in sample {indices[0]} and "
                f"{forms[index]} in sample {indices[index]}. "
                "Fix: give tensors of one shape, and conditions as numbers, tensors or texts."
            ) from None

    def fingerprint(self) -> str:
        """Returns the number of samples, because their content is unknown."""
        return str(len(self))


def _form(sample: Any) -> str:
    """Describes the shapes and types in a sample, in at most 200 characters."""
    if isinstance(sample, Mapping):
        return f"{{{', '.join(f'{key}: {_form(value)}' for key, value in sample.items())}}}"[:200]
    if isinstance(sample, tuple):
        return f"({', '.join(map(_form, sample))})"[:200]
    if isinstance(sample, Tensor | np.ndarray):
        return str([*sample.shape])
    return type(sample).__name__
