"""Spaces: the way from the user's units to what the network sees, and back."""

from .actions import ActionSpace
from .base import DataSpace
from .images import ImageSpace
from .latents import LatentSpace
from .normalizer import Normalizer
from .unbounded import Unbounded

__all__ = ["ActionSpace", "DataSpace", "ImageSpace", "LatentSpace", "Normalizer", "Unbounded"]
