"""Reading what other libraries wrote. See `read_scheduler_config`."""

from ..process.objectives import NegatedEps, Score
from .lower_order import LowerOrderFinal
from .plan import SamplingPlan
from .scheduler_config import read_scheduler_config

__all__ = ["LowerOrderFinal", "NegatedEps", "SamplingPlan", "Score", "read_scheduler_config"]
