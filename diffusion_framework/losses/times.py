"""Training times."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_uniform_times(batch: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """[batch] times, uniform in (0, 1]: never exactly 0, where there is no noise to learn from."""
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return 1 - torch.rand(batch, generator=generator, device=device, dtype=dtype)
