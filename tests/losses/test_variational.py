"""Tests of the bound's terms against float64 formulas of the papers, and against 60 digits."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from discrete_process import BETAS, SCHEDULE, levels, term_by_hand
from oracles import GaussianOracle

from diffusion_framework import EDM, Cosine, Flow, Sigmoid
from diffusion_framework.losses.variational import (
    bound_term,
    discretised_gaussian_nll,
    gaussian_kl,
    prior_term,
)
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.posterior import log_variance, posterior
from diffusion_framework.process.schedules import Betas, Scaled


@pytest.fixture
def batch():
    """Returns clean 8-bit data with both extremes, noise, predicted noise and learned variance."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randint(0, 256, (5, 3, 4), generator=generator).double() / 127.5 - 1
    x0[0, 0, :2] = torch.tensor([-1.0, 1.0])
    eps, error = torch.randn(2, *x0.shape, generator=generator, dtype=torch.float64)
    return (
        x0,
        eps,
        eps + 0.1 * error,
        torch.rand(x0.shape, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("variance", ["small", "large", "learned", "learned_range"])
def test_every_term_equals_the_discrete_process(batch, variance):
    x0, eps, eps_hat, share = batch
    for step in range(len(BETAS)):
        before, now, to = levels(step)
        x = now.alpha * x0 + now.sigma * eps
        prediction = Prediction.from_eps(eps_hat, x, now)
        prediction = Prediction(prediction.x0, prediction.eps, share)
        got = bound_term(x0, x, prediction, now, to, variance, before)
        nats = term_by_hand(*(v.numpy() for v in (x0, x, eps_hat)), step, variance, share.numpy())
        wanted = nats.mean(axis=(1, 2)) / np.log(2)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize("variance", ["small", "large", "learned", "learned_range"])
def test_a_batch_of_levels_equals_one_level_after_the_other(batch, variance):
    """In training, each sample has its own step, and some steps end clean."""
    x0, eps, eps_hat, share = batch
    steps = torch.tensor([0, 3, 1, 5, 0])
    before, now, to = (SCHEDULE.at(((steps + i) / len(BETAS)).clamp(max=1)) for i in (2, 1, 0))
    at = now.expand_to(x0)
    x = at.alpha * x0 + at.sigma * eps
    guess = Prediction.from_eps(eps_hat, x, now)
    together = bound_term(x0, x, Prediction(guess.x0, guess.eps, share), now, to, variance, before)
    for i, step in enumerate(steps.tolist()):
        before_one, now_one, to_one = levels(step)
        one = Prediction(guess.x0[i : i + 1], guess.eps[i : i + 1], share[i : i + 1])
        alone = bound_term(x0[i : i + 1], x[i : i + 1], one, now_one, to_one, variance, before_one)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=1e-9)


def test_gradients_are_finite_in_a_batch_that_mixes_ends_and_inner_steps(batch):
    x0, eps, eps_hat, share = (v.float() for v in batch)
    eps_hat.requires_grad_(), share.requires_grad_()
    steps = torch.tensor([0, 3, 1, 5, 0])
    before, now, to = (SCHEDULE.at(((steps + i) / len(BETAS)).clamp(max=1)) for i in (2, 1, 0))
    at = now.expand_to(x0)
    x = at.alpha * x0 + at.sigma * eps
    guess = Prediction.from_eps(eps_hat, x, now)
    term = bound_term(
        x0, x, Prediction(guess.x0, guess.eps, share), now, to, "learned_range", before
    )
    term.sum().backward()
    assert eps_hat.grad.isfinite().all() and share.grad.isfinite().all()
    assert (eps_hat.grad != 0).any(dim=(1, 2)).all() and (share.grad != 0).any(dim=(1, 2)).all()


def test_the_prior_term_is_the_divergence_of_the_noisiest_level(batch):
    x0 = batch[0]
    for schedule in (SCHEDULE, EDM(), Flow(), Scaled(Sigmoid(), 0.5)):
        at = schedule.at(1.0)
        log_var = torch.tensor(2 * math.log(at.sigma), dtype=torch.float64)
        nats = gaussian_kl(at.alpha * x0, log_var, torch.zeros(()), log_var)
        torch.testing.assert_close(prior_term(x0, at), nats.mean(dim=(1, 2)) / math.log(2))


@pytest.mark.parametrize(
    "schedule", [Sigmoid(), Cosine(), EDM(), Flow(), Scaled(Sigmoid(), 0.5)], ids=repr
)
def test_the_posterior_follows_bayes_rule(schedule):
    """Applies Bayes' rule with 60 digits to x_now ~ N((alpha / alpha') x_to, ...) given x_to."""
    mpmath.mp.dps = 60
    times = [1.0, 0.999, 0.5, 0.01, 1e-4, 1e-9, 0.0]
    x0, x = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[1.3]], dtype=torch.float64)
    for now, to in itertools.pairwise(schedule.at(t) for t in times):
        if not now.log_snr < to.log_snr:
            continue
        mean, log_var = posterior(x0, x, now, to)
        alpha, alpha_to = mpmath.mpf(now.alpha), mpmath.mpf(to.alpha)
        var_now = mpmath.mpf(now.sigma) ** 2
        ratio = alpha / alpha_to
        # From both log-SNRs, since rounding errors would dominate the difference of variances.
        snr_ratio = mpmath.exp(mpmath.mpf(now.log_snr) - mpmath.mpf(to.log_snr))
        var_to = var_now * snr_ratio / ratio**2 if ratio else mpmath.mpf(to.sigma) ** 2
        forward = var_now - ratio**2 * var_to
        variance = var_to * forward / var_now
        wanted = (alpha_to * mpmath.mpf(0.4) * forward + ratio * mpmath.mpf(1.3) * var_to) / var_now
        assert mean.item() == pytest.approx(float(wanted), rel=1e-11)
        assert log_var.exp().item() == pytest.approx(float(variance), rel=1e-11)


def test_a_single_step_has_the_large_variance():
    schedule = Betas((0.3,))
    now, x = schedule.at(1.0), torch.zeros(1, 1, dtype=torch.float64)
    for variance in ("small", "large"):
        log_var = log_variance(variance, Prediction(x, x), now, schedule.clean, now)
        assert log_var.item() == pytest.approx(math.log(0.3), rel=1e-12)


def test_a_learned_variance_of_a_network_without_one_is_refused():
    before, now, to = levels(3)
    x = torch.zeros(1, 1)
    for variance, said in (
        ("learned", "two outputs"),
        ("learned_range", "two outputs"),
        ("medium", "one of"),
    ):
        with pytest.raises(ValueError, match=said):
            log_variance(variance, Prediction(x, x), now, to, before)


@pytest.mark.parametrize("std", [1e-4, 1e-2, 0.3, 5.0, 1e3])
@pytest.mark.parametrize("x0", [-1.0, -127 / 255, 1 / 255, 253 / 255, 1.0])
def test_the_discretised_gaussian_is_accurate_in_its_tails(x0, std):
    """Compares with 60 digits, up to 20,000 standard deviations from the mean.

    Common code clamps the probability at 1e-12 instead.
    """
    mpmath.mp.dps = 60
    for mean in (-1.0, -0.5, 0.0, 0.004, 0.99, 1.3):
        lower = -mpmath.inf if x0 == -1 else (mpmath.mpf(x0) - mpmath.mpf(1) / 255 - mean) / std
        upper = mpmath.inf if x0 == 1 else (mpmath.mpf(x0) + mpmath.mpf(1) / 255 - mean) / std
        if lower + upper > 0:  # the other tail avoids a difference from 1
            lower, upper = -upper, -lower
        wanted = -mpmath.log(_ndtr(upper) - _ndtr(lower))
        double = {"dtype": torch.float64}
        mean_, log_std = (
            torch.tensor([mean], **double).requires_grad_(),
            torch.tensor([math.log(std)], **double),
        )
        got = discretised_gaussian_nll(
            torch.tensor([x0], **double), mean_, log_std.requires_grad_()
        )
        assert got.item() == pytest.approx(float(wanted), rel=1e-9, abs=1e-15)
        slopes = torch.autograd.grad(got, (mean_, log_std))
        assert all(slope.isfinite().all() for slope in slopes)


def _ndtr(x):
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2 if x != -mpmath.inf else mpmath.mpf(0)


def test_the_probabilities_of_all_bins_add_up_to_one():
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, log_std in ((0.3, -5.0), (-1.2, -1.0), (0.0, 2.0)):
        nll = discretised_gaussian_nll(
            values, torch.full_like(values, mean), torch.full_like(values, log_std)
        )
        assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-12)


def test_the_exact_learned_range_minimises_the_term_of_gaussian_data():
    """With exact mean and variance, the reverse step of Gaussian data is q(x_to | x_now)."""
    oracle = GaussianOracle(mean=0.3, std=0.4, schedule=SCHEDULE)
    x0 = 0.3 + 0.4 * torch.randn(200_000, 1, dtype=torch.float64)
    eps = torch.randn_like(x0)
    _, now, to = levels(3)
    x = now.alpha * x0 + now.sigma * eps
    prediction = oracle(x, now)
    small, large = (log_variance(kind, prediction, now, to) for kind in ("small", "large"))
    exact = math.exp(oracle.reverse_log_variance(now, to))
    share = ((math.log(exact) - small) / (large - small)).expand_as(x)
    learned = Prediction(prediction.x0, prediction.eps, share)
    got = bound_term(x0, x, learned, now, to, "learned_range", now).mean().item()
    # mutual information of x0 and x_to given x_now
    mutual = 0.5 * (math.log(exact) - small.item()) / math.log(2)
    assert got == pytest.approx(mutual, rel=0.01)
    for kind in ("small", "large"):
        assert bound_term(x0, x, prediction, now, to, kind, now).mean().item() > 1.05 * got
