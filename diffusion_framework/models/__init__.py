"""Networks for images and for sequences.

A new network is a module in a file of its own, with attributes `channels` and `image_size`, or
`sample_shape`. CONTRIBUTING.md describes how a network is called.
"""

from .dit import DiT
from .rin import RIN
from .sequence.residual_mlp import ResidualMLP
from .sequence.transformer1d import Transformer1D
from .sequence.unet1d import UNet1D
from .unet import UNet

__all__ = ["RIN", "DiT", "ResidualMLP", "Transformer1D", "UNet", "UNet1D"]
