"""What training minimises: losses, their weights as functions of log-SNR, and the times at which it looks.

Add one: a frozen dataclass in `denoising.py`, `weights.py` or `times.py`, and its name in the dictionary there.
"""

from .denoising import Bound, Hybrid, Loss, Process, Simple, Trial, losses_by_name
from .times import LogitNormal, LogNormal, LossAware, Steps, Stratified, Times, Uniform, times_by_name
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

__all__ = [
    "P2",
    "Bound",
    "EDMWeight",
    "Hybrid",
    "Likelihood",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "LossAware",
    "LossWeight",
    "MinSNR",
    "Process",
    "Simple",
    "SoftMinSNR",
    "Steps",
    "Stratified",
    "Times",
    "Trial",
    "Uniform",
    "UniformOn",
    "losses_by_name",
    "output_weight",
    "times_by_name",
    "weights_by_name",
]
