"""Policies: actions from observations, learned from demonstrations."""

from ..spaces import Normalizer
from .behaviour_cloning import BehaviourCloning
from .demonstrations import Episodes, load_episodes
from .diffusion_policy import DiffusionPolicy
from .tasks.fork import ForkDemonstrations
from .windows import EpisodeWindows

__all__ = [
    "BehaviourCloning",
    "DiffusionPolicy",
    "EpisodeWindows",
    "Episodes",
    "ForkDemonstrations",
    "Normalizer",
    "load_episodes",
]
