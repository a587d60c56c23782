"""Noise schedules: frozen dataclasses, one falling curve each. Add one: a class in a file here and a line below."""

from .base import NoiseSchedule, Scaled
from .gamma import Cosine, Linear, Sigmoid

by_name: dict[str, type[NoiseSchedule]] = {"sigmoid": Sigmoid, "cosine": Cosine, "linear": Linear}
"""The names that `GaussianDiffusion(noise_schedule=...)` knows."""

__all__ = ["Cosine", "Linear", "NoiseSchedule", "Scaled", "Sigmoid", "by_name"]
