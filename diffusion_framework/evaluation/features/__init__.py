"""Features of images, in which quality is measured."""

from .base import FeatureExtractor, FeatureNetwork, features_of, read_images, to_rgb
from .fidelity import DINOv2, Inception
from .onnx import ONNX
from .own import Own
from .torchvision import Torchvision

__all__ = [
    "ONNX",
    "DINOv2",
    "FeatureExtractor",
    "FeatureNetwork",
    "Inception",
    "Own",
    "Torchvision",
    "features_of",
    "read_images",
    "to_rgb",
]
