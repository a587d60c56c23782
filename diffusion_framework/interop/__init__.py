"""Reads files of other libraries: `read_scheduler_config` reads the schedulers of diffusers."""

from ..process.objectives import NegatedEps, Score
from .recipe import SchedulerRecipe
from .scheduler_config import read_scheduler_config

__all__ = ["NegatedEps", "SchedulerRecipe", "Score", "read_scheduler_config"]
