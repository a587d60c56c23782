"""`VariationalLoss`, and the terms of the bound on -log p(x0) (Ho et al. 2020, eq. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..conditions import Conditions
from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level, Prediction
from ..process.posterior import Variance, as_float64, log_variance, posterior
from .base import Loss, NoisedBatch


@final
@dataclass(frozen=True)
class VariationalLoss(Loss):
    """Variational bound in bits per dimension, without the constant prior term.

    Loss weights have no effect on it.

    Args:
        variance: Variance of the reverse steps: 'small', 'large', 'learned' or 'learned_range'.
        rescaled: Whether to multiply by the number of process steps. The mean loss is then the
            bound, which is a sum over steps; otherwise it is the bound's mean over steps.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data.
    """

    variance: Variance = "learned_range"
    rescaled: bool = True
    bins: int | None = 256

    times: ClassVar[str | None] = "steps"

    def check(self, parts: NetworkParts, steps: int | None, conditions: Conditions) -> None:
        if steps is None:
            raise ValueError(
                "Expected process steps, since the bound is a sum over them, got continuous "
                "times. Fix: set times to 'steps' or 'loss_aware'."
            )
        parts.schedule.check_steps(steps)
        if self.variance.startswith("learned") and not parts.signature.learned_variance:
            raise ValueError(
                f"Expected a network with a variance output for variance={self.variance!r}, got "
                f"{parts.signature.name} without one. Fix: set its learned_variance to true."
            )

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        output, variance = denoise.output(batch.x, batch.at)
        return self.term(output, variance, denoise, batch)

    def term(
        self, output: Tensor, variance: Tensor | None, denoise: NetworkDenoiser, batch: NoisedBatch
    ) -> Tensor:
        """Returns the bound's terms [batch] for an output of the network.

        Args:
            output: Output of the network, [batch, ...].
            variance: Learned variance, shaped like output, or None.
            denoise: Denoiser with the schedule and the objective.
            batch: Noised batch.

        Raises:
            ValueError: If the batch has a mask.
        """
        if batch.mask is not None:
            raise ValueError(
                "Expected no mask, since the bound counts every dimension, got one. "
                "Fix: set loss='simple'."
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
    """Returns the bound's term of one step in bits per dimension, [batch].

    It is the KL divergence of the step or, for a step to the clean end, the reconstruction term
    -log p(x0 | x).

    Args:
        x0: Clean data in [-1, 1], [batch, ...].
        x: Noised data at `now`, shaped like x0.
        prediction: Denoiser's prediction for x.
        now: Levels at which the step starts, of floats or of tensors [batch]; sigma > 0.
        to: Levels at which the step ends, with less noise.
        variance: Variance of the model's reverse step, as in `process.posterior.log_variance`.
        before: Levels one step noisier than `now`; equal to `now` at the noisiest step.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data, whose reconstruction term is a density.
    """
    log_var = log_variance(variance, prediction, now, to, before)
    mean, _ = posterior(prediction.x0, x, now, to)
    true_mean, true_log_var = posterior(x0, x, now, to)
    at_end = torch.isneginf(true_log_var)
    if at_end.ndim == 0:  # with levels of floats, only one of the terms is needed
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
    """Returns KL(q(x | x0) || N(0, sigma²)) in bits per dimension, [batch].

    Args:
        x0: Clean data, [batch, ...].
        at: Noisiest level, at which sampling starts.
    """
    return bits_per_dim(x0.square()) * (torch.exp(as_float64(at.log_snr)) / 2)


def gaussian_kl(mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor) -> Tensor:
    """Returns the elementwise KL divergence of two Gaussians in nats.

    It is KL(N(mean, exp(log_var)) || N(other_mean, exp(other_log_var))).
    """
    gap = other_log_var - log_var
    return 0.5 * (
        torch.expm1(-gap) + gap + (mean - other_mean).square() * torch.exp(-other_log_var)
    )


def gaussian_nll(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Returns the elementwise negative log-density of N(mean, std²) at x0, in nats."""
    return (
        0.5 * math.log(2 * math.pi) + log_std + 0.5 * ((x0 - mean) * torch.exp(-log_std)).square()
    )


def discretised_gaussian_nll(x0: Tensor, mean: Tensor, log_std: Tensor, bins: int = 256) -> Tensor:
    """Returns the elementwise negative log-probability of x0's bin (Ho et al. 2020, eq. 13).

    The bin centres are evenly spaced from -1 to 1; the first and last bins extend to infinity. The
    calculation uses the log-probabilities of the tails, in float64 where the device supports it. It
    therefore stays finite and keeps its gradient for any distance of x0 from the mean.

    Returns:
        Nats, not negative, in the shape and dtype of x0.
    """
    exact = x0.dtype if x0.device.type == "mps" else torch.float64  # MPS has no float64
    half = 1 / (bins - 1)
    scale = torch.exp(-log_std.to(exact))
    offset = x0.to(exact) - mean.to(exact)
    # By symmetry, the bin lies above the mean, where the tails are small.
    near, far = (offset.abs() - half) * scale, (offset.abs() + half) * scale
    log_near, log_far = torch.special.log_ndtr(-near), torch.special.log_ndtr(-far)
    inside = log_near + _log1mexp(log_near - log_far)
    first = torch.special.log_ndtr((offset + half) * scale)
    last = torch.special.log_ndtr((half - offset) * scale)
    log_probability = torch.where(x0 > 1 - half, last, torch.where(x0 < half - 1, first, inside))
    return -log_probability.to(x0.dtype)


def bits_per_dim(nats: Tensor) -> Tensor:
    """Converts nats [batch, ...] of each dimension to bits per dimension [batch]."""
    return nats.flatten(1).mean(1) / math.log(2)


def _reconstruction(
    x0: Tensor, mean: Tensor, log_var: Tensor, to: Level, bins: int | None
) -> Tensor:
    """Returns -log p(x0 | x) in nats for the model's Gaussian of x_to = alpha x0."""
    alpha = to.expand_to(x0).alpha
    log_std = log_var / 2 - torch.log(as_float64(alpha))
    if bins is None:
        return gaussian_nll(x0, mean / alpha, log_std)
    return discretised_gaussian_nll(x0, mean / alpha, log_std, bins)


def _log1mexp(x: Tensor) -> Tensor:
    """Returns ln(1 - exp(-x)) for x > 0, without cancellation at either end."""
    x = x.clamp(min=torch.finfo(x.dtype).tiny)
    small = torch.log(-torch.expm1(-x.clamp(max=1)))
    return torch.where(x < math.log(2), small, torch.log1p(-torch.exp(-x)))
