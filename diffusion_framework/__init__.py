"""Train diffusion models and sample from them.

>>> from diffusion_framework import DDIM, GaussianDiffusion, Trainer, UNet
"""

from typing import TYPE_CHECKING, Any

from .data import IDX, Digits, ImageDataset, ImageFolder, Shards, TrainingDataset
from .denoisers import ClassifierFree, Denoiser
from .diffusion import GaussianDiffusion
from .losses import MinSNR
from .models import RIN, DiT, ResidualMLP, Transformer1D, UNet, UNet1D
from .policies import BehaviourCloning, Controller, DiffusionPolicy, Episodes, EpisodeWindows, ForkDemonstrations
from .process.level import Level, Prediction
from .process.objectives import X0, Eps, Objective, Preconditioned, PreviousX, Score, V, Velocity
from .process.schedules import (
    EDM,
    VE,
    Betas,
    Cosine,
    Flow,
    Linear,
    LinearBeta,
    NoiseSchedule,
    ScaledLinearBeta,
    Sigmoid,
    SquaredCosBeta,
)
from .samplers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    LMS,
    RK45,
    AdaptiveDPMSolver,
    Churn,
    DPMSolver,
    Euler,
    Heun,
    KarrasVE,
    Langevin,
    ReverseDiffusion,
    Sampler,
    ScoreSDE,
    SinglestepDPM,
    Snapshot,
    UniPC,
    trajectory,
)
from .storage.config import RecordsArguments

if TYPE_CHECKING:
    from .training import Trainer

__all__ = [
    "DDIM",
    "DDPM",
    "DPM2",
    "EDM",
    "IDX",
    "LCM",
    "LMS",
    "RIN",
    "RK45",
    "VE",
    "X0",
    "AdaptiveDPMSolver",
    "BehaviourCloning",
    "Betas",
    "Churn",
    "ClassifierFree",
    "Controller",
    "Cosine",
    "DPMSolver",
    "Denoiser",
    "DiT",
    "DiffusionPolicy",
    "Digits",
    "EpisodeWindows",
    "Episodes",
    "Eps",
    "Euler",
    "Flow",
    "ForkDemonstrations",
    "GaussianDiffusion",
    "Heun",
    "ImageDataset",
    "ImageFolder",
    "KarrasVE",
    "Langevin",
    "Level",
    "Linear",
    "LinearBeta",
    "MinSNR",
    "NoiseSchedule",
    "Objective",
    "Preconditioned",
    "Prediction",
    "PreviousX",
    "RecordsArguments",
    "ResidualMLP",
    "ReverseDiffusion",
    "Sampler",
    "ScaledLinearBeta",
    "Score",
    "ScoreSDE",
    "Shards",
    "Sigmoid",
    "SinglestepDPM",
    "Snapshot",
    "SquaredCosBeta",
    "Trainer",
    "TrainingDataset",
    "Transformer1D",
    "UNet",
    "UNet1D",
    "UniPC",
    "V",
    "Velocity",
    "trajectory",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Trainer":  # brings accelerate, which takes its time; who samples does without
        from .training import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
