"""The exponential moving average (EMA) of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import ema_pytorch
from torch import nn

from ..averaging import PowerProfile
from ..trainable import Trainable
from .checks import expect
from .profiles import TrackedProfiles

_MOST = 256  # snapshots


@dataclass(frozen=True)
class EMA:
    """Warm-up of the EMA decay to the Trainer's `ema_decay`, and averages of other widths.

    For the first 100 optimizer steps the EMA equals the weights. The decay n steps later is
    `1 - (1 + n / inv_gamma) ** -power`, at most `ema_decay`.

    With `profiles`, averages of any width can be made after the training (post-hoc EMA, Karras et
    al. 2024): `--weights 0.08`. Their width is the standard deviation of the steps that take part,
    as a share of the run so far.

    Args:
        inv_gamma: Time scale of the EMA decay's warm-up in optimizer steps, above 0.
        power: Exponent of the EMA decay's warm-up, above 0; 0.75 suits short runs.
        profiles: Widths of averages to track for post-hoc EMA, such as 0.05,0.1. Each takes the
            memory of the weights.
        snapshots: Number of snapshots of these averages in a run, in half precision; with 16,
            widths from 0.03 to 0.2 can be made.

    Raises:
        ValueError: If a field is out of range.
    """

    inv_gamma: float = 1.0
    power: float = 2 / 3
    profiles: tuple[float, ...] = ()
    snapshots: int = 16

    def __post_init__(self) -> None:
        for name, value in (("inv_gamma", self.inv_gamma), ("power", self.power)):
            expect(
                0 < value < math.inf,
                f"ema.{name} above 0",
                value,
                "choose a positive number, or leave it out",
            )
        fits = isinstance(self.profiles, tuple | list)
        fits = fits and all(isinstance(width, Real) for width in self.profiles)
        expect(fits, "ema.profiles as a list of widths", self.profiles, "give (0.05, 0.1)")
        names = [PowerProfile(float(width)).name for width in self.profiles]
        fix = "give each once"
        expect(len({*names}) == len(names), "different ema.profiles", self.profiles, fix)
        fits, wanted = 0 <= self.snapshots <= _MOST, f"ema.snapshots in [0, {_MOST}]"
        expect(fits, wanted, self.snapshots, "choose 16, which suits most runs")

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

    def track(self, model: Trainable, *, update_every: int) -> TrackedProfiles:
        """Returns the averages of a model with the profiles, before the first step.

        Args:
            model: Model in training, on its device.
            update_every: Number of optimizer steps between two updates.
        """
        profiles = [PowerProfile(float(width)) for width in self.profiles]
        return TrackedProfiles(model, profiles, update_every, self.snapshots)
