"""Samplers with adaptive step sizes, chosen from an estimate of the error."""

from .dpm_solver import AdaptiveDPMSolver
from .rk45 import RK45
from .solver import AdaptiveSolver

__all__ = ["RK45", "AdaptiveDPMSolver", "AdaptiveSolver"]
