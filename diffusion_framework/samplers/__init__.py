"""Samplers: frozen dataclasses that step from one noise level to the next.

To add one, write a class in a file of this folder, add it to the lines below, and give it a row in
`parts/table.py`.
"""

from .adaptive import AdaptiveDPMSolver
from .adaptive.rk45 import RK45
from .auto import Auto
from .base import Sampler, Snapshot, trajectory
from .choosing import choose_grid
from .churn import Churn
from .consistency import Consistency
from .ddim import DDIM
from .ddpm import DDPM
from .dpm2 import DPM2
from .dpm_solver import DPMSolver
from .euler import Euler
from .flow_map import FlowMap
from .heun import Heun
from .ipndm import IPNDM
from .karras_ve import KarrasVE
from .langevin import Langevin
from .lcm import LCM
from .lms import LMS
from .lower_order_final import LowerOrderFinal
from .reverse_diffusion import ReverseDiffusion
from .score_sde import ScoreSDE
from .singlestep import SinglestepDPM
from .unipc import UniPC
from .walk import Walk, checked, first_noise

__all__ = [
    "DDIM",
    "DDPM",
    "DPM2",
    "IPNDM",
    "LCM",
    "LMS",
    "RK45",
    "AdaptiveDPMSolver",
    "Auto",
    "Churn",
    "Consistency",
    "DPMSolver",
    "Euler",
    "FlowMap",
    "Heun",
    "KarrasVE",
    "Langevin",
    "LowerOrderFinal",
    "ReverseDiffusion",
    "Sampler",
    "ScoreSDE",
    "SinglestepDPM",
    "Snapshot",
    "UniPC",
    "Walk",
    "checked",
    "choose_grid",
    "first_noise",
    "trajectory",
]
