"""Noise schedules: frozen dataclasses, one falling curve each. Add one: a class in a file here and a line below."""

from .base import Exploding, Interpolating, NoiseSchedule, Scaled
from .beta import Betas, LinearBeta, ScaledLinearBeta, SquaredCosBeta
from .edm import EDM
from .flow import Flow
from .gamma import Cosine, Linear, Sigmoid
from .ve import VE

by_name: dict[str, type[NoiseSchedule]] = {
    "sigmoid": Sigmoid,
    "cosine": Cosine,
    "linear": Linear,
    "ve": VE,
    "edm": EDM,
    "flow": Flow,
    "linear_beta": LinearBeta,
    "scaled_linear_beta": ScaledLinearBeta,
    "squaredcos_beta": SquaredCosBeta,
}
"""The names that `GaussianDiffusion(noise_schedule=...)` knows."""

__all__ = [
    "EDM",
    "VE",
    "Betas",
    "Cosine",
    "Exploding",
    "Flow",
    "Interpolating",
    "Linear",
    "LinearBeta",
    "NoiseSchedule",
    "Scaled",
    "ScaledLinearBeta",
    "Sigmoid",
    "SquaredCosBeta",
    "by_name",
]
