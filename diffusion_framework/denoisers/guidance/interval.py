"""Guidance in an interval of noise levels (Kynkäänniemi et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Predictions, Rule
from .modifier import Modifier


@final
@dataclass(frozen=True)
class Interval(Modifier):
    """Guidance at some noise levels only; at the others, sampling is plain and costs half.

    Guidance at high noise removes modes of the data, and at low noise it has little effect
    (Kynkäänniemi et al. 2024). The level at which the network is called counts, so the interval
    does not depend on the number of steps.

    Args:
        scale: Scale of classifier-free guidance as the inner guidance, instead of `inner`.
        inner: Guidance to apply; None for classifier-free guidance of `scale`, or of 2 without.
        low: End of the interval; None for no limit. Guidance needs a sigma above `low`, or a
            log_snr of at least `low`.
        high: Other end, above `low`; None for no limit. Guidance needs a sigma of at most `high`,
            or a log_snr below `high`.
        unit: Unit of both ends: 'sigma' is sigma / alpha, the noise level of Karras et al. 2022;
            'log_snr' is ln(alpha² / sigma²).

    Raises:
        ValueError: ends that do not rise, or both a scale and an inner guidance.
    """

    low: float | None = None
    high: float | None = None
    unit: Literal["sigma", "log_snr"] = "sigma"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"Expected an interval with low < high, got low {self.low} and high {self.high}. "
                "Fix: exchange them."
            )
        if self.unit not in ("sigma", "log_snr"):
            raise ValueError(
                f"Expected the unit 'sigma' or 'log_snr', got {self.unit!r:.60}. "
                "Fix: choose one of them."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        return _InInterval(self, self.changed.begin(denoise))

    def holds(self, at: Level) -> bool:
        """Returns whether a level of floats lies in the interval."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if self.unit == "log_snr":
            return bool(low <= at.log_snr < high)
        sigma = at.sigma / at.alpha if at.alpha else math.inf
        return bool(low < sigma <= high)


@final
class _InInterval(Rule):
    """Rule that follows another one in an interval."""

    def __init__(self, interval: Interval, inner: Rule) -> None:
        super().__init__(inner.plain)
        self.interval, self.inner = interval, inner

    def asks(self, at: Level) -> Sequence[NetworkDenoiser]:
        return self.inner.asks(at) if self.interval.holds(at) else ()

    def differentiates(self, at: Level) -> bool:
        return self.interval.holds(at) and self.inner.differentiates(at)

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        if self.interval.holds(at):
            return self.inner.combine(predictions, x, at)
        return predictions[self.plain]
