"""Builders: one small function for each scheduler of diffusers, from its options to a recipe.

A new scheduler needs a builder and a row in `SCHEDULERS`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from ..denoisers import Clip, Threshold
from ..process.objectives import X0, Eps, NegatedEps, Objective, Score, V, Velocity
from ..process.schedules import (
    VE,
    Betas,
    Flow,
    LinearBeta,
    NoiseSchedule,
    ScaledLinearBeta,
    SquaredCosBeta,
)
from ..samplers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    LMS,
    Churn,
    DPMSolver,
    Euler,
    Heun,
    Langevin,
    ReverseDiffusion,
    Sampler,
    UniPC,
)
from .flow import FlowHeun, FlowSpacing, read_shift, shifted
from .grids import DistilledSpacing, GeometricSpacing, Spacing, StepSpacing
from .lower_order_final import LowerOrderFinal
from .recipe import SchedulerRecipe
from .scheduler_options import (
    CLIP,
    DPM_SOLVER,
    EULER,
    FLOW_EULER,
    LATENT,
    LCM_OPTIONS,
    MULTISTEP,
    SHIFT,
    SIGMAS,
    TRAINING,
    UNIPC,
    ZERO,
    Options,
)


def _schedule(o: Options) -> NoiseSchedule:
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
        f"{kind!r}. Fix: give its values as trained_betas."
    )


def _objective(o: Options) -> Objective:
    objectives = {"epsilon": Eps(), "sample": X0(), "original_sample": X0(), "v_prediction": V()}
    if o.get("use_flow_sigmas"):
        objectives["flow_prediction"] = Velocity()
    kind = o["prediction_type"]
    if kind not in objectives:
        raise ValueError(
            f"Expected prediction_type among {', '.join(objectives)}, got {kind!r}. "
            "Fix: use a network trained with one of them."
        )
    return objectives[kind]


def _clip_denoised(o: Options) -> Clip | Threshold | Literal[False]:
    if o.get("thresholding"):
        return Threshold(o["dynamic_thresholding_ratio"], o["sample_max_value"])
    if not o.get("clip_sample"):
        return False
    limit = o["clip_sample_range"]
    return Clip(-limit, limit)


def _recipe(o: Options, sampler: Sampler, spacing: Spacing) -> SchedulerRecipe:
    steps, betas = o["num_train_timesteps"], o["trained_betas"]
    if betas is not None and len(betas) != steps:
        raise ValueError(
            f"Expected num_train_timesteps={steps} trained_betas, one for each process step, got "
            f"{len(betas)}. "
            "Fix: change one of them."
        )
    return SchedulerRecipe(_schedule(o), _objective(o), sampler, spacing, steps, _clip_denoised(o))


def _sigmas(o: Options) -> dict[str, Any]:
    """Returns the options of `StepSpacing` for sigmas that replace the process steps."""
    names = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas")
    used = [name for name in names if o.get(f"use_{name}")]
    if len(used) > 1:
        raise ValueError(
            f"Expected at most one kind of sigmas, got "
            f"{', '.join(f'use_{name}' for name in used)}. Fix: keep one."
        )
    kinds = {"karras_sigmas": "karras", "exponential_sigmas": "exponential", "beta_sigmas": "beta"}
    kinds["lu_lambdas"] = "exponential"
    return {
        "sigmas": kinds.get(used[0]) if used else None,
        "sigma_min": o.get("sigma_min"),
        "sigma_max": o.get("sigma_max"),
    }


def _ends_clean(o: Options) -> bool:
    if o["final_sigmas_type"] not in ("zero", "sigma_min"):
        raise ValueError(
            f"Expected final_sigmas_type 'zero' or 'sigma_min', got {o['final_sigmas_type']!r}. "
            f"Fix: use one of them."
        )
    return o["final_sigmas_type"] == "zero"


def _ddpm(o: Options) -> SchedulerRecipe:
    sizes = {
        "fixed_small": "small",
        "fixed_small_log": "small",
        "fixed_large": "large",
        "fixed_large_log": "large",
    }
    kind = o["variance_type"]
    if kind not in sizes:
        raise ValueError(
            f"Expected variance_type among {', '.join(sizes)}, got {kind!r}. Fix: use one of them "
            f"if that serves."
        )
    sampler = DDPM("small" if sizes[kind] == "small" else "large")
    return _recipe(o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"]))


def _ddim(o: Options) -> SchedulerRecipe:
    return _recipe(
        o,
        DDIM(),
        StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"])),
    )


def _pndm(o: Options) -> SchedulerRecipe:
    return _recipe(
        o, LMS(), StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"]))
    )


def _karras(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    """Returns the builder of a scheduler in sigma / alpha, whose process steps may be fractions."""

    def build(o: Options) -> SchedulerRecipe:
        clean = _ends_clean({"final_sigmas_type": "zero", **o})
        spacing = StepSpacing(
            o["timestep_spacing"], o["steps_offset"], clean, rounded=False, **_sigmas(o)
        )
        return _recipe(o, sampler, spacing)

    return build


def _flow_recipe(o: Options, sampler: Sampler, spacing: FlowSpacing) -> SchedulerRecipe:
    steps = o["num_train_timesteps"]
    return SchedulerRecipe(
        Flow(), _objective(o), sampler, spacing, steps, _clip_denoised(o), clean_step=0
    )


def _flow_match(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    """Returns the builder of a scheduler of flow matching."""

    def build(o: Options) -> SchedulerRecipe:
        shift, low = read_shift(o, "shift"), 1 / o["num_train_timesteps"]
        if not o["use_dynamic_shifting"]:
            low = shifted(low, shift)  # FlowSpacing shifts it a second time, as in diffusers
        spacing = FlowSpacing(1.0, low, False, shift, o["shift_terminal"], _sigmas(o)["sigmas"])
        return _flow_recipe(
            {**o, "prediction_type": "flow_prediction", "use_flow_sigmas": True}, sampler, spacing
        )

    return build


def _multistep(
    o: Options,
    solver: DPMSolver | UniPC,
    clean: bool,
    below: int = 15,
    flow: tuple[float, float] = (1.0, 0.0),
) -> SchedulerRecipe:
    sigmas = _sigmas(o)
    # With sigmas to process step 0, the last step of diffusers ends where it starts and is left out
    # here, so the last step has order 2.
    last_order = 2 if sigmas["sigmas"] and not clean else 1
    final_order = 2 if clean else last_order  # a step to the clean end has order 1 in any case
    constant_order = not o["lower_order_final"] or solver.order <= final_order
    sampler: Sampler = (
        solver if constant_order else LowerOrderFinal(solver, below + 1 - last_order, last_order)
    )
    if o["use_flow_sigmas"]:
        if not clean:
            raise ValueError(
                "Expected use_flow_sigmas to end at sigma 0, got final_sigmas_type='sigma_min'. "
                "Fix: set final_sigmas_type='zero'."
            )
        return _flow_recipe(
            o, sampler, FlowSpacing(*flow, True, read_shift(o, "flow_shift"), o["shift_terminal"])
        )
    min_lambda = float(o.get("lambda_min_clipped", -math.inf))
    options = {"drop_cleanest": True, "min_lambda": min_lambda, **sigmas}
    return _recipe(
        o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"], clean, **options)
    )


def _dpm_solver(o: Options) -> SchedulerRecipe:
    kind, order, clean = o["algorithm_type"], o["solver_order"], _ends_clean(o)
    if kind not in ("dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"):
        raise ValueError(
            f"Expected algorithm_type dpmsolver, dpmsolver++ or sde-dpmsolver++, got {kind!r}. "
            "Fix: use one of them if that serves."
        )
    if o["variance_type"] is not None:
        raise ValueError(
            f"Expected variance_type None, got {o['variance_type']!r}. "
            "Fix: set it to None and cut the variance off the network's output."
        )
    if o["euler_at_final"] and not clean and order > 1:
        raise ValueError(
            "Expected euler_at_final with final_sigmas_type='zero' only, got 'sigma_min'. Fix: set "
            "it to 'zero'."
        )
    weights = "midpoint" if order == 2 and o["solver_type"] != "heun" else "exact"
    predict = "eps" if kind == "dpmsolver" else "x0"
    sampler = DPMSolver(order, predict, 1.0 if kind.startswith("sde") else 0.0, weights)  # type: ignore[arg-type]
    return _multistep(o, sampler, clean, flow=(1 - 1 / o["num_train_timesteps"], 0.0))


def _deis(o: Options) -> SchedulerRecipe:
    return _multistep(o, DPMSolver(o["solver_order"], "eps"), clean=False)


def _unipc(o: Options) -> SchedulerRecipe:
    variant = "bh1" if o["solver_type"] == "bh1" else "bh2"
    solver = UniPC(o["solver_order"], variant)  # type: ignore[arg-type]
    high = 1.0
    if o["use_flow_sigmas"]:  # a little signal, as in diffusers, lets the corrector run in step 1
        high = shifted(1 - 1e-6, 1 / read_shift(o, "flow_shift"))
    return _multistep(o, solver, _ends_clean(o), sys.maxsize, (high, 1 / o["num_train_timesteps"]))


def _lcm(o: Options) -> SchedulerRecipe:
    recipe = _recipe(o, DDIM(), DistilledSpacing(o["original_inference_steps"]))
    return replace(
        recipe, sampler=LCM(timestep_scaling=o["timestep_scaling"], timesteps=recipe.trained_steps)
    )


def _score_sde_ve(o: Options) -> SchedulerRecipe:
    sampler = Langevin(ReverseDiffusion(), o["snr"], o["correct_steps"])
    schedule = VE(o["sigma_min"], o["sigma_max"])
    return SchedulerRecipe(schedule, Score(), sampler, GeometricSpacing(), o["num_train_timesteps"])


def _karras_ve(o: Options) -> SchedulerRecipe:
    sampler = Churn(Heun(), o["s_churn"], o["s_min"], o["s_max"], o["s_noise"])
    return SchedulerRecipe(
        VE(o["sigma_min"], o["sigma_max"]), NegatedEps(), sampler, GeometricSpacing()
    )


SCHEDULERS: dict[str, tuple[Callable[[Options], SchedulerRecipe], Options]] = {
    "DDPMScheduler": (_ddpm, {**TRAINING, **CLIP, **ZERO, "variance_type": "fixed_small"}),
    "DDIMScheduler": (_ddim, {**TRAINING, **CLIP, **ZERO, "set_alpha_to_one": True}),
    "PNDMScheduler": (
        _pndm,
        {**TRAINING, "timestep_spacing": "leading", "set_alpha_to_one": False},
    ),
    "LMSDiscreteScheduler": (_karras(LMS()), {**TRAINING, **SIGMAS}),
    "EulerDiscreteScheduler": (
        _karras(Euler()),
        {**EULER, "interpolation_type": "linear", "timestep_type": "discrete"},
    ),
    "EulerAncestralDiscreteScheduler": (_karras(DDIM(eta=1.0)), {**TRAINING, **ZERO}),
    "HeunDiscreteScheduler": (
        _karras(Heun()),
        {**LATENT, **SIGMAS, "clip_sample": False, "clip_sample_range": 1.0},
    ),
    "KDPM2DiscreteScheduler": (_karras(DPM2()), {**LATENT, **SIGMAS}),
    "DPMSolverMultistepScheduler": (_dpm_solver, DPM_SOLVER),
    "DEISMultistepScheduler": (_deis, MULTISTEP),
    "UniPCMultistepScheduler": (_unipc, UNIPC),
    "FlowMatchEulerDiscreteScheduler": (_flow_match(Euler()), FLOW_EULER),
    "FlowMatchHeunDiscreteScheduler": (
        _flow_match(FlowHeun()),
        {**SHIFT, "num_train_timesteps": 1000, "shift": 1.0},
    ),
    "LCMScheduler": (_lcm, LCM_OPTIONS),
    "ScoreSdeVeScheduler": (
        _score_sde_ve,
        {
            "num_train_timesteps": 2000,
            "snr": 0.15,
            "sigma_min": 0.01,
            "sigma_max": 1348.0,
            "correct_steps": 1,
        },
    ),
    "KarrasVeScheduler": (
        _karras_ve,
        {
            "sigma_min": 0.02,
            "sigma_max": 100.0,
            "s_noise": 1.007,
            "s_churn": 80.0,
            "s_min": 0.05,
            "s_max": 50.0,
        },
    ),
}
"""Builder and default options of each scheduler, by the name of its class in diffusers."""
