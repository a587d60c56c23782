"""Policies, which learn from demonstrations to plan actions from observations."""

from .behaviour_cloning import BehaviourCloning
from .controller import Controller
from .demonstrations import load_episodes
from .diffusion_policy import DiffusionPolicy
from .episodes import Episodes
from .policy import Policy
from .tasks.fork import ForkDemonstrations
from .windows import EpisodeWindows

__all__ = [
    "BehaviourCloning",
    "Controller",
    "DiffusionPolicy",
    "EpisodeWindows",
    "Episodes",
    "ForkDemonstrations",
    "Policy",
    "load_episodes",
]
