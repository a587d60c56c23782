"""Statistics of the training data, for a model's space and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..spaces import DataSpace
from .bound import Conditions


def fit_statistics(
    space: DataSpace, conditions: Conditions, batches: Iterable[tuple[Tensor, Mapping[str, Any]]]
) -> None:
    """Fits the statistics that are still unknown; reads nothing where none are.

    Args:
        space: Maps the data to what the network sees.
        conditions: What the network is told.
        batches: All training data once: data [batch, ...], and what came with it by name.

    Raises:
        ValueError: no data.
    """
    unknown = [name for name in conditions if conditions[name].needs_fit]
    fits_space = space.needs_fit
    if not (unknown or fits_space):
        return
    for data, condition in batches:
        if fits_space:
            space.observe(space.prepare(data), condition)
        for name in unknown:
            conditions[name].observe(condition[name])
    if fits_space:
        space.finish()
    for name in unknown:
        conditions[name].finish()
