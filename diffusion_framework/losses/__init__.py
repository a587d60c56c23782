"""What training minimises: losses, their weights as functions of log-SNR, and times to train at.

Add one: a frozen dataclass in a file of its own (a loss), in `weights.py` or in `times.py`, and its
name in the dictionary.
"""

from .base import Loss, NoisedBatch
from .hybrid import HybridLoss
from .simple import SimpleLoss
from .times import (
    LogitNormal,
    LogNormal,
    LossAware,
    SampledLevels,
    Steps,
    Stratified,
    TimeSampler,
    Uniform,
    times_by_name,
)
from .variational import VariationalLoss
from .weights import (
    P2,
    EDMWeight,
    Likelihood,
    LossWeight,
    MinSNR,
    SoftMinSNR,
    UniformOn,
    output_weight,
    weights_by_name,
)

losses_by_name: dict[str, type[Loss]] = {
    "simple": SimpleLoss,
    "bound": VariationalLoss,
    "hybrid": HybridLoss,
}
"""The names that `GaussianDiffusion(loss=...)` knows."""

__all__ = [
    "P2",
    "EDMWeight",
    "HybridLoss",
    "Likelihood",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "LossAware",
    "LossWeight",
    "MinSNR",
    "NoisedBatch",
    "SampledLevels",
    "SimpleLoss",
    "SoftMinSNR",
    "Steps",
    "Stratified",
    "TimeSampler",
    "Uniform",
    "UniformOn",
    "VariationalLoss",
    "losses_by_name",
    "output_weight",
    "times_by_name",
    "weights_by_name",
]
