"""Memory of networks with self-conditioning: what they see of their earlier estimates."""

import math

import pytest
import torch
from oracles import MixtureOracle
from walks import end

from diffusion_framework import Sigmoid, UniPC
from diffusion_framework.denoisers import Feedback
from diffusion_framework.denoisers.memory import Memory
from diffusion_framework.process.level import Level, Prediction
from diffusion_framework.samplers.grids import spaced_grid

AHEAD = Feedback(extrapolates=True)


def at_angle(angle):
    """Returns the level of an angle between data and noise."""
    tangent = math.tan(angle)
    return Level(0.0, math.cos(angle), math.sin(angle), -2 * math.log(tangent))


def remembering(values, angles, feedback=AHEAD, bounds=None):
    memory = Memory(feedback, bounds)
    for value, angle in zip(values, angles, strict=True):
        memory.remember(torch.tensor([value], dtype=torch.float64), at_angle(angle))
    return memory


@pytest.mark.parametrize("angles", [(1.5, 1.2, 0.9, 0.6), (1.4, 1.2, 0.9, 0.75)], ids=str)
def test_estimates_along_a_line_are_continued_exactly(angles):
    values = [0.3 - 0.7 * angle for angle in angles]
    memory = remembering(values[:3], angles[:3])
    assert memory.recalled(at_angle(angles[3])).x0.item() == pytest.approx(values[3], abs=1e-12)


def test_it_never_goes_further_than_half_of_what_it_knows():
    memory = remembering([0.0, 0.1, 0.2], [1.5, 1.4, 1.3])
    assert memory.recalled(at_angle(0.1)).x0.item() == pytest.approx(0.3)


def test_a_call_at_the_same_or_a_noisier_level_sees_the_last_estimate():
    memory = remembering([0.0, 0.1, 0.5], [1.5, 1.2, 0.9])
    for angle in (0.9, 1.0, 1.5):
        assert memory.recalled(at_angle(angle)).x0.item() == 0.5
    again = remembering([0.0, 0.1, 0.5], [1.2, 1.2, 1.2])
    assert again.recalled(at_angle(0.9)).x0.item() == 0.5


def test_the_factor_multiplies_and_bounds_hold():
    half = Feedback(0.5, extrapolates=True)
    memory = remembering([0.2, 0.6, 1.7], [1.5, 1.2, 0.9], half, (-1.0, 1.0))
    assert memory.recalled(at_angle(0.6)).x0.item() == 0.5
    last = remembering([0.2, 0.6, 0.8], [1.5, 1.2, 0.9], Feedback(0.5))
    assert last.recalled(at_angle(0.6)).x0.item() == pytest.approx(0.4)
    assert len(last.estimates) == 1


@pytest.mark.parametrize("gain", [-0.9, -0.6, -0.34, 0.3, 0.9])
def test_a_network_that_settles_with_its_last_estimate_settles_with_the_line(gain):
    memory, truth = Memory(AHEAD, None), 0.7
    for step in range(600):
        at = at_angle(1.5 - 0.002 * step)
        seen = memory.recalled(at).x0
        told = torch.zeros(1, dtype=torch.float64) if seen is None else seen
        memory.remember((1 - gain) * truth + gain * told, at)
    assert told.item() == pytest.approx(truth, abs=1e-5)


class Fed:
    """An exact denoiser that sees its own estimates; the limit of short steps is the exact ODE."""

    def __init__(self, feedback, gain=0.5):
        self.oracle, self.gain = MixtureOracle(schedule=Sigmoid()), gain
        self.memory, self.schedule = Memory(feedback, None), self.oracle.schedule

    def __call__(self, x, at, to=None):
        own, seen = self.oracle(x, at).x0, self.memory.recalled(at).x0
        x0 = own if seen is None else own + self.gain * (seen - own)
        self.memory.remember(x0, at)
        return Prediction.from_x0(x0, x, at)


def test_the_line_restores_the_order_that_the_last_estimate_costs():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler, schedule = UniPC(2, predict="v"), Sigmoid()

    def grid(steps):
        return spaced_grid(schedule, steps, "optimal", first=50.0, last=0.01)

    exact = end(sampler, MixtureOracle(schedule=schedule), x, grid(500))

    def error(feedback, steps):
        return (end(sampler, Fed(feedback), x, grid(steps)) - exact).square().mean().sqrt().item()

    late = error(Feedback(), 40) / error(Feedback(), 80)
    led = error(AHEAD, 40) / error(AHEAD, 80)
    assert late < 2.6 < 3.2 < led
    assert error(AHEAD, 40) < 0.5 * error(Feedback(), 80)
