"""Holds samples of a dataset out of training."""

import numpy as np

from ..parts.counting import counted
from .dataset import TrainingDataset
from .loading.order import permute


def hold_out(
    dataset: TrainingDataset, share: float, seed: int
) -> tuple[TrainingDataset, TrainingDataset]:
    """Splits a dataset into one to train on and one to validate on.

    The choice depends only on the seed, the share and the number of samples. Where the classes are
    known without reading the samples, the share is taken of each class.

    Args:
        dataset: Dataset to split.
        share: Share of the samples to hold out, in (0, 1).
        seed: Seed of the choice.

    Raises:
        ValueError: If the share is out of range, one of the two would be empty, or the samples of
            the dataset are not independent or not at hand.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"Expected a share of validation between 0 and 1, got {share:g}. Fix: try 0.1."
        )
    labels = dataset.class_labels()
    count = len(dataset)
    labels = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    chosen = np.zeros(count, bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = permute(np.arange(len(members)), len(members), seed).astype(np.int64)
        chosen[members[shuffled[: round(share * len(members))]]] = True
    if chosen.all() or not chosen.any():
        raise ValueError(
            f"Expected samples to train on and to validate on, got a share of {share:g} of "
            f"{counted(count, 'sample')}. Fix: give a validation folder, or another share."
        )
    return dataset.subset(np.flatnonzero(~chosen)), dataset.subset(np.flatnonzero(chosen))
