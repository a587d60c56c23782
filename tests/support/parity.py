"""Trajectories of this package and of diffusers with the same noise and the same network."""

import importlib
import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle

from diffusion_framework.denoisers import TransformX0
from diffusion_framework.interop import SchedulerRecipe, read_scheduler_config
from diffusion_framework.process.level import Level
from diffusion_framework.samplers import trajectory

diffusers = pytest.importorskip(
    "diffusers", reason="parity with diffusers needs diffusers: pip install diffusers"
)

SHAPE = (3, 1, 4, 4)
DPM, UNIPC, DEIS, LCM = (
    f"{name}Scheduler" for name in ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "LCM")
)
FLOW_EULER, FLOW_HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
NO_CLIP = {"clip_sample": False}
SPACINGS = [
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
TYPES = [{"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction")]
KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
BETA = {"use_beta_sigmas": True}
END = {"final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}


def start(seed=0, shape=SHAPE):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Draws:
    """Sequence of noise tensors, the same for both packages."""

    def __init__(self, shape=SHAPE):
        self.drawn, self.shape = 0, shape

    def __call__(self, *_, dtype=torch.float64, **__):
        self.drawn += 1
        return start(1000 + self.drawn, self.shape).to(dtype)


class OracleNetwork:
    """Exact denoiser that also serves as a network with the objective of a recipe."""

    def __init__(self, recipe: SchedulerRecipe, oracle):
        self.recipe, self.oracle, self.schedule = recipe, oracle, recipe.schedule

    def output(self, x, at):
        exact = self.oracle(x, at)
        return self.recipe.objective.target(exact.x0, exact.eps, at)

    def __call__(self, x, at, to=None):
        return self.recipe.objective.prediction(self.output(x, at), x, at)


def level_of_ratio(ratio):
    alpha = 1 / math.sqrt(1 + ratio**2)
    return Level(0.5, alpha, ratio * alpha, -2 * math.log(ratio))


def run_diffusers(scheduler, network, steps, monkeypatch, **kwargs):
    """Runs a scheduler of diffusers.

    Returns the end of its trajectory and the network's first input, scaled as alpha² + sigma² = 1,
    and the timesteps.
    """
    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", Draws())
    scheduler.set_timesteps(steps)
    x, first = start() * scheduler.init_noise_sigma, None
    sigmas = getattr(scheduler, "sigmas", None)
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t)
        first = seen if first is None else first
        if sigmas is None:
            signal = scheduler.alphas_cumprod[t].double()
            ratio = ((1 - signal) / signal).sqrt().item() if signal else math.inf
        else:
            between = not getattr(scheduler, "state_in_first_order", True) and hasattr(
                scheduler, "sigmas_interpol"
            )
            ratio = (scheduler.sigmas_interpol if between else sigmas)[i].item()
        at = level_of_ratio(ratio) if ratio < math.inf else Level(1.0, 0.0, 1.0, -math.inf)
        x = scheduler.step(network.output(seen, at), t, x, **kwargs).prev_sample
    if scheduler.init_noise_sigma != 1:  # x of these schedulers is x / alpha
        x = x / math.sqrt(1 + sigmas[-1].item() ** 2)
    return x, first, scheduler.timesteps


def run_recipe(recipe, network, x, steps, sampler=None, noise=None):
    denoise = TransformX0(network, recipe.clip_denoised) if recipe.clip_denoised else network
    grid = recipe.grid(steps)
    *_, last = trajectory(sampler or recipe.sampler, denoise, x, grid, noise or Draws())
    return last.x, grid


def difference(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def compare(name, config, steps, monkeypatch, oracle=None, sampler=None, **kwargs):
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": name})
    assert read_scheduler_config({**config, "_class_name": name}) == recipe  # same defaults
    network = OracleNetwork(recipe, oracle or MixtureOracle())
    end, x, timesteps = run_diffusers(scheduler, network, steps, monkeypatch, **kwargs)
    mine, grid = run_recipe(recipe, network, x.double(), steps, sampler)
    return difference(mine, end), recipe, grid, timesteps


def exact_errors(name, config, steps, monkeypatch):
    """Returns the errors of both packages relative to the exact solution for Gaussian data."""
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**config, "_class_name": name})
    oracle = GaussianOracle()
    network = OracleNetwork(recipe, oracle)
    end, x, _ = run_diffusers(scheduler, network, steps, monkeypatch)
    mine, grid = run_recipe(recipe, network, x.double(), steps)
    exact = oracle.flow(x.double(), grid.start, grid.end)
    return difference(mine, exact), difference(end, exact)
