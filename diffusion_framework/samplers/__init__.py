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

samplers_by_name: dict[str, type[Sampler]] = {
    "adaptive_dpm_solver": AdaptiveDPMSolver,
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpm2": DPM2,
    "dpm_solver": DPMSolver,
    "euler": Euler,
    "heun": Heun,
    "karras_ve": KarrasVE,
    "langevin": Langevin,
    "lcm": LCM,
    "lms": LMS,
    "reverse_diffusion": ReverseDiffusion,
    "rk45": RK45,
    "score_sde": ScoreSDE,
    "singlestep_dpm": SinglestepDPM,
    "unipc": UniPC,
}
"""The names that `GaussianDiffusion.sample(sampler=...)` knows."""

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
    "samplers_by_name",
    "trajectory",
]
