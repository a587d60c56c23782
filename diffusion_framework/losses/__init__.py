"""What training minimises: losses, their weights as functions of log-SNR, and times to train at.

Add one: a frozen dataclass in a file of its own (a loss), in `weights.py` or in `times.py`, and a
row in the table of `parts`.
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
)

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
    "output_weight",
]
