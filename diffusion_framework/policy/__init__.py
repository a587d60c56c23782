"""Policies: actions from observations, learned from demonstrations."""

from ..spaces import Normalizer
from .behaviour_cloning import BehaviourCloning
from .episodes import Episodes, load_episodes
from .fork import ForkDemonstrations
from .policy import DiffusionPolicy
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
