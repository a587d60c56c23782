"""Training losses, their weights as functions of log-SNR, and samplers of training times.

A new part is a frozen dataclass and a row in the table of `parts`. Losses have a file each; weights
are in `weights.py` and time samplers in `times.py`.
"""

from .base import Loss, NoisedBatch
from .consistency import ConsistencyLoss
from .flow_map import FlowMapLoss
from .hybrid import HybridLoss
from .levels import LEVEL_NAMES, SampledLevels, losses_by_level
from .simple import SimpleLoss
from .times import (
    LogitNormal,
    LogNormal,
    LossAware,
    Steps,
    Stratified,
    TimeSampler,
    Uniform,
)
from .training import TrainingLoss
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
    "LEVEL_NAMES",
    "P2",
    "ConsistencyLoss",
    "EDMWeight",
    "FlowMapLoss",
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
    "TrainingLoss",
    "Uniform",
    "UniformOn",
    "VariationalLoss",
    "losses_by_level",
    "output_weight",
]
