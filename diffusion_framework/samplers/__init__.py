"""Samplers. Add one: a frozen dataclass in a file here, and a line below."""

from .adaptive import AdaptiveDPMSolver
from .adaptive.rk45 import RK45
from .base import Sampler, Snapshot, trajectory
from .churn import Churn, KarrasVE
from .ddim import DDIM
from .ddpm import DDPM
from .dpm2 import DPM2
from .dpm_solver import DPMSolver
from .euler import Euler
from .heun import Heun
from .langevin import Langevin, ReverseDiffusion, ScoreSDE
from .lcm import LCM
from .lms import LMS
from .singlestep import SinglestepDPM
from .unipc import UniPC
from .walk import Walk, checked, grid_for_calls

__all__ = [
    "DDIM",
    "DDPM",
    "DPM2",
    "LCM",
    "LMS",
    "RK45",
    "AdaptiveDPMSolver",
    "Churn",
    "DPMSolver",
    "Euler",
    "Heun",
    "KarrasVE",
    "Langevin",
    "ReverseDiffusion",
    "Sampler",
    "ScoreSDE",
    "SinglestepDPM",
    "Snapshot",
    "UniPC",
    "Walk",
    "checked",
    "grid_for_calls",
    "trajectory",
]
