"""Quality of samples: distances and shares measured in the space of features."""

from .estimate import Estimate
from .frechet import GaussianStatistics, bootstrap_frechet, frechet_distance
from .kernel import kernel_distance
from .neighbours import (
    DensityCoverage,
    Nearest,
    PrecisionRecall,
    authenticity,
    density_coverage,
    nearest,
    precision_recall,
)

__all__ = [
    "DensityCoverage",
    "Estimate",
    "GaussianStatistics",
    "Nearest",
    "PrecisionRecall",
    "authenticity",
    "bootstrap_frechet",
    "density_coverage",
    "frechet_distance",
    "kernel_distance",
    "nearest",
    "precision_recall",
]
