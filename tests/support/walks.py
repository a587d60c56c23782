"""Grids, exact solutions and final samples, for tests of samplers."""

import itertools
import math

import torch
from scipy.integrate import solve_ivp

from diffusion_framework.process.noise import generator_noise
from diffusion_framework.samplers import trajectory
from diffusion_framework.samplers.grids import Grid


def even_grid(schedule, first, last, steps, graded=0):
    """Returns a grid of even steps in log-SNR.

    `graded` halvings divide the first step into growing steps, because multistep methods start with
    a lower order.
    """
    first_step = (last - first) / steps
    starts = [first + first_step * 2.0**-k for k in range(graded, 0, -1)]
    points = [first, *starts, *(first + first_step * i for i in range(1, steps + 1))]
    return Grid(itertools.pairwise(schedule.at_log_snr(point) for point in points))


def exact_flow(oracle, x, now, to):
    """Solves the probability-flow ODE d(x / alpha) / d(sigma / alpha) = eps with SciPy to 1e-12."""

    def slope(s, scaled):
        at = oracle.schedule.at_log_snr(-2 * math.log(s))
        return oracle(torch.from_numpy(scaled) * at.alpha, at).eps.numpy()

    span = (now.sigma / now.alpha, to.sigma / to.alpha)
    solution = solve_ivp(
        slope, span, (x / now.alpha).numpy(), method="DOP853", rtol=1e-12, atol=1e-12
    )
    return torch.from_numpy(solution.y[:, -1]) * to.alpha


def end(sampler, oracle, x, grid, seed=1):
    noise = generator_noise(torch.Generator().manual_seed(seed))
    return list(trajectory(sampler, oracle, x, grid, noise))[-1].x


class Counting:
    """Denoiser that counts the calls of an oracle."""

    def __init__(self, oracle):
        self.oracle, self.schedule, self.calls = oracle, oracle.schedule, 0

    def __call__(self, x, at, to=None):
        self.calls += 1
        return self.oracle(x, at)
