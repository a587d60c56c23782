"""The Trainer and the groups of its options."""

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
    "Compute",
    "LearningRate",
    "Loading",
    "Logging",
    "Previews",
    "SampleQuality",
    "Saving",
    "Trainer",
    "ValidationOptions",
]
