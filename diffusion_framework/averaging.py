"""Averages of weights with power-function profiles, and others made from them (post-hoc EMA).

See Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", sec. 3
and app. C. A profile says how much the weights of each step take part in their average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NARROWEST = 0.001
WIDEST = 1 / math.sqrt(12)  # the mean of all steps
_CUTOFF = 1e-13  # singular values below this share of the largest are rounding errors


@dataclass(frozen=True)
class PowerProfile:
    """Average over steps 0 to t with the profile `(gamma + 1) s**gamma / t**(gamma + 1)` at step s.

    Unlike that of an ordinary EMA, its shape does not depend on the length of the training.

    Args:
        width: Standard deviation of s over the profile, as a share of t, in [0.001, 0.2887).

    Raises:
        ValueError: If the width is out of range.
    """

    width: float

    def __post_init__(self) -> None:
        if not NARROWEST <= self.width < WIDEST:
            raise ValueError(
                f"Expected a width of the average in [{NARROWEST}, {WIDEST:.4f}), got "
                f"{self.width!r}. Fix: choose one such as 0.05 or 0.1."
            )

    @property
    def name(self) -> str:
        """The width in words, such as 0.05."""
        return f"{self.width:g}"

    @cached_property
    def gamma(self) -> float:
        """Exponent, above 0 (Karras et al. 2024, alg. 2)."""
        scale = self.width**-2  # width² = (gamma + 1) / ((gamma + 2)² (gamma + 3))
        return float(np.roots([1, 7, 16 - scale, 12 - scale]).real.max())

    def decay(self, before: float, now: float) -> float:
        """Returns the share of the average at one step that stays in the average at a later one."""
        share: float = (before / now) ** (self.gamma + 1)
        return share


@dataclass(frozen=True)
class Combination:
    """An average made from others.

    Attributes:
        coefficients: Share of each of the others; they add up to 1.
        error: RMS difference of its profile to the wanted one, as a share of the RMS of that one.
    """

    coefficients: Floats
    error: float


class Averages:
    """Averages with known profiles, each taken at a step of one training.

    Args:
        profiles: Profile of each.
        steps: Step of each, above 0.
    """

    def __init__(self, profiles: Sequence[PowerProfile], steps: Sequence[float]) -> None:
        self._gammas = np.array([profile.gamma for profile in profiles])
        self._steps = np.array(steps, float)
        self._products = inner_products(
            self._steps[:, None], self._gammas[:, None], self._steps, self._gammas
        )
        self._norms = np.sqrt(np.diag(self._products))
        unit = self._products / self._norms / self._norms[:, None]
        self._inverse = np.linalg.pinv(unit, rcond=_CUTOFF, hermitian=True)

    def combine(self, wanted: PowerProfile, step: float) -> Combination:
        """Returns the combination whose profile is nearest to another one (alg. 3).

        Args:
            wanted: Profile to make.
            step: Step up to which it averages.
        """
        gamma, at = np.float64(wanted.gamma), np.float64(step)
        with_wanted = inner_products(self._steps, self._gammas, at, gamma)
        found = self._inverse @ (with_wanted / self._norms) / self._norms
        found = found / found.sum()
        square = inner_products(at, gamma, at, gamma)
        miss = square - 2 * found @ with_wanted + found @ self._products @ found
        return Combination(found, math.sqrt(max(0.0, float(miss / square))))


def inner_products(
    step_a: Floats | np.float64,
    gamma_a: Floats | np.float64,
    step_b: Floats | np.float64,
    gamma_b: Floats | np.float64,
) -> Floats:
    """Returns the integral of the product of two profiles over all steps."""
    exponent = np.where(step_a < step_b, gamma_b, -gamma_a)
    top = (gamma_a + 1) * (gamma_b + 1) * (step_a / step_b) ** exponent
    bottom = (gamma_a + gamma_b + 1) * np.maximum(step_a, step_b)
    product: Floats = top / bottom
    return product
