"""The variational bound on -log p(x0), in bits per dimension (Ho et al. 2020, eq. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level, Prediction
from ..process.posterior import Variance, as_float64, log_variance, posterior
from .base import Loss, NoisedBatch


@final
@dataclass(frozen=True)
class VariationalLoss(Loss):
    """The variational bound in bits per dimension, without its prior term, which is constant.

    Loss weights have no effect on it.

    Args:
        variance: Variance of the reverse steps: 'small', 'large', 'learned' or 'learned_range'.
        rescaled: Whether to multiply by the number of steps. The mean loss is then the whole bound,
            a sum over steps; without, it is the bound's mean over steps.
        bins: Number of values of the clean data, evenly spaced over [-1, 1]: 256 for images of
            8 bits; None for continuous data.
    """

    variance: Variance = "learned_range"
    rescaled: bool = True
    bins: int | None = 256

    times: ClassVar[str | None] = "steps"

    def check(self, parts: NetworkParts, steps: int | None) -> None:
        if steps is None:
            raise ValueError(
                "Expected the steps of a process, over which the bound is a sum, got continuous "
                "times. "
                "Fix: set times to 'steps' or 'loss_aware'."
            )
        parts.schedule.check_steps(steps)
        if self.variance.startswith("learned") and not parts.signature.learned_variance:
            raise ValueError(
                f"Expected a network that puts out a variance for variance={self.variance!r}, got "
                f"{parts.signature.name} without. Fix: set its learned_variance to true."
            )

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        output, variance = denoise.output(batch.x, batch.at)
        return self.term(output, variance, denoise, batch)

    def term(
        self, output: Tensor, variance: Tensor | None, denoise: NetworkDenoiser, batch: NoisedBatch
    ) -> Tensor:
        """The bound's terms [batch] for what the network put out.

        Args:
            output: The network's output, [batch, ...].
            variance: What it learned of the variance, shaped like output, or None.
            denoise: Gives the schedule and the objective.
            batch: What was noised.

        Raises:
            ValueError: a batch with a mask.
        """
        if batch.mask is not None:
            raise ValueError(
                "Expected no mask, as the bound counts every dimension, got one. Fix: "
                "loss='simple'."
            )
        schedule, steps, at = denoise.schedule, batch.steps, batch.at
        assert steps is not None
        prediction = denoise.objective.prediction(output, batch.x, at, variance)
        to, before = schedule.cleaner(at, steps), schedule.at((at.t + 1 / steps).clamp(max=1))
        term = bound_term(batch.x0, batch.x, prediction, at, to, self.variance, before, self.bins)
        return term * schedule.step_count(steps) if self.rescaled else term


def bound_term(
    x0: Tensor,
    x: Tensor,
    prediction: Prediction,
    now: Level,
    to: Level,
    variance: Variance,
    before: Level,
    bins: int | None = 256,
) -> Tensor:
    """The bound's term of the step from `now` to `to`: its KL divergence, or in the step to the
    clean end the
    reconstruction, -log p(x0 | x).

    Args:
        x0: Clean data in [-1, 1], [batch, ...].
        x: The same with the noise of `now`.
        prediction: What the denoiser says of x.
        now: Levels of floats, or of tensors [batch]; sigma > 0.
        to: Levels with less noise.
        variance: Of the model's reverse step (see `process.posterior.log_variance`).
        before: The levels one step noisier than `now`, or `now` where there are none; see there.
        bins: Equal steps of the data in [-1, 1], 256 for 8-bit images; None for continuous data,
            whose reconstruction is a density.

    Returns:
        [batch], in bits per dimension.
    """
    log_var = log_variance(variance, prediction, now, to, before)
    mean, _ = posterior(prediction.x0, x, now, to)
    true_mean, true_log_var = posterior(x0, x, now, to)
    at_end = torch.isneginf(true_log_var)
    if at_end.ndim == 0:  # floats: one of the two will do
        term = (
            _reconstruction(x0, mean, log_var, to, bins)
            if at_end
            else gaussian_kl(true_mean, true_log_var, mean, log_var)
        )
    else:
        divergence = gaussian_kl(
            true_mean, torch.where(at_end, log_var, true_log_var), mean, log_var
        )
        term = torch.where(at_end, _reconstruction(x0, mean, log_var, to, bins), divergence)
    return bits_per_dim(term)


def prior_term(x0: Tensor, at: Level) -> Tensor:
    """KL(q(x | x0) || N(0, sigma²)) at the noisiest level, where sampling starts.

    [batch], in bits per dimension.
    """
    return bits_per_dim(x0.square()) * (torch.exp(as_float64(at.log_snr)) / 2)


def gaussian_kl(mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(other_mean, exp(other_log_var))) in nats, entry by entry."""
    gap = other_log_var - log_var
    return 0.5 * (
        torch.expm1(-gap) + gap + (mean - other_mean).square() * torch.exp(-other_log_var)
    )


def gaussian_nll(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-ln of the density of N(mean, std²) at x0, in nats, entry by entry."""
    return (
        0.5 * math.log(2 * math.pi) + log_std + 0.5 * ((x0 - mean) * torch.exp(-log_std)).square()
    )


def discretised_gaussian_nll(x0: Tensor, mean: Tensor, log_std: Tensor, bins: int = 256) -> Tensor:
    """-ln of the probability that N(mean, std²) gives to the bin around x0, in nats (Ho et al.
    2020, eq. 13).

    The bins are centred at even steps from -1 to 1; the first and the last go on to infinity.
    Computed in float64 by the logarithms of the tails, so that it stays finite and has a gradient
    however far x0 and mean are apart.

    Returns:
        Entry by entry, in the dtype of x0; not negative.
    """
    exact = x0.dtype if x0.device.type == "mps" else torch.float64  # MPS has no float64
    half = 1 / (bins - 1)
    scale = torch.exp(-log_std.to(exact))
    off = x0.to(exact) - mean.to(exact)
    near, far = (
        (off.abs() - half) * scale,
        (off.abs() + half) * scale,
    )  # the bin's edges, on the upper side of the mean
    log_near, log_far = torch.special.log_ndtr(-near), torch.special.log_ndtr(-far)
    inside = log_near + _log1mexp(log_near - log_far)
    up, down = (
        torch.special.log_ndtr((off + half) * scale),
        torch.special.log_ndtr((half - off) * scale),
    )
    log_probability = torch.where(x0 > 1 - half, down, torch.where(x0 < half - 1, up, inside))
    return -log_probability.to(x0.dtype)


def bits_per_dim(nats: Tensor) -> Tensor:
    """[batch, ...] nats, one for each dimension of the data -> [batch] bits per dimension."""
    return nats.flatten(1).mean(1) / math.log(2)


def _reconstruction(
    x0: Tensor, mean: Tensor, log_var: Tensor, to: Level, bins: int | None
) -> Tensor:
    """-log p(x0 | x) in nats, for the model's Gaussian of x_to = alpha x0."""
    alpha = to.expand_to(x0).alpha
    log_std = log_var / 2 - torch.log(as_float64(alpha))
    if bins is None:
        return gaussian_nll(x0, mean / alpha, log_std)
    return discretised_gaussian_nll(x0, mean / alpha, log_std, bins)


def _log1mexp(x: Tensor) -> Tensor:
    """ln(1 - exp(-x)) for x > 0, each half by the form that does not cancel there."""
    x = x.clamp(min=torch.finfo(x.dtype).tiny)
    small = torch.log(-torch.expm1(-x.clamp(max=1)))
    return torch.where(x < math.log(2), small, torch.log1p(-torch.exp(-x)))
