"""The Trainer and the groups of its options."""

from ..storage.post_hoc_ema import post_hoc_ema
from .callbacks import Callback, Run
from .compute import Compute
from .ema import EMA
from .learning_rate import LearningRate
from .loading import Loading
from .log import Logging
from .previews import Previews
from .quality import SampleQuality
from .saving import Saving
from .trainer import Trainer
from .validation import ValidationOptions

__all__ = [
    "EMA",
    "Callback",
    "Compute",
    "LearningRate",
    "Loading",
    "Logging",
    "Previews",
    "Run",
    "SampleQuality",
    "Saving",
    "Trainer",
    "ValidationOptions",
    "post_hoc_ema",
]
