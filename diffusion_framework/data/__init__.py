"""Datasets of uint8 images [channels, height, width]: folders, tar shards, IDX files, digits."""

from .dataset import ImageDataset, TrainingDataset
from .images.decode import BrokenImageError, decode_image
from .images.digits import Digits
from .images.folder import ImageFolder
from .images.idx import IDX
from .shards.shards import Shards

__all__ = [
    "IDX",
    "BrokenImageError",
    "Digits",
    "ImageDataset",
    "ImageFolder",
    "Shards",
    "TrainingDataset",
    "decode_image",
]
