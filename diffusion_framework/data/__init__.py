"""Images as uint8 tensors [channels, height, width]: folders of pictures, tar shards, MNIST's files, the digits."""

from diffusion_framework.data.dataset import ImageDataset, TrainingDataset
from diffusion_framework.data.decode import BrokenImageError, decode_image
from diffusion_framework.data.digits import Digits
from diffusion_framework.data.folder import ImageFolder
from diffusion_framework.data.idx import IDX
from diffusion_framework.data.shards import Shards

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
