"""Reads the options that many schedulers of diffusers share, and makes recipes from them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

from ..denoisers import Clip, Threshold
from ..process.objectives import X0, Eps, Objective, V, Velocity
from ..process.schedules import (
    Betas,
    Flow,
    LinearBeta,
    NoiseSchedule,
    ScaledLinearBeta,
    SquaredCosBeta,
)
from ..samplers import Sampler
from .flow import FlowSpacing
from .grids import Spacing
from .recipe import SchedulerRecipe
from .scheduler_options import Options


def check_choice(o: Options, name: str, choices: Collection[str]) -> str:
    """Returns the option `name`.

    Raises:
        ValueError: If it is not one of the choices.
    """
    value = o[name]
    if value not in choices:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(choices)}, got {value!r}. "
            "Fix: use one of them if that suits the network."
        )
    return str(value)


def read_schedule(o: Options) -> NoiseSchedule:
    """Returns the noise schedule that the options of betas describe."""
    kind, first, last, count = (
        o["beta_schedule"],
        o["beta_start"],
        o["beta_end"],
        o["num_train_timesteps"],
    )
    rescale = bool(o.get("rescale_betas_zero_snr"))
    if o["trained_betas"] is not None:
        return Betas(tuple(o["trained_betas"]), rescale)
    if kind == "linear":
        return LinearBeta(first, last, count, rescale)
    if kind == "scaled_linear":
        return ScaledLinearBeta(first, last, count, rescale)
    if kind == "squaredcos_cap_v2":
        return SquaredCosBeta(count, zero_terminal_snr=rescale)
    if kind == "sigmoid":
        logits = [-6 + 12 * i / max(count - 1, 1) for i in range(count)]
        return Betas(
            tuple(first + (last - first) / (1 + math.exp(-logit)) for logit in logits), rescale
        )
    if kind == "exp":
        return Betas((-math.expm1(-12 / count),) * count, rescale)
    raise ValueError(
        "Expected beta_schedule linear, scaled_linear, squaredcos_cap_v2, sigmoid or exp, got "
        f"{kind!r}. Fix: give the betas as trained_betas."
    )


def read_objective(o: Options) -> Objective:
    """Returns the objective that `prediction_type` names."""
    objectives = {"epsilon": Eps(), "sample": X0(), "original_sample": X0(), "v_prediction": V()}
    if o.get("use_flow_sigmas"):
        objectives["flow_prediction"] = Velocity()
    kind = o["prediction_type"]
    if kind not in objectives:
        raise ValueError(
            f"Expected prediction_type to be one of {', '.join(objectives)}, got {kind!r}. "
            "Fix: use a network trained with one of them."
        )
    return objectives[kind]


def read_clipping(o: Options) -> Clip | Threshold | Literal[False]:
    """Returns the function that keeps clean data in range, or False."""
    if o.get("thresholding"):
        return Threshold(o["dynamic_thresholding_ratio"], o["sample_max_value"])
    if not o.get("clip_sample"):
        return False
    limit = o["clip_sample_range"]
    return Clip(-limit, limit)


def read_sigmas(o: Options) -> dict[str, Any]:
    """Returns the options of `StepSpacing` for sigmas that replace the process steps."""
    names = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas")
    used = [name for name in names if o.get(f"use_{name}")]
    if len(used) > 1:
        raise ValueError(
            "Expected at most one kind of sigmas, got "
            f"{', '.join(f'use_{name}' for name in used)}. Fix: keep one."
        )
    kinds = {"karras_sigmas": "karras", "exponential_sigmas": "exponential", "beta_sigmas": "beta"}
    kinds["lu_lambdas"] = "exponential"
    return {
        "sigmas": kinds.get(used[0]) if used else None,
        "sigma_min": o.get("sigma_min"),
        "sigma_max": o.get("sigma_max"),
    }


def ends_clean(o: Options) -> bool:
    """Returns whether trajectories end at sigma 0, not at the cleanest process step."""
    if o["final_sigmas_type"] not in ("zero", "sigma_min"):
        raise ValueError(
            f"Expected final_sigmas_type 'zero' or 'sigma_min', got {o['final_sigmas_type']!r}. "
            "Fix: use one of them."
        )
    return o["final_sigmas_type"] == "zero"


def make_recipe(o: Options, sampler: Sampler, spacing: Spacing) -> SchedulerRecipe:
    """Returns the recipe of a scheduler with betas."""
    steps, betas = o["num_train_timesteps"], o["trained_betas"]
    if betas is not None and len(betas) != steps:
        raise ValueError(
            f"Expected num_train_timesteps={steps} trained_betas, one for each process step, got "
            f"{len(betas)}. Fix: change one of them."
        )
    schedule, objective = read_schedule(o), read_objective(o)
    objective.check(schedule)
    return SchedulerRecipe(schedule, objective, sampler, spacing, steps, read_clipping(o))


def make_flow_recipe(o: Options, sampler: Sampler, spacing: FlowSpacing) -> SchedulerRecipe:
    """Returns the recipe of a scheduler of flow matching."""
    steps = o["num_train_timesteps"]
    return SchedulerRecipe(
        Flow(), read_objective(o), sampler, spacing, steps, read_clipping(o), clean_step=0
    )
