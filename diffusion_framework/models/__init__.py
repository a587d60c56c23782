"""Networks. Add one: a module in a file here, with `channels` and `image_size`, and a line below."""

from .dit import DiT
from .residual_mlp import ResidualMLP
from .rin import RIN
from .transformer1d import Transformer1D
from .unet import UNet
from .unet1d import UNet1D

__all__ = ["RIN", "DiT", "ResidualMLP", "Transformer1D", "UNet", "UNet1D"]
