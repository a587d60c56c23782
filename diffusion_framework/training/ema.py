"""The exponential moving average (EMA) of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ema_pytorch
from torch import nn

from .checks import expect


@dataclass(frozen=True)
class EMA:
    """Warm-up of the EMA decay to its maximum, the Trainer's `ema_decay`.

    For the first 100 optimizer steps the EMA equals the weights. The decay n steps later is
    `1 - (1 + n / inv_gamma) ** -power`, at most `ema_decay`.

    Args:
        inv_gamma: Time scale of the EMA decay's warm-up in optimizer steps, above 0.
        power: Exponent of the EMA decay's warm-up, above 0; 0.75 suits short runs.

    Raises:
        ValueError: If a field is out of range.
    """

    inv_gamma: float = 1.0
    power: float = 2 / 3

    def __post_init__(self) -> None:
        for name, value in (("inv_gamma", self.inv_gamma), ("power", self.power)):
            expect(
                0 < value < math.inf,
                f"ema.{name} above 0",
                value,
                "choose a positive number, or leave it out",
            )

    def average(self, model: nn.Module, *, decay: float, update_every: int) -> ema_pytorch.EMA:
        """Returns a copy of the model that holds the EMA of its weights, advanced by `update()`.

        Args:
            model: Model in training, on its device.
            decay: Maximum of the decay, in [0, 1].
            update_every: Number of optimizer steps between two updates.
        """
        options: dict[str, Any] = {"inv_gamma": self.inv_gamma, "power": self.power}
        options |= {"beta": decay, "update_every": update_every}
        # The copy is made on the device. Moving it later would move its step counter as well, and
        # reading that at every step would wait for the GPU.
        return ema_pytorch.EMA(model, include_online_model=False, use_foreach=True, **options)
