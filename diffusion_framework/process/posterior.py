"""The reverse step: q(x_to | x_now, x0), and the variances that a model may give its own Gaussian in its place."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .level import Level, Prediction, Scalar, expand_to

Variance = Literal["small", "large", "learned", "learned_range"]
"""Of a reverse step: `small` is that of q(x_to | x_now, x0), right where the data is a single point; `large` is that of
the forward step, right where the data is standard normal (Ho et al. 2020, sec. 3.2). With `learned` the network puts
out the log-variance itself, with `learned_range` a place between the logarithms of those two (Nichol & Dhariwal 2021,
eq. 15)."""
VARIANCES: tuple[str, ...] = get_args(Variance)


def posterior(x0: Tensor, x: Tensor, now: Level, to: Level) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of q(x_to | x_now = x, x0), exact on any schedule (Ho et al. 2020, eq. 7).

    Args:
        x0: Clean data, [batch, ...].
        x: The same with the noise of `now`.
        now: Levels of floats, or of tensors [batch]; sigma > 0.
        to: Levels with less noise.

    Returns:
        The mean, shaped like x, and the log-variance in nats, which broadcasts against it; -inf where to.sigma = 0.
    """
    fall = as_float64(now.log_snr) - as_float64(to.log_snr)
    of_x0 = -torch.expm1(fall) * as_float64(to.alpha)
    of_x = as_float64(to.sigma) / as_float64(now.sigma) * torch.exp(fall / 2)
    return expand_to(of_x0, x) * x0 + expand_to(of_x, x) * x, expand_to(_log_variance(to.sigma, now, to), x)


def log_variance(
    variance: Variance, prediction: Prediction, now: Level, to: Level, before: Level | None = None
) -> Tensor:
    """Log-variance in nats of the model's reverse step from `now` to `to`; it broadcasts against prediction.x0.

    In the step to the clean end, q(x_to | x_now, x0) is a point. There the small variance, and the large one too, is
    that of the step before it, which gives images a better likelihood (Ho et al.'s and Nichol & Dhariwal's code).

    Args:
        variance: Which one.
        prediction: Of a denoiser at `now`; its `variance` is what the network learned: for `learned_range` the place
            between small (0) and large (1), for `learned` half of one more than the log-variance.
        now: Levels of floats, or of tensors [batch]; sigma > 0.
        to: Levels with less noise.
        before: The levels one step noisier than `now`, which only a step to the clean end asks for (if there are none,
            `now` itself: the large variance then serves). None leaves the small variance 0 there.

    Raises:
        ValueError: an unknown variance, or a learned one of a network that learned none.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}; got {variance!r}")
    if variance in ("learned", "learned_range"):
        if prediction.variance is None:
            raise ValueError(
                f"variance={variance!r} needs a network with two outputs a channel; got one without: "
                "use 'small' or 'large'"
            )
        learned = prediction.variance
    if variance == "learned":
        return 2 * learned - 1
    small, large = _log_variance(to.sigma, now, to), _log_variance(now.sigma, now, to)
    at_end = as_float64(to.sigma) == 0
    if before is not None:
        clipped = _log_variance(now.sigma, before, now)
        small = torch.where(at_end, torch.where(clipped.isfinite(), clipped, large), small)
    if variance == "large":
        large = torch.where(at_end, small, large)
    small, large = expand_to(small, prediction.x0), expand_to(large, prediction.x0)
    if variance == "learned_range":
        return small + learned * (large - small)
    return small if variance == "small" else large


def _log_variance(sigma: Scalar, now: Level, to: Level) -> Tensor:
    """ln(sigma² (1 - snr / snr')): the small variance has the sigma of `to`, the large one that of `now`."""
    fall = as_float64(now.log_snr) - as_float64(to.log_snr)
    return 2 * torch.log(as_float64(sigma)) + torch.log(-torch.expm1(fall))


def as_float64(value: Scalar) -> Tensor:
    """A float as a tensor of one number in full precision; tensors stay."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")
