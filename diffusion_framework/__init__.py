"""Train diffusion models and sample from them.

>>> from diffusion_framework import DDIM, GaussianDiffusion, Trainer, UNet

These are the names that most programs need. A name is imported when it is first used. The folders
of the package have more:

- `diffusion_framework.data`, `diffusion_framework.spaces`, `diffusion_framework.conditions`
- `diffusion_framework.models`, `diffusion_framework.denoisers`
- `diffusion_framework.process.schedules`, `diffusion_framework.process.objectives`,
  `diffusion_framework.process.level`, `diffusion_framework.process.noise`
- `diffusion_framework.losses`, `diffusion_framework.training`, `diffusion_framework.trainable`
- `diffusion_framework.samplers`, `diffusion_framework.samplers.grids`
- `diffusion_framework.editing`, `diffusion_framework.evaluation`
- `diffusion_framework.policies`, `diffusion_framework.interop`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conditions import Images, Labels
    from .data import ImageFolder, Shards
    from .denoisers import ClassifierFree
    from .diffusion import GaussianDiffusion
    from .losses import MinSNR
    from .models import RIN, DiT, UNet
    from .policies import Controller, DiffusionPolicy
    from .process.schedules import EDM, Cosine, Flow, Sigmoid
    from .samplers import DDIM, DDPM, LCM, LMS, DPMSolver, Heun, ScoreSDE, UniPC
    from .spaces import ImageSpace, Unbounded
    from .training import Trainer

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "LCM",
    "LMS",
    "RIN",
    "ClassifierFree",
    "Controller",
    "Cosine",
    "DPMSolver",
    "DiT",
    "DiffusionPolicy",
    "Flow",
    "GaussianDiffusion",
    "Heun",
    "ImageFolder",
    "ImageSpace",
    "Images",
    "Labels",
    "MinSNR",
    "ScoreSDE",
    "Shards",
    "Sigmoid",
    "Trainer",
    "UNet",
    "Unbounded",
    "UniPC",
]
__version__ = "0.1.0"

_MODULES = {
    "conditions": ("Images", "Labels"),
    "data": ("ImageFolder", "Shards"),
    "denoisers": ("ClassifierFree",),
    "diffusion": ("GaussianDiffusion",),
    "losses": ("MinSNR",),
    "models": ("RIN", "DiT", "UNet"),
    "policies": ("Controller", "DiffusionPolicy"),
    "process.schedules": ("EDM", "Cosine", "Flow", "Sigmoid"),
    "samplers": ("DDIM", "DDPM", "LCM", "LMS", "DPMSolver", "Heun", "ScoreSDE", "UniPC"),
    "spaces": ("ImageSpace", "Unbounded"),
    "training": ("Trainer",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(_missing(name))
    value = vars(import_module(f"{__name__}.{_HOMES[name]}"))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _missing(name: str) -> str:
    """Returns the error for a name that this module lacks, with the place or the nearest name."""
    from .parts.search import nearest
    from .parts.table import TABLE

    elsewhere = {
        home.split(":")[1]: home.split(":")[0] for row in TABLE.values() for home in row.values()
    }
    close = nearest(name, [*__all__, *elsewhere])
    if close is None:
        fix = f"see dir({__name__})"
    elif close in __all__:
        fix = f"write {close}"
    else:
        fix = f"write from {__name__}.{elsewhere[close]} import {close}"
    return f"module {__name__!r} has no attribute {name!r}. Fix: {fix}."
