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
    """How the decay of the averaged weights rises to its maximum, the Trainer's `ema_decay`.

    For the first 100 optimizer steps the average equals the weights. The decay n steps later is
    `1 - (1 + n / inv_gamma) ** -power`, at most `ema_decay`.

    Args:
        inv_gamma: Number of steps over which the rise is stretched, above 0.
        power: Exponent of the rise, above 0; 0.75 suits short runs.

    Raises:
        ValueError: a field out of range.
    """

    inv_gamma: float = 1.0
    power: float = 2 / 3

    def __post_init__(self) -> None:
        for name, value in (("inv_gamma", self.inv_gamma), ("power", self.power)):
            expect(0 < value < math.inf, f"ema.{name} above 0", value, f"leave ema.{name} out")

    def average(self, model: nn.Module, *, decay: float, update_every: int) -> ema_pytorch.EMA:
        """Returns an average of the model's weights, a copy that follows them at each `update()`.

        Args:
            model: The model in training, on its device.
            decay: The maximum of the decay, in [0, 1].
            update_every: Optimizer steps between two updates.
        """
        options: dict[str, Any] = {"inv_gamma": self.inv_gamma, "power": self.power}
        options |= {"beta": decay, "update_every": update_every}
        # The copy is made on the device: moved there, its step counter would move too, and reading
        # it at every step would wait for a GPU.
        return ema_pytorch.EMA(model, include_online_model=False, use_foreach=True, **options)
