"""Tests of the likelihood of the probability flow."""

import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from toys import tiny_unet

from diffusion_framework import EDM, Flow, GaussianDiffusion, Sigmoid
from diffusion_framework.evaluation.likelihood import flow_bits, flow_bits_per_dim
from diffusion_framework.evaluation.likelihood.runge_kutta import integrate
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import VE, LinearBeta

DOUBLE = {"dtype": torch.float64}
NOISE = generator_noise()


def exact_bits(oracle, x0):
    """Returns -log2 of the density of the data, per dimension."""
    parts = [(oracle.mean, oracle.std, 1.0)] if isinstance(oracle, GaussianOracle) else []
    parts = parts or zip(oracle.means, oracle.stds, oracle.weights, strict=True)
    logs = [
        math.log(w) + torch.distributions.Normal(mean, std).log_prob(x0) for mean, std, w in parts
    ]
    return -torch.logsumexp(torch.stack(logs), 0).mean(1) / math.log(2)


@pytest.mark.parametrize("oracle", [GaussianOracle, MixtureOracle])
@pytest.mark.parametrize(
    "schedule", [Sigmoid(), Flow(), LinearBeta(zero_terminal_snr=True)], ids=repr
)
def test_every_sample_has_its_exact_density_where_the_schedule_ends_in_noise(oracle, schedule):
    oracle = oracle(schedule=schedule)
    x0 = torch.linspace(-1.1, 1.1, 24, **DOUBLE).reshape(8, 3)
    got = flow_bits(oracle, x0, NOISE, bins=None)
    torch.testing.assert_close(got, exact_bits(oracle, x0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("schedule", [VE(), EDM(), LinearBeta()], ids=repr)
def test_the_mean_over_data_is_exact_where_the_schedule_leaves_some_signal(schedule):
    """Covers schedules that leave a little of the data at their noisiest level.

    The density of a sample is then wrong in first order, but its mean only in second order.
    """
    oracle = MixtureOracle(
        schedule=schedule, means=(-0.5, 0.5), stds=(0.2, 0.2), weights=(0.5, 0.5)
    )
    quantiles = (torch.arange(40, **DOUBLE) + 0.5) / 40
    half = 0.2 * torch.special.ndtri(quantiles)
    x0 = torch.cat([half - 0.5, half + 0.5])[:, None]
    got = flow_bits(oracle, x0, NOISE, bins=None)
    assert got.mean().item() == pytest.approx(exact_bits(oracle, x0).mean().item(), abs=1e-3)


def test_the_flow_starts_from_the_noise_that_samples_start_from():
    """With sigma = 0.9 at t = 1, samples are not the data, and the density is that of samples."""
    schedule = VE(0.01, 0.9)
    oracle = GaussianOracle(mean=0.5, std=0.2, schedule=schedule)
    slope = oracle.flow(torch.ones(1), schedule.at(1.0), schedule.at(0.0)) - oracle.flow(
        torch.zeros(1), schedule.at(1.0), schedule.at(0.0)
    )
    mean = oracle.flow(torch.zeros(1, **DOUBLE), schedule.at(1.0), schedule.at(0.0)).item()
    x0 = torch.linspace(-0.2, 0.6, 9, **DOUBLE)[:, None]
    got = flow_bits(oracle, x0, NOISE, bins=None)
    exact = exact_bits(GaussianOracle(mean=mean, std=0.9 * slope.item()), x0)
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-3)


class Correlated:
    """Denoiser of Gaussian data with a given covariance."""

    schedule = Flow()

    def __init__(self, covariance):
        self.covariance = covariance

    def __call__(self, x, at, to=None):
        whole = at.alpha**2 * self.covariance + at.sigma**2 * torch.eye(
            len(self.covariance), **DOUBLE
        )
        x0 = at.alpha * x @ torch.linalg.solve(whole, self.covariance)
        return Prediction.from_x0(x0, x, at)


@pytest.fixture(scope="module")
def correlated():
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), **DOUBLE)
    return Correlated(root @ root.T / 4 + 0.1 * torch.eye(4, **DOUBLE))


def test_the_exact_trace_is_exact_for_correlated_data(correlated):
    x0 = torch.randn(6, 4, **DOUBLE)
    density = torch.distributions.MultivariateNormal(
        torch.zeros(4, **DOUBLE), correlated.covariance
    )
    got = flow_bits(correlated, x0, NOISE, trace="exact", bins=None)
    torch.testing.assert_close(got, -density.log_prob(x0) / 4 / math.log(2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("trace", ["rademacher", "gaussian"])
def test_hutchinsons_estimate_is_right_on_average(correlated, trace):
    x0 = torch.randn(1, 4, **DOUBLE)
    exact = flow_bits(correlated, x0, NOISE, trace="exact", bins=None).item()
    many = flow_bits(
        correlated, x0.expand(20_000, 4), NOISE, trace=trace, tolerance=1e-4, bins=None
    )
    assert many.std() > 0.01
    assert many.mean().item() == pytest.approx(
        exact, abs=4 * many.std().item() / math.sqrt(20_000) + 1e-3
    )


def test_8_bit_images_include_the_width_of_their_bins():
    """The probability of a bin is about the density times its width, 2 / 255."""
    oracle = GaussianOracle(mean=0.0, std=1.0)
    x0 = torch.linspace(-1, 1, 256, **DOUBLE)[100:150, None]
    wanted = exact_bits(oracle, x0) + math.log2(255 / 2)
    torch.testing.assert_close(flow_bits(oracle, x0, NOISE), wanted, rtol=0, atol=5e-3)


def test_the_estimate_of_a_network_agrees_with_its_exact_trace():
    diffusion = GaussianDiffusion(tiny_unet(dim_mults=(1,), image_size=4))
    images = torch.randint(0, 256, (1, 1, 4, 4)) / 255
    exact = flow_bits_per_dim(diffusion, images, trace="exact", tolerance=1e-2, seed=[1]).item()
    many = flow_bits_per_dim(diffusion, images.expand(200, 1, 4, 4), tolerance=1e-2, seed=5)
    assert many.mean().item() == pytest.approx(
        exact, abs=5 * many.std().item() / math.sqrt(200) + 0.02
    )
    assert many.std() > 0 and all(p.grad is None for p in diffusion.parameters())


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_the_solver_keeps_its_tolerance(tolerance):
    """Solves z' = cos(u) z for two initial values, and integrates cos(u)."""
    z = torch.tensor([[1.0], [0.1]], **DOUBLE)
    calls = []

    def slope(u, z):
        calls.append(u)
        return math.cos(u) * z, math.cos(u) * torch.ones(2, **DOUBLE)

    end, total = integrate(slope, z, 0.0, 5.0, tolerance)
    torch.testing.assert_close(end, z * math.exp(math.sin(5.0)), rtol=0, atol=30 * tolerance)
    torch.testing.assert_close(
        total, torch.full((2,), math.sin(5.0), **DOUBLE), rtol=0, atol=30 * tolerance
    )
    assert max(calls) <= 5.0 and len(calls) < 60 * tolerance**-0.2


def test_bad_input_is_refused():
    oracle, x0 = GaussianOracle(), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="Expected trace 'rademacher', .*, got 'all'. Fix"):
        flow_bits(oracle, x0, NOISE, trace="all")
    for sigma_min in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma_min above 0 and finite, got .*. Fix: use"):
            flow_bits(oracle, x0, NOISE, sigma_min=sigma_min)
    with pytest.raises(ValueError, match="at least 1e-06 in torch.float32, got 1e-08. Fix: raise"):
        flow_bits(oracle, x0, NOISE, tolerance=1e-8)
    jumps = torch.zeros(1, **DOUBLE)
    with pytest.raises(ValueError, match="steps below a millionth .* tolerance=1e-09. Fix: raise"):
        integrate(lambda u, z: (z + (u > 0.3) * 1e9, jumps), x0.double(), 0.0, 1.0, 1e-9)
    with pytest.raises(FloatingPointError, match="NaN"):
        integrate(lambda u, z: (z * math.nan, torch.zeros(1, **DOUBLE)), x0, 0.0, 1.0, 1e-3)
