"""Schedulers of flow matching against their recipes: same noise, same network, same end."""

import importlib

import pytest
from oracles import MixtureOracle
from parity import (
    BETA,
    DPM,
    EXPONENTIAL,
    FLOW_EULER,
    FLOW_HEUN,
    KARRAS,
    SDE,
    TYPES,
    UNIPC,
    Draws,
    OracleNetwork,
    difference,
    diffusers,
    run_recipe,
    start,
)

from diffusion_framework.interop import read_scheduler_config

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
DYNAMIC = {"use_dynamic_shifting": True}
FLOWS = [
    (name, {"shift": shift}, n, None)
    for name in (FLOW_EULER, FLOW_HEUN)
    for shift in (1.0, 3.0)
    for n in (1, 9)
]
FLOWS += [
    (FLOW_EULER, {"shift": 2.0, **s}, 9, None)
    for s in (KARRAS, EXPONENTIAL, BETA, {"shift_terminal": 0.1})
]
FLOWS += [
    (FLOW_EULER, {**DYNAMIC, "time_shift_type": kind}, 9, 0.7) for kind in ("exponential", "linear")
]
FLOWS += [(FLOW_EULER, {**DYNAMIC, "shift_terminal": 0.05, "num_train_timesteps": 400}, 9, 1.15)]
for name in (DPM, UNIPC):
    FLOWS += [
        (name, {**FLOW, "flow_shift": 3.0, **s}, 10, None)
        for s in ({}, {"solver_order": 1}, TYPES[1])
    ]
    FLOWS += [(name, {**FLOW, **DYNAMIC}, 10, 0.9)]
FLOWS += [(DPM, {**FLOW, **SDE}, 20, None), (UNIPC, {**FLOW, "shift_terminal": 0.1}, 10, None)]


def label(value):
    return value.removesuffix("Scheduler") if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "config", "steps", "mu"), FLOWS, ids=label)
def test_a_flow_ends_where_that_of_diffusers_ends(name, config, steps, mu, monkeypatch):
    module = importlib.import_module(getattr(diffusers, name).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", Draws())
    scheduler = getattr(diffusers, name)(**config)
    recipe = read_scheduler_config({**scheduler.config, "_class_name": name}, mu)
    assert read_scheduler_config({**config, "_class_name": name}, mu) == recipe
    network = OracleNetwork(recipe, MixtureOracle())
    scheduler.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
    x, timesteps = start(), []
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].item()
        at = recipe.schedule.at(sigma)
        timesteps += [t.item()] if sigma and not getattr(scheduler, "dt", None) else []
        x = scheduler.step(network.output(x, at), t, x).prev_sample
    mine, grid = run_recipe(recipe, network, start(), steps)
    assert difference(mine, x) < 1e-4
    rounding = 1 if name in (DPM, UNIPC) else 1e-3  # these two round their timesteps
    assert [recipe.timestep(now) for now, _ in grid] == pytest.approx(timesteps, abs=rounding)
