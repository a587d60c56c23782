"""Recipes read from scheduler configs, against the schedulers themselves: same noise, same network, same end."""

import importlib
import json
import math
from dataclasses import replace

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle

from diffusion_framework import DDIM, trajectory
from diffusion_framework.denoisers import TransformX0
from diffusion_framework.interop import SchedulerRecipe, Score, read_scheduler_config
from diffusion_framework.process.level import Level
from diffusion_framework.samplers.grids import distilled_times, grid_of_times, times_of_steps

diffusers = pytest.importorskip("diffusers", reason="parity with diffusers needs diffusers: pip install diffusers")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PLAIN = {"clip_sample": False}
SHAPE = (3, 1, 4, 4)


def start(seed=0, shape=SHAPE):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Draws:
    """The same noise for both sides, one draw after the other."""

    def __init__(self, shape=SHAPE):
        self.drawn, self.shape = 0, shape

    def __call__(self, *_, dtype=torch.float64, **__):
        self.drawn += 1
        return start(1000 + self.drawn, self.shape).to(dtype)


class OracleNetwork:
    """The exact denoiser of some data as a network with the objective of a recipe, and as a denoiser."""

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


def theirs(scheduler, network, steps, monkeypatch, **kwargs):
    """The end of their trajectory, the network's first input and the timesteps; all scaled as alpha² + sigma² = 1."""
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
            between = not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol")
            ratio = (scheduler.sigmas_interpol if between else sigmas)[i].item()
        at = level_of_ratio(ratio) if ratio < math.inf else Level(1.0, 0.0, 1.0, -math.inf)
        x = scheduler.step(network.output(seen, at), t, x, **kwargs).prev_sample
    if scheduler.init_noise_sigma != 1:  # theirs are x / alpha
        x = x / math.sqrt(1 + sigmas[-1].item() ** 2)
    return x, first, scheduler.timesteps


def ours(recipe, network, x, steps, sampler=None, noise=None):
    denoise = TransformX0(network, recipe.clip_denoised) if recipe.clip_denoised else network
    grid = recipe.grid(steps)
    *_, last = trajectory(sampler or recipe.sampler, denoise, x, grid, noise or Draws())
    return last.x, grid


def difference(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def compare(name, config, steps, monkeypatch, oracle=None, sampler=None, **kwargs):
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": name})
    assert read_scheduler_config({**config, "_class_name": name}) == recipe  # the defaults are theirs
    network = OracleNetwork(recipe, oracle or MixtureOracle())
    end, x, timesteps = theirs(scheduler, network, steps, monkeypatch, **kwargs)
    mine, grid = ours(recipe, network, x.double(), steps, sampler)
    return difference(mine, end), recipe, grid, timesteps


SPACINGS = [
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
SCHEDULES = [{}, LATENT, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}]
SCHEDULES += [{"trained_betas": [0.01, 0.02, 0.05] * 40, "num_train_timesteps": 120}]
TYPES = [{"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction")]
KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
END = {"final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}

CASES = [("DDPMScheduler", {**PLAIN, **s}, 20) for s in SPACINGS + SCHEDULES + TYPES]
CASES += [("DDPMScheduler", {}, 10), ("DDPMScheduler", {**PLAIN, "variance_type": "fixed_large"}, 25)]
CASES += [("DDPMScheduler", {**PLAIN, "variance_type": "fixed_small_log"}, 25)]
CASES += [("DDPMScheduler", {**PLAIN, "beta_schedule": "sigmoid"}, 25)]
CASES += [("DDIMScheduler", {**PLAIN, **s}, 20) for s in SPACINGS[:3] + SCHEDULES + TYPES]
CASES += [("DDIMScheduler", {**PLAIN, **LATENT, **SPACINGS[0], "set_alpha_to_one": False}, 30)]
CASES += [("DDIMScheduler", {**PLAIN, "set_alpha_to_one": False}, 30)]
CASES += [
    ("DDIMScheduler", {**PLAIN, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}, 20),
    ("DDPMScheduler", {**PLAIN, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}, 20),
]
BETA = {"use_beta_sigmas": True}
for name in ("EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"):
    CASES += [(name, {**LATENT, **s}, 25) for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, *TYPES]]
CASES += [("KDPM2DiscreteScheduler", {**LATENT, **s}, 25) for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, TYPES[2]]]
ZERO = {**LATENT, **TYPES[2], **KARRAS, "rescale_betas_zero_snr": True}
CASES += [("EulerDiscreteScheduler", ZERO, 25)]
CASES += [("EulerAncestralDiscreteScheduler", {**LATENT, **s}, 25) for s in [*SPACINGS, TYPES[0], TYPES[2]]]
CASES += [("EulerDiscreteScheduler", {**LATENT, **s, **END}, 25) for s in [*SPACINGS, KARRAS, EXPONENTIAL]]
CASES += [("EulerDiscreteScheduler", {**LATENT, **KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, 25)]
CASES += [("HeunDiscreteScheduler", {"clip_sample": True, **KARRAS}, 25)]
CASES += [("HeunDiscreteScheduler", {"beta_schedule": "exp", **KARRAS}, 25)]
LU = {"use_lu_lambdas": True}
for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
    CASES += [(name, {**LATENT, **s}, 10) for s in [*SPACINGS, KARRAS, EXPONENTIAL, BETA, *TYPES, {"solver_order": 1}]]
UNIPC = "UniPCMultistepScheduler"
CASES += [(UNIPC, {**LATENT, **END, "solver_type": "bh1", "solver_order": 1}, 10)]
CASES += [(UNIPC, {"solver_type": "midpoint"}, 10)]
DPM = "DPMSolverMultistepScheduler"
CASES += [(DPM, {**LATENT, **LU}, 10), (DPM, {**LATENT, "solver_type": "heun"}, 10)]
CASES += [(DPM, {**LATENT, "solver_type": kind, **SDE}, 20) for kind in ("heun", "midpoint")]
CASES += [(DPM, {**LATENT, **SDE, "solver_order": 1}, 20), (DPM, {**LATENT, "euler_at_final": True}, 20)]
COS = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}
CASES += [(DPM, {**COS, **s}, 20) for s in (SPACINGS[0], SPACINGS[3])]
CASES += [(DPM, {**LATENT, **END, **s}, 20) for s in ({}, KARRAS, SPACINGS[0], {"algorithm_type": "dpmsolver"})]
CASES += [(DPM, {**LATENT, **END, "algorithm_type": "dpmsolver", "solver_type": "heun"}, 20)]
DEIS = "DEISMultistepScheduler"
CASES += [(DEIS, {**LATENT, "solver_order": n, **s}, 20) for n in (1, 2, 3) for s in [*SPACINGS, KARRAS]]
CASES += [(DEIS, {**LATENT, "solver_order": n, **s}, 10) for n in (2, 3) for s in SPACINGS]
CASES += [(DEIS, {**LATENT, "solver_order": 3, "lower_order_final": False, **SPACINGS[0]}, 10)]
CASES += [(DPM, {**LATENT, **END, **s}, 10) for s in SPACINGS]
CASES += [(DPM, {**LATENT, **END, "lower_order_final": False, **SPACINGS[2]}, 10)]
CASES += [(UNIPC, {**LATENT, **s, "solver_type": b}, 20) for s in (END, {**END, **SPACINGS[2]}) for b in ("bh1", "bh2")]
CASES += [(UNIPC, {**LATENT, **s, "solver_order": 3}, 10) for s in (*SPACINGS, KARRAS, END)]
CASES += [(DEIS, {**LATENT, "solver_order": n, **s}, 10) for n in (2, 3) for s in (KARRAS, EXPONENTIAL)]
CASES += [(DEIS, {**LATENT, **BETA}, 10)]
CASES += [(DPM, {**LATENT, **END, **KARRAS}, 10)]
LCM_ = "LCMScheduler"
CASES += [(LCM_, {"clip_sample": clip, **kind}, n) for clip in (False, True) for kind in TYPES for n in (1, 4, 7)]


FLOW_EULER, FLOW_HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"


def label(value):
    return value.removesuffix("Scheduler") if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "config", "steps"), CASES, ids=label)
def test_ends_where_theirs_does(name, config, steps, monkeypatch):
    off, *_ = compare(name, config, steps, monkeypatch)
    assert off < 1e-4


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
DYNAMIC = {"use_dynamic_shifting": True}
FLOWS = [(name, {"shift": shift}, n, None) for name in (FLOW_EULER, FLOW_HEUN) for shift in (1.0, 3.0) for n in (1, 9)]
FLOWS += [(FLOW_EULER, {"shift": 2.0, **s}, 9, None) for s in (KARRAS, EXPONENTIAL, BETA, {"shift_terminal": 0.1})]
FLOWS += [(FLOW_EULER, {**DYNAMIC, "time_shift_type": kind}, 9, 0.7) for kind in ("exponential", "linear")]
FLOWS += [(FLOW_EULER, {**DYNAMIC, "shift_terminal": 0.05, "num_train_timesteps": 400}, 9, 1.15)]
for name in (DPM, UNIPC):
    FLOWS += [(name, {**FLOW, "flow_shift": 3.0, **s}, 10, None) for s in ({}, {"solver_order": 1}, TYPES[1])]
    FLOWS += [(name, {**FLOW, **DYNAMIC}, 10, 0.9)]
FLOWS += [(DPM, {**FLOW, **SDE}, 20, None), (UNIPC, {**FLOW, "shift_terminal": 0.1}, 10, None)]


@pytest.mark.parametrize(("name", "config", "steps", "mu"), FLOWS, ids=label)
def test_flows_end_where_theirs_do(name, config, steps, mu, monkeypatch):
    module = importlib.import_module(getattr(diffusers, name).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", Draws())
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": name}, mu)
    assert read_scheduler_config({**config, "_class_name": name}, mu) == recipe
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
    x, told = start(), []
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].item()
        at = recipe.schedule.at(sigma)
        told += [t.item()] if sigma and not getattr(scheduler, "dt", None) else []
        x = scheduler.step(network.output(x, at), t, x).prev_sample
    mine, grid = ours(recipe, network, start(), steps)
    assert difference(mine, x) < 1e-4
    rounding = 1 if name in (DPM, UNIPC) else 1e-3  # theirs
    assert [recipe.timestep(now) for now, _ in grid] == pytest.approx(told, abs=rounding)


@pytest.mark.parametrize(
    "options",
    [
        {"num_inference_steps": 4, "strength": 0.6},
        {"num_inference_steps": 8, "original_inference_steps": 20, "strength": 0.8},
        {"timesteps": [999, 759, 499, 259]},
    ],
    ids=str,
)
def test_lcm_from_part_of_the_way_and_at_times_of_ones_own(options, monkeypatch):
    """Options of their call, not of their config; the start is x, of any noise."""
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", Draws())
    config = {"timestep_scaling": 0.01}  # so that the boundary condition counts
    scheduler = diffusers.LCMScheduler(**config)
    recipe = read_scheduler_config({**config, "_class_name": LCM_})
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(**options)
    if "timesteps" in options:
        times = times_of_steps(options["timesteps"])
    else:
        steps, original = options["num_inference_steps"], options.get("original_inference_steps", 50)
        times = distilled_times(steps, original, strength=options["strength"])
    grid = grid_of_times(recipe.schedule, times)
    x = start()
    for t, (now, _) in zip(scheduler.timesteps, grid, strict=True):
        x = scheduler.step(network.output(x, now), t, x).prev_sample
    *_, last = trajectory(recipe.sampler, network, start(), grid, Draws())
    assert difference(last.x, x) < 1e-4


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise(eta, monkeypatch):
    off, *_ = compare("DDIMScheduler", PLAIN, 20, monkeypatch, sampler=DDIM(eta), eta=eta)
    assert off < 1e-4


def test_ddim_reads_the_noise_off_clipped_data(monkeypatch):
    off, recipe, *_ = compare("DDIMScheduler", {}, 20, monkeypatch, use_clipped_model_output=True)
    assert recipe.clip_denoised and off < 1e-4


WIDE = MixtureOracle(means=(-1.5, 1.8), stds=(0.3, 0.6))  # data of which some leaves [-1, 1]
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7}


CLIP = {"clip_sample": True, "clip_sample_range": 1.6}
BOUNDED = [(name, bound) for name in ("DDPMScheduler", "DDIMScheduler", LCM_) for bound in (THRESHOLD, CLIP)]
BOUNDED += [(name, THRESHOLD) for name in (DPM, UNIPC, DEIS)]
BOUNDED += [(DPM, {**THRESHOLD, **END, "algorithm_type": "dpmsolver"}), (DPM, {**THRESHOLD, **SDE})]


@pytest.mark.parametrize(("name", "config"), BOUNDED, ids=label)
def test_clean_data_is_kept_in_range(name, config, monkeypatch):
    kwargs = {"use_clipped_model_output": True} if name == "DDIMScheduler" else {}
    off, recipe, *_ = compare(name, {**LATENT, **config}, 20, monkeypatch, oracle=WIDE, **kwargs)
    assert off < 1e-4
    network = OracleNetwork(recipe, WIDE)
    ends = [ours(one, network, start(), 20)[0] for one in (recipe, replace(recipe, clip_denoised=False))]
    assert difference(*ends) > 0.01


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", DPM, DEIS])
def test_the_network_is_told_the_same_timesteps(name, spacing, monkeypatch):
    scheduler = getattr(diffusers, name)(**LATENT, **spacing)
    recipe = read_scheduler_config({**LATENT, **spacing, "_class_name": name})
    for steps in (4, 20, 50):
        scheduler.set_timesteps(steps)
        grid = recipe.grid(steps)
        told = [recipe.timestep(now) for now, _ in grid]
        fractions = name.startswith("Euler") and spacing == SPACINGS[3]
        assert told == pytest.approx(scheduler.timesteps.tolist(), abs=0.1 if fractions else 1e-6)


def exact_errors(name, config, steps, monkeypatch):
    """How far ours and theirs end from the exact solution, for normal data."""
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**config, "_class_name": name})
    oracle = GaussianOracle()
    network = OracleNetwork(recipe, oracle)
    end, x, _ = theirs(scheduler, network, steps, monkeypatch)
    mine, grid = ours(recipe, network, x.double(), steps)
    exact = oracle.flow(x.double(), grid[0][0], grid[-1][1])
    return difference(mine, exact), difference(end, exact)


def test_third_order_solver_is_of_third_order(monkeypatch):
    signal = torch.sigmoid(torch.linspace(6, -6, 321, dtype=torch.float64))  # so that steps are even in log-SNR
    betas = 1 - signal / torch.cat([torch.ones(1), signal[:-1]])
    config = {"trained_betas": betas.tolist(), "num_train_timesteps": 321, "solver_order": 3, **END}
    coarse, fine = (exact_errors(DPM, config, steps, monkeypatch) for steps in (40, 80))
    assert coarse[0] < coarse[1] and fine[0] < fine[1]
    assert fine[0] < coarse[0] / 6


@pytest.mark.parametrize("skip", [True, False])
def test_pndm_comes_nearer_to_the_exact_solution(skip, monkeypatch):
    config = {**LATENT, "skip_prk_steps": skip, "steps_offset": 1}
    for steps in (20, 50):
        mine, other = exact_errors("PNDMScheduler", config, steps, monkeypatch)
        print("PNDM", skip, steps, mine, other)
        assert mine < other


def test_ddim_steps_to_where_the_next_step_starts(monkeypatch):
    config = {**PLAIN, **LATENT, "timestep_spacing": "linspace"}
    mine, other = exact_errors("DDIMScheduler", config, 300, monkeypatch)
    assert mine < other / 3


def test_trailing_makes_as_many_steps_as_asked_for():
    scheduler = diffusers.DDPMScheduler(timestep_spacing="trailing")
    recipe = read_scheduler_config({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing"})
    theirs_wrong = []
    for steps in range(1, 400):
        scheduler.set_timesteps(steps)
        assert steps > 60 or len(recipe.grid(steps)) == steps
        theirs_wrong += [steps] if len(scheduler.timesteps) != steps else []
    for steps in theirs_wrong[:3]:
        assert len(recipe.grid(steps)) == steps
    assert theirs_wrong


def test_last_step_of_ddpm_adds_no_noise(monkeypatch):
    config = {**PLAIN, "timestep_spacing": "trailing", "variance_type": "fixed_large"}
    off, *_ = compare("DDPMScheduler", config, 20, monkeypatch, oracle=GaussianOracle(std=0.0))
    assert off > 0.01
    recipe = read_scheduler_config({**config, "_class_name": "DDPMScheduler"})
    network = OracleNetwork(recipe, GaussianOracle(std=0.0))
    assert torch.allclose(ours(recipe, network, start(), 20)[0], torch.full(SHAPE, 0.3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", DPM, UNIPC])
def test_zero_terminal_snr(name, monkeypatch):
    """alpha² is 0 at the last step of training, 2⁻²⁴ there."""
    config = {**LATENT, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}
    off, _, grid, _ = compare(name, config, 20, monkeypatch)
    assert grid[0][0].alpha == 0
    assert off < 1e-3


def test_karras_ve(monkeypatch):
    """Their sigmas are squared, so theirs is given the roots."""
    module = "diffusers.schedulers.deprecated.scheduling_karras_ve"
    monkeypatch.setattr(importlib.import_module(module), "randn_tensor", Draws())
    options = {"s_min": 0.0, "s_max": 1e9, "s_churn": 5.0}
    scheduler = importlib.import_module(module).KarrasVeScheduler(sigma_min=0.1, sigma_max=10.0, **options)
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
            x = scheduler.step_correct(output(x, to), at, to, raised, x, step.derivative).prev_sample
    mine, _ = ours(recipe, network, start() * 100, 15)
    assert difference(mine, x) < 1e-4


@pytest.mark.parametrize("steps", [30, 100])
def test_score_sde_ve(steps, monkeypatch):
    """One sample: with more, theirs sets the size of a correction over the batch."""
    one = (1, *SHAPE[1:])
    monkeypatch.setattr("diffusers.schedulers.scheduling_sde_ve.randn_tensor", Draws(one))
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0, correct_steps=2, sampling_eps=1e-3)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": "ScoreSdeVeScheduler"})
    assert recipe.objective == Score()
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    x = start(shape=one) * 50
    for t in scheduler.timesteps:
        sigma = scheduler.discrete_sigmas[(t * (steps - 1)).long()].item()
        at = recipe.schedule.at_log_snr(-2 * math.log(sigma))
        for _ in range(2):
            x = scheduler.step_correct(network.output(x, at), x).prev_sample
        step = scheduler.step_pred(network.output(x, at), t, x)
        x = step.prev_sample
    mine, _ = ours(recipe, network, start(shape=one) * 50, steps, noise=Draws(one))
    assert difference(mine, step.prev_sample_mean) < 1e-4


def test_lms_started_in_mid_schedule(monkeypatch):
    recipe = read_scheduler_config({"_class_name": "LMSDiscreteScheduler", **LATENT, **KARRAS})
    oracle = GaussianOracle()
    network = OracleNetwork(recipe, oracle)
    scheduler = diffusers.LMSDiscreteScheduler(**LATENT, **KARRAS)
    scheduler.set_timesteps(40)
    grid = recipe.grid(40)[20:]
    x = start()
    *_, last = trajectory(recipe.sampler, network, x, grid, Draws())
    other = x / grid[0][0].alpha
    for t, (now, _) in list(zip(scheduler.timesteps, recipe.grid(40), strict=True))[20:]:
        other = scheduler.step(network.output(scheduler.scale_model_input(other, t), now), t, other).prev_sample
    exact = oracle.flow(x, grid[0][0], grid[-1][1])
    assert difference(last.x, exact) < difference(other, exact) / 2


BAD = [
    ({"_class_name": "NoScheduler"}, "unknown scheduler; got _class_name='NoScheduler'"),
    ({}, "_class_name=None"),
    ({"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 0.5}, "at least 1"),
    ({"_class_name": "DDIMScheduler", "novelty": 1}, "novelty=1"),
    ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "'laplace'"),
    ({"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}, "'flow_prediction'"),
    ({"_class_name": "DDIMScheduler", "timestep_spacing": "random"}, "'random'"),
    ({"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]}, "got 2 trained_betas"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "'learned_range'"),
    ({"_class_name": DPM, "variance_type": "learned"}, "'learned'"),
    ({"_class_name": DPM, "algorithm_type": "sde-dpmsolver"}, "'sde-dpmsolver'"),
    ({"_class_name": DPM, "euler_at_final": True, **END}, "euler_at_final"),
    ({"_class_name": DPM, **KARRAS, **LU}, "use_karras_sigmas, use_lu_lambdas"),
    ({"_class_name": DPM, "use_flow_sigmas": True, **END}, "set final_sigmas_type='zero'"),
    ({"_class_name": DPM, "prediction_type": "flow_prediction"}, "'flow_prediction'"),
    ({"_class_name": DPM, "use_flow_sigmas": True, **KARRAS}, "use_karras_sigmas, use_flow_sigmas"),
    ({"_class_name": FLOW_EULER, "use_dynamic_shifting": True}, "got no mu"),
    ({"_class_name": FLOW_EULER, "use_dynamic_shifting": True, "time_shift_type": "cubic"}, "'cubic'"),
    ({"_class_name": FLOW_EULER, "stochastic_sampling": True}, "stochastic_sampling=True"),
    ({"_class_name": DPM, "final_sigmas_type": "none"}, "'none'"),
    ({"_class_name": UNIPC, "predict_x0": False}, "predict_x0=False"),
    ({"_class_name": UNIPC, "disable_corrector": [0]}, r"disable_corrector=\[0\]"),
    ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type='continuous'"),
    ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpolation_type='log_linear'"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=lambda value: None)
def test_what_has_no_counterpart_is_named(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_scheduler_config(config)
    assert "\n" not in str(caught.value)


def test_mu_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match="mu goes with use_dynamic_shifting; got mu=0.5"):
        read_scheduler_config({"_class_name": FLOW_EULER}, mu=0.5)


def test_files(tmp_path):
    config = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **LATENT, "clip_sample": False}
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(config))
    for place in (path, str(path.parent), tmp_path):
        assert read_scheduler_config(place) == read_scheduler_config(config)
    path.write_text("{")
    with pytest.raises(ValueError, match="scheduler_config.json cannot be read"):
        read_scheduler_config(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="JSON object; got list"):
        read_scheduler_config(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_scheduler_config(tmp_path / "nowhere")


def test_a_grid_says_what_it_cannot_do():
    recipe = read_scheduler_config({"_class_name": "LCMScheduler"})
    with pytest.raises(ValueError, match="original_inference_steps"):
        recipe.grid(51)
    recipe = read_scheduler_config({"_class_name": "DDIMScheduler", "steps_offset": 1})
    with pytest.raises(ValueError, match="steps_offset"):
        recipe.grid(1000)
    with pytest.raises(ValueError, match="trained with 1000 steps"):
        recipe.grid(1001)
    for name in (DPM, "DDIMScheduler", "EulerDiscreteScheduler", "KarrasVeScheduler"):
        with pytest.raises(ValueError, match="from 1 to 100000"):
            read_scheduler_config({"_class_name": name}).grid(0)
        assert len(read_scheduler_config({"_class_name": name}).grid(1)) == 1
    recipe = read_scheduler_config({"_class_name": "DDIMScheduler", "set_alpha_to_one": False})
    with pytest.raises(ValueError, match="take more steps"):
        recipe.grid(1)
