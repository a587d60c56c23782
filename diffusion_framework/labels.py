"""Class labels as conditions: [batch] integers from 0.

One more than the last class is the label "no class".
"""

from __future__ import annotations

from torch import Tensor


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless all labels lie in [0, classes).

    This waits for the device they are on.
    """
    low, high = (int(bound) for bound in labels.aminmax()) if labels.numel() else (0, 0)
    if low < 0 or high >= classes:
        raise ValueError(f"labels must lie in [0, {classes - 1}]; got {low} to {high}")
