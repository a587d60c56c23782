"""Networks. Add one: a module in a file here, with `channels` and `image_size`, and a line below."""

from .dit import DiT
from .rin import RIN
from .unet import UNet

__all__ = ["RIN", "DiT", "UNet"]
