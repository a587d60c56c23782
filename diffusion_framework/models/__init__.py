"""Networks for images and for action sequences.

To add one, write a module in a file of its own, with the attributes `channels` and `image_size`, or
`sample_shape`. CONTRIBUTING.md describes how networks are called.
"""

from .dit import DiT
from .rin import RIN
from .sequence.residual_mlp import ResidualMLP
from .sequence.transformer1d import Transformer1D
from .sequence.unet1d import UNet1D
from .unet import UNet

__all__ = ["RIN", "DiT", "ResidualMLP", "Transformer1D", "UNet", "UNet1D"]
