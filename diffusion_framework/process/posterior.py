"""The reverse step q(x_to | x_now, x0), and the variances of a model's own reverse step."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .level import Level, Prediction, Scalar, expand_to

Variance = Literal["small", "large", "learned", "learned_range"]
"""Variance of a reverse step.

- `small`: variance of q(x_to | x_now, x0), exact where the data is a single point.
- `large`: variance of the forward step, exact where the data is standard normal (Ho et al. 2020,
  sec. 3.2).
- `learned`: the network predicts the log-variance itself.
- `learned_range`: the network predicts an interpolation between the logarithms of `small` and
  `large` (Nichol & Dhariwal 2021, eq. 15).
"""
VARIANCES: tuple[str, ...] = get_args(Variance)


def posterior(x0: Tensor, x: Tensor, now: Level, to: Level) -> tuple[Tensor, Tensor]:
    """Computes mean and log-variance of q(x_to | x_now = x, x0) (Ho et al. 2020, eq. 7).

    The result is exact on any schedule.

    Args:
        x0: Clean data, [batch, ...].
        x: The same data with the noise of `now`, [batch, ...].
        now: Level of floats or of tensors [batch], with sigma > 0.
        to: Level with less noise.

    Returns:
        The mean, shaped like x, and the log-variance in nats, which broadcasts against x and is
        -inf where to.sigma = 0.
    """
    log_snr_change = as_float64(now.log_snr) - as_float64(to.log_snr)
    x0_factor = -torch.expm1(log_snr_change) * as_float64(to.alpha)
    x_factor = as_float64(to.sigma) / as_float64(now.sigma) * torch.exp(log_snr_change / 2)
    mean = expand_to(x0_factor, x) * x0 + expand_to(x_factor, x) * x
    return mean, expand_to(_log_variance(to.sigma, now, to), x)


def log_variance(
    variance: Variance, prediction: Prediction, now: Level, to: Level, before: Level | None = None
) -> Tensor:
    """Computes the log-variance in nats of the model's reverse step from `now` to `to`.

    At the clean end, q(x_to | x_now, x0) is a point. For the step to the clean end, both `small`
    and `large` therefore use the small variance of the step before it. This improves the likelihood
    of images, as in the code of Ho et al. and of Nichol & Dhariwal.

    Args:
        variance: Kind of variance; see `Variance`.
        prediction: Prediction of a denoiser at `now`. Its `variance` holds the network's output.
            This is the interpolation from small (0) to large (1) for `learned_range`, and
            (log-variance + 1) / 2 for `learned`.
        now: Level of floats or of tensors [batch], with sigma > 0.
        to: Level with less noise.
        before: Level one step noisier than `now`, used only for a step to the clean end. Where no
            noisier level exists, pass `now`; the large variance is then used. None leaves the small
            variance 0 at the clean end.

    Returns:
        A tensor that broadcasts against prediction.x0.

    Raises:
        ValueError: If `variance` is unknown, or learned while the prediction has none.
    """
    if variance not in VARIANCES:
        raise ValueError(
            f"Expected variance to be one of {', '.join(VARIANCES)}, got {variance!r}. "
            "Fix: use 'small', 'large', or the variance the network learned."
        )
    if variance in ("learned", "learned_range"):
        if prediction.variance is None:
            raise ValueError(
                f"Expected a network with two outputs per channel for variance={variance!r}, "
                "got one without a learned variance. Fix: use 'small' or 'large'."
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
    """Returns ln(sigma² (1 - snr / snr')) for the sigma of `to` or `now`."""
    log_snr_change = as_float64(now.log_snr) - as_float64(to.log_snr)
    return 2 * torch.log(as_float64(sigma)) + torch.log(-torch.expm1(log_snr_change))


def as_float64(value: Scalar) -> Tensor:
    """Converts a float to a float64 tensor []; tensors are returned unchanged."""
    return (
        value
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.float64, device="cpu")
    )
