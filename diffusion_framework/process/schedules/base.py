"""Base classes of noise schedules: a falling curve `log_snr(t)`, split into alpha and sigma."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...storage.config import SavedAsJson
from ..level import Level, Scalar

PRECONDITIONING: Mapping[str, str] = {"time_input": "c_noise", "input_scaling": "unit_variance"}
"""Names of the parts for the network's inputs in Karras et al. 2022, table 1."""


class NoiseSchedule(SavedAsJson, ABC):
    """Noise level as a function of time t in [0, 1], from clean (0) to noisiest (1).

    A schedule is a frozen dataclass that defines `log_snr` and its inverse `time`, both on float64
    tensors. The default `split` is variance preserving (alpha² + sigma² = 1). Derive from
    `Exploding` for alpha = 1, and from `Interpolating` for alpha + sigma = 1.
    """

    config_name = "schedule.json"

    @property
    def proposes(self) -> Mapping[str, str]:
        """Names of parts that suit the schedule, for options of `GaussianDiffusion` left None."""
        return {}

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """Returns `ln(alpha² / sigma²)` in nats at times t in [0, 1]; it falls in t.

        It is +inf where sigma = 0.
        """

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the time in [0, 1] with this log-SNR: the closed-form inverse of `log_snr`.

        The time at +inf is 0.
        """

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Returns alpha and sigma at `log_snr`, to full relative precision at both ends."""
        return torch.exp(0.5 * F.logsigmoid(log_snr)), torch.exp(0.5 * F.logsigmoid(-log_snr))

    def at(self, t: Scalar) -> Level:
        """Returns the level at time t.

        Args:
            t: Time in [0, 1]. A float gives a level of floats, a tensor [batch] a level of tensors.

        Raises:
            ValueError: If t is a float outside [0, 1].
        """
        if not isinstance(t, Tensor) and not 0 <= t <= 1:
            raise ValueError(
                f"Expected a time in [0, 1], from clean to noisiest, got {t}. "
                "Fix: divide training steps by their number."
            )
        times = _as_float64(t)
        return self._level(times, self.log_snr(times), isinstance(t, Tensor))

    def at_log_snr(self, log_snr: Scalar) -> Level:
        """Returns the level with this log-SNR in nats, given as a float or a tensor [batch]."""
        values = _as_float64(log_snr)
        return self._level(self.time(values), values, isinstance(log_snr, Tensor))

    @property
    def clean(self) -> Level:
        """Level of floats without noise: t = 0 and log-SNR = +inf.

        It exists for every schedule, even if the curve ends at a level with noise.
        """
        return self.at_log_snr(math.inf)

    def step_count(self, steps: int) -> int:
        """Returns the number of steps from t = 1 to the clean end, each 1 / steps of time.

        This is `steps`, or `steps + 1` for a schedule with noise at time 0.
        """
        return steps + (not self.at(0.0).is_end)

    def check_steps(self, steps: int) -> None:
        """Checks that each of `steps` equal steps in time removes noise.

        Raises:
            ValueError: If the schedule is constant over a step.
        """
        log_snr = self.log_snr(torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu"))
        if constant := int((log_snr[1:] >= log_snr[:-1]).sum()):
            raise ValueError(
                f"Expected log-SNR to fall in each of {steps} steps, got {constant} "
                f"steps in which {self} is constant, so they have no reverse step. "
                "Fix: take fewer steps, or lower clip_min."
            )

    def cleaner(self, at: Level, steps: int) -> Level:
        """Returns the level 1 / steps of time closer to the clean end.

        From time 0 it returns `clean`.
        """
        t = _as_float64(at.t)
        to = t - 1 / steps
        # less than 1e-4 steps is a rounding error
        level = self.at(torch.where(to * steps > 1e-4, to, 0.0))
        log_snr = torch.where(t * steps > 1e-4, level.log_snr, torch.inf)
        return self._level(level.t, log_snr, isinstance(at.t, Tensor))

    def _level(self, t: Tensor, log_snr: Tensor, as_tensors: bool) -> Level:
        values = (t, *self.split(log_snr), log_snr)
        return Level(*values) if as_tensors else Level(*(value.item() for value in values))


class Exploding(NoiseSchedule):
    """Base class of variance-exploding schedules, with alpha = 1.

    Because sigma can be large, they propose a scaling of the network's input.
    """

    @property
    def proposes(self) -> Mapping[str, str]:
        return PRECONDITIONING

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), torch.exp(-0.5 * log_snr)


class Interpolating(NoiseSchedule):
    """Base class of schedules with alpha + sigma = 1, such as that of flow matching."""

    def split(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(0.5 * log_snr), torch.sigmoid(-0.5 * log_snr)


@dataclass(frozen=True)
class Scaled(NoiseSchedule):
    """Schedule whose alpha is multiplied by `scale` (Chen 2023, sec. 2.2).

    Scaling shifts log-SNR by `2 ln(scale)` at the same sigma. Large images need more noise (a scale
    below 1), because neighbouring pixels are redundant.

    Args:
        schedule: Noise schedule to scale.
        scale: Factor of the clean data, above 0.

    Raises:
        ValueError: If `scale` is not above 0 and finite.
    """

    schedule: NoiseSchedule
    scale: float

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf):
            raise ValueError(
                f"Expected scale above 0 and finite, got {self.scale}. Fix: use 1 for no scaling."
            )

    @property
    def proposes(self) -> Mapping[str, str]:
        return {**self.schedule.proposes, "input_scaling": "measured_variance"}

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
    # MPS does not support float64
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)
