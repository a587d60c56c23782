"""Train diffusion models and sample from them.

>>> from diffusion_framework import DDIM, GaussianDiffusion, Trainer, UNet
"""

from .config import Configurable
from .data import Digits, ImageDataset, ImageFolder
from .denoiser import Denoiser
from .diffusion import GaussianDiffusion
from .level import Level, Prediction
from .losses import MinSNR
from .models import UNet
from .objectives import X0, Eps, Objective, V
from .samplers import DDIM, DDPM, DPM2, LMS, DPMSolver, Euler, Heun, Sampler, Snapshot, trajectory
from .schedules import Cosine, Linear, NoiseSchedule, Sigmoid
from .training import Trainer

__all__ = [
    "DDIM",
    "DDPM",
    "DPM2",
    "LMS",
    "X0",
    "Configurable",
    "Cosine",
    "DPMSolver",
    "Denoiser",
    "Digits",
    "Eps",
    "Euler",
    "GaussianDiffusion",
    "Heun",
    "ImageDataset",
    "ImageFolder",
    "Level",
    "Linear",
    "MinSNR",
    "NoiseSchedule",
    "Objective",
    "Prediction",
    "Sampler",
    "Sigmoid",
    "Snapshot",
    "Trainer",
    "UNet",
    "V",
    "trajectory",
]
__version__ = "0.1.0"
