"""Each scheduler of diffusers against its recipe: same noise, same network, same end."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
from oracles import MixtureOracle
from parity import (
    BETA,
    DEIS,
    DPM,
    END,
    EXPONENTIAL,
    KARRAS,
    LATENT,
    LCM,
    NO_CLIP,
    SDE,
    SPACINGS,
    TYPES,
    UNIPC,
    Draws,
    OracleNetwork,
    compare,
    difference,
    diffusers,
    run_diffusers,
    run_recipe,
    start,
)

from diffusion_framework import DDIM
from diffusion_framework.interop import Score, read_scheduler_config
from diffusion_framework.samplers import trajectory
from diffusion_framework.samplers.grids import distilled_times, grid_of_times, times_of_steps

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SCHEDULES = [{}, LATENT, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}]
SCHEDULES += [{"trained_betas": [0.01, 0.02, 0.05] * 40, "num_train_timesteps": 120}]


CASES = [("DDPMScheduler", {**NO_CLIP, **s}, 20) for s in SPACINGS + SCHEDULES + TYPES]
CASES += [
    ("DDPMScheduler", {}, 10),
    ("DDPMScheduler", {**NO_CLIP, "variance_type": "fixed_large"}, 25),
]
CASES += [("DDPMScheduler", {**NO_CLIP, "variance_type": "fixed_small_log"}, 25)]
CASES += [("DDPMScheduler", {**NO_CLIP, "beta_schedule": "sigmoid"}, 25)]
CASES += [("DDIMScheduler", {**NO_CLIP, **s}, 20) for s in SPACINGS[:3] + SCHEDULES + TYPES]
CASES += [("DDIMScheduler", {**NO_CLIP, **LATENT, **SPACINGS[0], "set_alpha_to_one": False}, 30)]
CASES += [("DDIMScheduler", {**NO_CLIP, "set_alpha_to_one": False}, 30)]
CASES += [
    ("DDIMScheduler", {**NO_CLIP, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}, 20),
    ("DDPMScheduler", {**NO_CLIP, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}, 20),
]
for name in ("EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"):
    CASES += [(name, {**LATENT, **s}, 25) for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, *TYPES]]
CASES += [
    ("KDPM2DiscreteScheduler", {**LATENT, **s}, 25)
    for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, TYPES[2]]
]
ZERO = {**LATENT, **TYPES[2], **KARRAS, "rescale_betas_zero_snr": True}
CASES += [("EulerDiscreteScheduler", ZERO, 25)]
CASES += [
    ("EulerAncestralDiscreteScheduler", {**LATENT, **s}, 25)
    for s in [*SPACINGS, TYPES[0], TYPES[2]]
]
CASES += [
    ("EulerDiscreteScheduler", {**LATENT, **s, **END}, 25) for s in [*SPACINGS, KARRAS, EXPONENTIAL]
]
CASES += [("EulerDiscreteScheduler", {**LATENT, **KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, 25)]
CASES += [("HeunDiscreteScheduler", {"clip_sample": True, **KARRAS}, 25)]
CASES += [("HeunDiscreteScheduler", {"beta_schedule": "exp", **KARRAS}, 25)]
LU = {"use_lu_lambdas": True}
for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
    CASES += [
        (name, {**LATENT, **s}, 10)
        for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, *TYPES, {"solver_order": 1}]
    ]
CASES += [(UNIPC, {**LATENT, **END, "solver_type": "bh1", "solver_order": 1}, 10)]
CASES += [(UNIPC, {"solver_type": "midpoint"}, 10)]
CASES += [(DPM, {**LATENT, **LU}, 10), (DPM, {**LATENT, "solver_type": "heun"}, 10)]
CASES += [(DPM, {**LATENT, "solver_type": kind, **SDE}, 20) for kind in ("heun", "midpoint")]
CASES += [
    (DPM, {**LATENT, **SDE, "solver_order": 1}, 20),
    (DPM, {**LATENT, "euler_at_final": True}, 20),
]
COS = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}
CASES += [(DPM, {**COS, **s}, 20) for s in (SPACINGS[0], SPACINGS[3])]
CASES += [
    (DPM, {**LATENT, **END, **s}, 20)
    for s in ({}, KARRAS, SPACINGS[0], {"algorithm_type": "dpmsolver"})
]
CASES += [(DPM, {**LATENT, **END, "algorithm_type": "dpmsolver", "solver_type": "heun"}, 20)]
CASES += [
    (DEIS, {**LATENT, "solver_order": n, **s}, 20) for n in (1, 2, 3) for s in [*SPACINGS, KARRAS]
]
CASES += [(DEIS, {**LATENT, "solver_order": n, **s}, 10) for n in (2, 3) for s in SPACINGS]
CASES += [(DEIS, {**LATENT, "solver_order": 3, "lower_order_final": False, **SPACINGS[0]}, 10)]
CASES += [(DPM, {**LATENT, **END, **s}, 10) for s in SPACINGS]
CASES += [(DPM, {**LATENT, **END, "lower_order_final": False, **SPACINGS[2]}, 10)]
CASES += [
    (UNIPC, {**LATENT, **s, "solver_type": b}, 20)
    for s in (END, {**END, **SPACINGS[2]})
    for b in ("bh1", "bh2")
]
CASES += [(UNIPC, {**LATENT, **s, "solver_order": 3}, 10) for s in (*SPACINGS, KARRAS, END)]
CASES += [
    (DEIS, {**LATENT, "solver_order": n, **s}, 10) for n in (2, 3) for s in (KARRAS, EXPONENTIAL)
]
CASES += [(DEIS, {**LATENT, **BETA}, 10)]
CASES += [(DPM, {**LATENT, **END, **KARRAS}, 10)]
CASES += [
    (LCM, {"clip_sample": clip, **kind}, n)
    for clip in (False, True)
    for kind in TYPES
    for n in (1, 4, 7)
]


def label(value):
    return value.removesuffix("Scheduler") if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "config", "steps"), CASES, ids=label)
def test_a_trajectory_ends_where_that_of_diffusers_ends(name, config, steps, monkeypatch):
    off, *_ = compare(name, config, steps, monkeypatch)
    assert off < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"num_inference_steps": 4, "strength": 0.6},
        {"num_inference_steps": 8, "original_inference_steps": 20, "strength": 0.8},
        {"timesteps": [999, 759, 499, 259]},
    ],
    ids=str,
)
def test_lcm_agrees_at_partial_strength_and_at_given_timesteps(options, monkeypatch):
    """These are options of a call of diffusers, not of its config; any x serves as the start."""
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", Draws())
    config = {"timestep_scaling": 0.01}  # small, so that the boundary condition has an effect
    scheduler = diffusers.LCMScheduler(**config)
    recipe = read_scheduler_config({**config, "_class_name": LCM})
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(**options)
    if "timesteps" in options:
        times = times_of_steps(options["timesteps"])
    else:
        steps, original = (
            options["num_inference_steps"],
            options.get("original_inference_steps", 50),
        )
        times = distilled_times(steps, original, strength=options["strength"])
    grid = grid_of_times(recipe.schedule, times)
    x = start()
    for t, (now, _) in zip(scheduler.timesteps, grid, strict=True):
        x = scheduler.step(network.output(x, now), t, x).prev_sample
    *_, last = trajectory(recipe.sampler, network, start(), grid, Draws())
    assert difference(last.x, x) < 1e-4


class LearnedVariance(OracleNetwork):
    """Exact denoiser whose second half of channels stands for a variance."""

    def output(self, x, at):
        return torch.cat([super().output(x, at), torch.sin(3 * x)], dim=1)

    def __call__(self, x, at, to=None):
        output, raw = self.output(x, at).chunk(2, dim=1)
        return self.recipe.objective.prediction(output, x, at, (raw + 1) / 2)


def test_ddpm_with_a_learned_range_ends_where_that_of_diffusers_ends(monkeypatch):
    config = {**NO_CLIP, "variance_type": "learned_range"}
    scheduler = diffusers.DDPMScheduler(**config)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": "DDPMScheduler"})
    network = LearnedVariance(recipe, MixtureOracle())
    other, x, _ = run_diffusers(scheduler, network, 20, monkeypatch)
    assert difference(run_recipe(recipe, network, x, 20)[0], other) < 1e-4


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_eta_ends_where_that_of_diffusers_ends(eta, monkeypatch):
    off, *_ = compare("DDIMScheduler", NO_CLIP, 20, monkeypatch, sampler=DDIM(eta), eta=eta)
    assert off < 1e-4


def test_ddim_computes_the_noise_from_clipped_data(monkeypatch):
    off, recipe, *_ = compare("DDIMScheduler", {}, 20, monkeypatch, use_clipped_model_output=True)
    assert recipe.clip_denoised and off < 1e-4


WIDE = MixtureOracle(means=(-1.5, 1.8), stds=(0.3, 0.6))  # partly outside [-1, 1]
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7}
CLIP = {"clip_sample": True, "clip_sample_range": 1.6}
BOUNDED = [
    (name, bound) for name in ("DDPMScheduler", "DDIMScheduler", LCM) for bound in (THRESHOLD, CLIP)
]
BOUNDED += [(name, THRESHOLD) for name in (DPM, UNIPC, DEIS)]
BOUNDED += [(DPM, {**THRESHOLD, **END, "algorithm_type": "dpmsolver"}), (DPM, {**THRESHOLD, **SDE})]


@pytest.mark.parametrize(("name", "config"), BOUNDED, ids=label)
def test_clean_data_is_kept_in_range(name, config, monkeypatch):
    kwargs = {"use_clipped_model_output": True} if name == "DDIMScheduler" else {}
    off, recipe, *_ = compare(name, {**LATENT, **config}, 20, monkeypatch, oracle=WIDE, **kwargs)
    assert off < 1e-4
    network = OracleNetwork(recipe, WIDE)
    ends = [
        run_recipe(one, network, start(), 20)[0]
        for one in (recipe, replace(recipe, clip_denoised=False))
    ]
    assert difference(*ends) > 0.01


def test_karras_ve_agrees_given_the_roots_of_its_sigmas(monkeypatch):
    """The scheduler of diffusers squares its sigmas, so it is given their roots."""
    module = "diffusers.schedulers.deprecated.scheduling_karras_ve"
    monkeypatch.setattr(importlib.import_module(module), "randn_tensor", Draws())
    options = {"s_min": 0.0, "s_max": 1e9, "s_churn": 5.0}
    scheduler = importlib.import_module(module).KarrasVeScheduler(
        sigma_min=0.1, sigma_max=10.0, **options
    )
    recipe = read_scheduler_config(
        {"_class_name": "KarrasVeScheduler", "sigma_min": 0.01, "sigma_max": 100.0, **options}
    )
    network = OracleNetwork(recipe, MixtureOracle())

    def output(x, sigma):
        return network.output(x, recipe.schedule.at_log_snr(-2 * math.log(sigma)))

    scheduler.set_timesteps(15)
    x = start() * 100
    for t in scheduler.timesteps:
        sigma, to = scheduler.schedule[t].item(), scheduler.schedule[t - 1].item() if t > 0 else 0
        raised, at = scheduler.add_noise_to_input(x, sigma)
        step = scheduler.step(output(raised, at), at, to, raised)
        x = step.prev_sample
        if to:
            x = scheduler.step_correct(
                output(x, to), at, to, raised, x, step.derivative
            ).prev_sample
    mine, _ = run_recipe(recipe, network, start() * 100, 15)
    assert difference(mine, x) < 1e-4


@pytest.mark.parametrize("steps", [30, 100])
def test_score_sde_ve_agrees_without_corrections(steps, monkeypatch):
    """In diffusers, the size of a correction depends on the noise and on the batch."""
    monkeypatch.setattr("diffusers.schedulers.scheduling_sde_ve.randn_tensor", Draws())
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0, correct_steps=0, sampling_eps=1e-3)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": "ScoreSdeVeScheduler"})
    assert recipe.objective == Score()
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    x = start() * 50
    for t in scheduler.timesteps:
        sigma = scheduler.discrete_sigmas[(t * (steps - 1)).long()].item()
        at = recipe.schedule.at_log_snr(-2 * math.log(sigma))
        step = scheduler.step_pred(network.output(x, at), t, x)
        x = step.prev_sample
    mine, _ = run_recipe(recipe, network, start() * 50, steps)
    assert difference(mine, step.prev_sample_mean) < 1e-4
