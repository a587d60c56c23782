"""Networks. Add one: a module in a file here, with `channels` and `image_size`, and a line below."""

from .unet import UNet

__all__ = ["UNet"]
