"""Networks. Add one: a module in a file here, with `channels` and `image_size`, and a line below."""

from .dit import DiT
from .rin import RIN
from .sequence.residual_mlp import ResidualMLP
from .sequence.transformer1d import Transformer1D
from .sequence.unet1d import UNet1D
from .unet import UNet

__all__ = ["RIN", "DiT", "ResidualMLP", "Transformer1D", "UNet", "UNet1D"]
