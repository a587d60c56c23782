"""Datasets of uint8 images [channels, height, width]: folders, tar shards, IDX files, digits."""

from diffusion_framework.data.dataset import ImageDataset, TrainingDataset
from diffusion_framework.data.images.decode import BrokenImageError, decode_image
from diffusion_framework.data.images.digits import Digits
from diffusion_framework.data.images.folder import ImageFolder
from diffusion_framework.data.images.idx import IDX
from diffusion_framework.data.shards.shards import Shards

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
