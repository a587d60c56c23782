"""Quality of samples: distances and shares measured in the space of features."""

from .drawing import draw_images
from .estimate import Estimate
from .files import load_samples, save_samples
from .frechet import GaussianStatistics, bootstrap_frechet, frechet_distance
from .kernel import kernel_distance
from .meter import QualityMeter
from .neighbours import (
    DensityCoverage,
    Nearest,
    PrecisionRecall,
    authenticity,
    density_coverage,
    nearest,
    precision_recall,
)
from .report import Quality, measure_quality, quality_table, save_nearest, write_quality

__all__ = [
    "DensityCoverage",
    "Estimate",
    "GaussianStatistics",
    "Nearest",
    "PrecisionRecall",
    "Quality",
    "QualityMeter",
    "authenticity",
    "bootstrap_frechet",
    "density_coverage",
    "draw_images",
    "frechet_distance",
    "kernel_distance",
    "load_samples",
    "measure_quality",
    "nearest",
    "precision_recall",
    "quality_table",
    "save_nearest",
    "save_samples",
    "write_quality",
]
