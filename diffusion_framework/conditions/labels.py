"""`Labels`: class labels, whole numbers from 0."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .base import Conditioner, Keywords, checked_samples


@final
class Labels(Conditioner):
    """Class labels [batch], whole numbers in [0, classes). The label `classes` is "none".

    Takes lists, arrays and tensors of any integer type, a column [batch, 1], or one number to
    sample a whole batch.

    Args:
        classes: Number of classes. The network has one embedding more, for "none".
        dropout: Share of training samples that are told "none"; above 0 for guidance.
        keyword: The network's keyword.

    Raises:
        ValueError: no class at all, or dropout out of range.
    """

    def __init__(self, classes: int, *, dropout: float = 0.0, keyword: str = "labels") -> None:
        super().__init__((keyword,), dropout)
        if classes < 1:
            raise ValueError(f"Expected at least 1 class, got {classes}. Fix: leave labels out.")
        self.classes = classes

    def repeat(self, value: Any, batch: int) -> Any:
        labels = _whole_numbers(value)
        return labels.expand(batch) if labels.ndim == 0 else labels

    def encode(self, value: Any) -> Keywords:
        """[batch] int64.

        On the CPU, and on other devices outside training, labels out of range are refused.
        """
        labels = _whole_numbers(value)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(
                f"Expected labels [batch], got {[*labels.shape]}. Fix: give one whole number for "
                f"each sample."
            )
        if not self.training and labels.device.type != "meta":
            labels = labels.cpu()  # once a trajectory: waiting for the device costs nothing
        last = self.classes - (self.dropout == 0)
        checked_samples(
            labels,
            (labels >= 0) & (labels <= last),
            f"labels in [0, {self.classes - 1}]"
            + (f" or {self.classes} for none" if self.dropout else ""),
            "number the classes from 0, or build the network with more classes",
        )
        return {self.keywords[0]: labels.to(self.device)}

    def none(self, like: Keywords) -> Keywords:
        return {keyword: torch.full_like(labels, self.classes) for keyword, labels in like.items()}

    def pictures(self, value: Any) -> list[str]:
        return [str(label) for label in _whole_numbers(value).tolist()]


def _whole_numbers(value: Any) -> Tensor:
    """Integers of any kind as int64, on the device that they are on."""
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"Expected labels as whole numbers, got {value!r:.60}. "
                "Fix: give one for each sample, such as labels=[0, 3, 1]."
            )
        return torch.from_numpy(array.astype(np.int64))
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(
            f"Expected labels as whole numbers, got {value.dtype}. Fix: labels.long(), if they are."
        )
    return value.long()
