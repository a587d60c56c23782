"""Samplers. Add one: a frozen dataclass in a file here, and a line below."""

from .base import Sampler, Snapshot, trajectory
from .ddim import DDIM
from .ddpm import DDPM

__all__ = ["DDIM", "DDPM", "Sampler", "Snapshot", "trajectory"]
