"""Data spaces: maps between the user's units and the range that a network is trained on."""

from .actions import ActionSpace
from .base import DataSpace
from .images import ImageSpace
from .latents import LatentSpace
from .normalizer import Normalizer
from .unbounded import Unbounded

__all__ = ["ActionSpace", "DataSpace", "ImageSpace", "LatentSpace", "Normalizer", "Unbounded"]
