"""Samplers. Add one: a frozen dataclass in a file here, and a line below."""

from .base import Sampler, Snapshot, trajectory
from .ddim import DDIM
from .ddpm import DDPM
from .dpm2 import DPM2
from .dpm_solver import DPMSolver
from .euler import Euler
from .heun import Heun
from .lms import LMS

__all__ = ["DDIM", "DDPM", "DPM2", "LMS", "DPMSolver", "Euler", "Heun", "Sampler", "Snapshot", "trajectory"]
