"""Measures of quality by nearest neighbours in the space of features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

from .estimate import Estimate
from .frechet import Features, check_features, check_same_features

_ROWS = 1024  # rows of a distance matrix in memory


class PrecisionRecall(NamedTuple):
    """Share of samples within the real ones, and share of real ones within the samples."""

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """Density of samples around the real ones, and share of real ones with a sample nearby."""

    density: Estimate
    coverage: Estimate


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest training sample of each sample.

    Args:
        index: Index of the training sample, [samples].
        distance: Distance to it, [samples].
        own: Index of that training sample's nearest other training sample, [samples].
        own_distance: Distance between these two, [samples].
    """

    index: Tensor
    distance: Tensor
    own: Tensor
    own_distance: Tensor


@jaxtyped(typechecker=beartype)
def precision_recall(samples: Features, real: Features, k: int = 3) -> PrecisionRecall:
    """Returns the precision and recall of Kynkäänniemi et al. 2019.

    Precision is the share of samples that lie in the ball of a real one, whose radius is the
    distance to its k-th nearest real neighbour. Recall exchanges the roles. The standard errors
    take the balls as given.

    Args:
        samples: Features of generated samples, [samples, features].
        real: Features of real samples, [samples, features].
        k: Number of the neighbour; every set needs more samples than this.

    Raises:
        ValueError: If a set is too small, features are not finite, or their numbers differ.
    """
    _check(samples, real, k)
    radii_real, radii_samples = _radii(real, k), _radii(samples, k)
    inside_real = [(d <= radii_real).any(1) for d in _distances(samples, real)]
    inside_samples = [(d <= radii_samples).any(1) for d in _distances(real, samples)]
    return PrecisionRecall(
        Estimate.mean(torch.cat(inside_real)), Estimate.mean(torch.cat(inside_samples))
    )


@jaxtyped(typechecker=beartype)
def density_coverage(samples: Features, real: Features, k: int = 5) -> DensityCoverage:
    """Returns the density and coverage of Naeem et al. 2020.

    Density is the mean number of real balls that hold a sample, divided by k; it is about 1 for
    equal distributions and can be larger. Coverage is the share of real balls that hold at least
    one sample. Balls are those of `precision_recall`. The standard errors take them as given.

    Args:
        samples: Features of generated samples, [samples, features].
        real: Features of real samples, [samples, features].
        k: Number of the neighbour; every set needs more samples than this.

    Raises:
        ValueError: If a set is too small, features are not finite, or their numbers differ.
    """
    _check(samples, real, k)
    radii = _radii(real, k)
    counts = [(d <= radii).double().sum(1) / k for d in _distances(samples, real)]
    covered = [
        (d <= r[:, None]).any(1)
        for d, r in zip(_distances(real, samples), radii.split(_ROWS), strict=True)
    ]
    return DensityCoverage(Estimate.mean(torch.cat(counts)), Estimate.mean(torch.cat(covered)))


@jaxtyped(typechecker=beartype)
def nearest(samples: Features, training: Features) -> Nearest:
    """Returns the nearest training sample of each sample, and that one's nearest other.

    Args:
        samples: Features of samples, [samples, features].
        training: Features of at least 2 training samples, [samples, features].

    Raises:
        ValueError: If features are not finite, or their numbers differ.
    """
    check_features(training)
    check_same_features(samples.shape[1], training.shape[1])
    found = [d.min(1) for d in _distances(samples, training)]
    distance, index = (torch.cat([one[i] for one in found]) for i in (0, 1))
    to_others = []
    for rows, at in zip(_distances(training[index], training), index.split(_ROWS), strict=True):
        rows[torch.arange(len(at), device=at.device), at] = torch.inf
        to_others.append(rows.min(1))
    own_distance, own = (torch.cat([one[i] for one in to_others]) for i in (0, 1))
    return Nearest(index, distance, own, own_distance)


def authenticity(neighbours: Nearest) -> Estimate:
    """Returns the share of samples that are no near-copies, of Alaa et al. 2022.

    A sample counts as a near-copy if its nearest training sample is closer to it than to any other
    training sample. Compare with the share for held-out real samples, which copy nothing.
    """
    return Estimate.mean(neighbours.distance > neighbours.own_distance)


def _check(samples: Tensor, real: Tensor, k: int) -> None:
    for features in (samples, real):
        check_features(features)
        if not 1 <= k < len(features):
            raise ValueError(
                f"Expected k of at least 1 and below the number of samples, got {k} for "
                f"{len(features)} samples. Fix: measure more samples."
            )
    check_same_features(samples.shape[1], real.shape[1])


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yields distances [rows, len(b)] for parts of a."""
    return (torch.cdist(part.double(), b.double()) for part in a.split(_ROWS))


def _radii(features: Tensor, k: int) -> Tensor:
    """Returns the distance of each sample to its k-th nearest other sample."""
    found = []
    for first, rows in enumerate(_distances(features, features)):
        at = torch.arange(len(rows), device=rows.device)
        rows[at, first * _ROWS + at] = torch.inf
        found.append(rows.kthvalue(k, dim=1).values)
    return torch.cat(found)
