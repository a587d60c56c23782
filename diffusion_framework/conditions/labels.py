"""`Labels`, a conditioner for class labels."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .base import Conditioner, Keywords, checked_samples


@final
class Labels(Conditioner):
    """Conditioner for class labels, integers in [0, classes).

    A value is a list, array or tensor of any integer type, of shape [batch] or [batch, 1]. When
    sampling, a single number is repeated for the batch, and `classes` stands for "none".

    Args:
        classes: Number of classes. The network needs one more embedding, for "none".
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the labels.

    Raises:
        ValueError: If classes is below 1, or dropout is out of range.
    """

    flips = True  # a class has mirror images

    def __init__(self, classes: int, *, dropout: float = 0.0, keyword: str = "labels") -> None:
        super().__init__((keyword,), dropout)
        if classes < 1:
            raise ValueError(
                f"Expected classes of at least 1, got {classes}. "
                "Fix: set classes to the number of classes, or leave the labels out."
            )
        self.classes = classes

    def repeat(self, value: Any, batch: int) -> Any:
        labels = _whole_numbers(value)
        return labels.expand(batch) if labels.ndim == 0 else labels

    def encode(self, value: Any) -> Keywords:
        """Converts labels to int64, [batch].

        Raises:
            ValueError: If labels are not integers, have another shape, or are out of range. On
                other devices than the CPU, training skips the check of the range.
        """
        labels = _whole_numbers(value)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(
                f"Expected labels [batch], got {[*labels.shape]}. "
                "Fix: pass one integer for each sample; of one-hot labels, labels.argmax(1)."
            )
        if not self.training and labels.device.type != "meta":
            labels = labels.cpu()  # synchronises only once per trajectory
        takes_none = self.dropout > 0 and not self.training  # in data, it is one class too many
        last = self.classes - (not takes_none)
        checked_samples(
            labels,
            (labels >= 0) & (labels <= last),
            f"labels in [0, {self.classes - 1}]"
            + (f" or {self.classes} for none" if takes_none else ""),
            "number the classes from 0, or build the network with more classes",
        )
        return {self.keywords[0]: labels.to(self.device)}

    def none(self, batch: int) -> Keywords:
        return {self.keywords[0]: torch.full((batch,), self.classes, device=self.device)}

    def pictures(self, value: Any) -> list[str]:
        return [str(label) for label in _whole_numbers(value).tolist()]


def _whole_numbers(value: Any) -> Tensor:
    """Converts integers of any type to an int64 tensor, on the device of the value."""
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"Expected integer labels, got {value!r:.60}. "
                "Fix: pass one integer for each sample, such as labels=[0, 3, 1]."
            )
        return torch.from_numpy(array.astype(np.int64))
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(
            f"Expected integer labels, got {value.dtype} {[*value.shape]}. "
            "Fix: pass labels.long(), or of one-hot labels labels.argmax(1)."
        )
    return value.long()
