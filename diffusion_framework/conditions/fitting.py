"""Fitting of the training data's statistics for a model's space and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..spaces import DataSpace
from ..spaces.base import InvalidSampleError
from .bound import Conditions


def fit_statistics(
    space: DataSpace, conditions: Conditions, batches: Iterable[tuple[Tensor, Mapping[str, Any]]]
) -> None:
    """Fits all unknown statistics; reads no data if all are known.

    Args:
        space: Data space of the model.
        conditions: Conditions of the model.
        batches: All training data once, as pairs of data [batch, ...] and its conditions by name.

    Raises:
        ValueError: If `batches` is empty.
    """
    unfitted = [name for name in conditions if conditions[name].needs_fit]
    fits_space = space.needs_fit
    if not (unfitted or fits_space):
        return
    first = 0
    for data, condition in batches:
        if fits_space:
            try:
                space.observe(space.prepare(data), condition)
            except InvalidSampleError as error:
                raise error.counted_in("the training data", first + error.index) from None
        first += len(data)
        for name in unfitted:
            conditions[name].observe(condition[name])
    if fits_space:
        space.finish()
    for name in unfitted:
        conditions[name].finish()
