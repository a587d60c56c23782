"""A noise schedule is one falling curve `log_snr(t)` and the way alpha and sigma are split from it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...storage.config import SavedAsJson
from ..level import Level, Scalar


class NoiseSchedule(SavedAsJson, ABC):
    """How much noise there is at time t in [0, 1], from clean (0) to noisiest (1).

    A schedule is a frozen dataclass that defines `log_snr` and its inverse `time`, both on float64 tensors. The
    split below is *preserving* (alpha² + sigma² = 1); derive from `Exploding` or `Interpolating` for the others.
    """

    config_name = "schedule.json"

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """`ln(alpha² / sigma²)` in nats at times t in [0, 1], falling in t; +inf where sigma = 0."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time in [0, 1] at which the curve passes `log_snr`: the closed-form inverse; 0 at +inf."""

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at `log_snr`, each to full relative precision at both ends."""
        return torch.exp(0.5 * F.logsigmoid(log_snr)), torch.exp(0.5 * F.logsigmoid(-log_snr))

    def at(self, t: Scalar) -> Level:
        """The level at time t.

        Args:
            t: A float, which gives a level of floats, or a tensor [batch], which gives one of tensors.

        Raises:
            ValueError: a float t lies outside [0, 1].
        """
        if not isinstance(t, Tensor) and not 0 <= t <= 1:
            raise ValueError(f"a time must lie in [0, 1], from clean to noisiest; got {t}")
        times = _as_float64(t)
        return self._level(times, self.log_snr(times), isinstance(t, Tensor))

    def at_log_snr(self, log_snr: Scalar) -> Level:
        """The level with this log-SNR: a float or a tensor [batch], as for `at`."""
        values = _as_float64(log_snr)
        return self._level(self.time(values), values, isinstance(log_snr, Tensor))

    @property
    def clean(self) -> Level:
        """The level of floats without noise: t = 0, log-SNR +inf, even where the curve stops short of it."""
        return self.at_log_snr(math.inf)

    def step_count(self, steps: int) -> int:
        """How many steps lead from t = 1 to the clean end, if each is 1 / steps of time.

        One more than `steps` for a schedule that has noise at time 0.
        """
        return steps + (not self.at(0.0).is_end)

    def check_steps(self, steps: int) -> None:
        """Raise ValueError unless there is noise to take away in each of so many steps."""
        log_snr = self.log_snr(torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu"))
        if still := int((log_snr[1:] >= log_snr[:-1]).sum()):
            raise ValueError(
                f"{self} stands still in {still} of {steps} steps, which then have no reverse; take fewer steps, or a "
                "schedule that falls throughout (a lower clip_min)"
            )

    def cleaner(self, at: Level, steps: int) -> Level:
        """The level that is 1 / steps of time nearer the clean end; from time 0 on that is `clean`."""
        t = _as_float64(at.t)
        to = t - 1 / steps
        level = self.at(torch.where(to * steps > 1e-4, to, 0.0))  # what rounding left is no time
        log_snr = torch.where(t * steps > 1e-4, level.log_snr, torch.inf)
        return self._level(level.t, log_snr, isinstance(at.t, Tensor))

    def _level(self, t: Tensor, log_snr: Tensor, as_tensors: bool) -> Level:
        values = (t, *self.split(log_snr), log_snr)
        return Level(*values) if as_tensors else Level(*(value.item() for value in values))


class Exploding(NoiseSchedule):
    """A schedule with alpha = 1: noise is added, the data stays."""

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), torch.exp(-0.5 * log_snr)


class Interpolating(NoiseSchedule):
    """A schedule with alpha + sigma = 1."""

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(0.5 * log_snr), torch.sigmoid(-0.5 * log_snr)


@dataclass(frozen=True)
class Scaled(NoiseSchedule):
    """A schedule whose data is scaled down: alpha is multiplied by `scale` (Chen 2023, sec. 2.2).

    Less signal at the same sigma shifts log-SNR by `2 ln(scale)`: large images, whose neighbouring pixels
    say the same thing, need more noise.

    Args:
        schedule: The schedule to scale.
        scale: Factor of the clean data, above 0.
    """

    schedule: NoiseSchedule
    scale: float

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf):
            raise ValueError(f"scale must be above 0; got {self.scale}")

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t) + 2 * math.log(self.scale)

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr - 2 * math.log(self.scale))

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.split(log_snr - 2 * math.log(self.scale))
        return self.scale * alpha, sigma


def _as_float64(value: Scalar) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)  # MPS has no float64
