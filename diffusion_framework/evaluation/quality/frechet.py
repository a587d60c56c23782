"""The Fréchet distance between Gaussians fitted to features (Heusel et al. 2017)."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from ...storage.replacing import replacing
from .estimate import Estimate

Features = Float[Tensor, "_samples _features"]


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of features, in float64.

    Args:
        mean: Mean, [features].
        covariance: Unbiased covariance, [features, features].
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "GaussianStatistics":
        """Returns the statistics of features [samples, features].

        Raises:
            ValueError: If there are fewer than two samples, or a value is not finite.
        """
        check_features(features)
        values = features.double()
        covariance = torch.cov(values.T).reshape(values.shape[1], values.shape[1])
        return cls(values.mean(0), covariance)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "GaussianStatistics":
        """Reads statistics from an npz file with `mu` and `sigma`, the common exchange format.

        Raises:
            ValueError: If the file does not hold them.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                mean, covariance = (torch.from_numpy(np.array(arrays[k])) for k in ("mu", "sigma"))
        except (KeyError, ValueError, EOFError) as error:
            raise ValueError(
                f"{path}: expected an npz file with mu and sigma, got {error}. "
                "Fix: choose a file of statistics."
            ) from error
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"{path}: expected mu [d] and sigma [d, d], got {list(mean.shape)} and "
                f"{list(covariance.shape)}. Fix: choose a file of statistics."
            )
        return cls(mean.double(), covariance.double())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the statistics as an npz file with `mu` and `sigma`, and makes its folder."""
        with replacing(Path(path)) as file:
            np.savez(file, mu=self.mean.cpu().numpy(), sigma=self.covariance.cpu().numpy())


def check_features(features: Tensor) -> None:
    """Raises ValueError unless there are at least two samples, all finite."""
    if len(features) < 2:
        raise ValueError(
            f"Expected features of at least 2 samples, got {len(features)}. Fix: measure more."
        )
    if not features.isfinite().all():
        raise ValueError(
            "Expected finite features, got NaN or infinite ones. "
            "Fix: check the pictures and the feature extractor."
        )


@jaxtyped(typechecker=beartype)
def frechet_distance(a: Features | GaussianStatistics, b: Features | GaussianStatistics) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to two sets of features.

    It is `|mu_a - mu_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`, equation 6 of Heusel et al. 2017.
    Its expectation falls with the number of samples, so compare equal numbers of samples only.

    Args:
        a: Features [samples, features], or their statistics.
        b: Features or statistics of the other set.

    Raises:
        ValueError: If a set has fewer than two samples or values that are not finite, or the sets
            have different numbers of features.
    """
    first, second = (
        one if isinstance(one, GaussianStatistics) else GaussianStatistics.of(one) for one in (a, b)
    )
    check_same_features(len(first.mean), len(second.mean))
    return _distance(first, second, _square_root(second.covariance))


def bootstrap_frechet(
    samples: Tensor, reference: Tensor | GaussianStatistics, resamples: int = 50, seed: int = 0
) -> Estimate:
    """Returns the Fréchet distance and its standard error from resampled samples.

    The error is the standard deviation over resamples. Their mean is larger than the distance,
    as a resample repeats samples, so intervals are centred on the distance itself. The reference is
    not resampled.

    Args:
        samples: Features of the samples, [samples, features].
        reference: Features or statistics of the reference.
        resamples: Number of resamples, at least 2.
        seed: Seed of the resamples.
    """
    fixed = reference
    if not isinstance(fixed, GaussianStatistics):
        fixed = GaussianStatistics.of(fixed)
    check_same_features(samples.shape[1], len(fixed.mean))
    root = _square_root(fixed.covariance)
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(resamples):
        drawn = torch.randint(len(samples), (len(samples),), generator=generator)
        again = GaussianStatistics.of(samples[drawn.to(samples.device)])
        distances.append(_distance(again, fixed, root))
    value = _distance(GaussianStatistics.of(samples), fixed, root)
    return Estimate(value, torch.tensor(distances).std().item())


def check_same_features(first: int, second: int) -> None:
    """Raises ValueError unless two sets have equal numbers of features."""
    if first != second:
        raise ValueError(
            f"Expected equal numbers of features, got {first} and {second}. "
            "Fix: take both from the same feature extractor."
        )


def _square_root(covariance: Tensor) -> Tensor:
    """Returns a symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _distance(a: GaussianStatistics, b: GaussianStatistics, root_b: Tensor) -> float:
    """Returns the squared distance; root_b is a square root of b's covariance."""
    # (C_a C_b)^(1/2) has the same trace as (B C_a B)^(1/2) for B² = C_b, which is symmetric.
    product = torch.linalg.eigvalsh(root_b @ a.covariance @ root_b).clamp(min=0).sqrt().sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * product
    distance = (a.mean - b.mean).square().sum() + spread
    return max(0.0, distance.item()) if math.isfinite(distance.item()) else math.nan
