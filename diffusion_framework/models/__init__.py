"""Networks. Add one: a module in a file here, with `channels` and `image_size`, and a line below."""

from .observations import ObservationEncoder
from .residual_mlp import ResidualMLP
from .transformer1d import Transformer1D
from .unet import UNet
from .unet1d import UNet1D

__all__ = ["ObservationEncoder", "ResidualMLP", "Transformer1D", "UNet", "UNet1D"]
