"""Conditions, the inputs of a network besides the noised data and its level."""

from .augmentation import Augmentation
from .augmenting import bind_batch, check_augmentation
from .base import Conditioner, Keywords
from .bound import BoundConditions, Conditions
from .fitting import fit_statistics
from .flipping import flip_batch
from .images import Images
from .labels import Labels
from .observations import Observations
from .pretrained_text import PretrainedText
from .text import Text
from .tokens import Tokens
from .vectors import Vectors

__all__ = [
    "Augmentation",
    "BoundConditions",
    "Conditioner",
    "Conditions",
    "Images",
    "Keywords",
    "Labels",
    "Observations",
    "PretrainedText",
    "Text",
    "Tokens",
    "Vectors",
    "bind_batch",
    "check_augmentation",
    "fit_statistics",
    "flip_batch",
]
