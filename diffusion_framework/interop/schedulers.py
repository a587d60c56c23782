"""Builders: one small function for each scheduler of diffusers, from its options to a recipe.

A new scheduler needs a builder and a row in `SCHEDULERS`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

from ..process.objectives import NegatedEps, Score
from ..process.posterior import Variance
from ..process.schedules import VE
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
    LowerOrderFinal,
    ReverseDiffusion,
    Sampler,
    UniPC,
)
from .flow import FlowHeun, FlowSpacing, read_shift, shifted
from .grids import DistilledSpacing, GeometricSpacing, StepSpacing
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
from .shared_options import check_choice, ends_clean, make_flow_recipe, make_recipe, read_sigmas

UNIPC_TYPES = ("bh1", "bh2")
# As in diffusers, the solver types of other multistep schedulers stand for a scheduler's default.


def _ddpm(o: Options) -> SchedulerRecipe:
    variances: dict[str, Variance] = {
        "fixed_small": "small",
        "fixed_small_log": "small",
        "fixed_large": "large",
        "fixed_large_log": "large",
        "learned": "learned",
        "learned_range": "learned_range",
    }
    sampler = DDPM(variances[check_choice(o, "variance_type", variances)])
    return make_recipe(o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"]))


def _ddim(o: Options) -> SchedulerRecipe:
    return make_recipe(
        o,
        DDIM(),
        StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"])),
    )


def _pndm(o: Options) -> SchedulerRecipe:
    return make_recipe(
        o, LMS(), StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"]))
    )


def _karras(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    """Returns the builder of a scheduler in sigma / alpha, whose process steps may be fractions."""

    def build(o: Options) -> SchedulerRecipe:
        clean = ends_clean({"final_sigmas_type": "zero", **o})
        spacing = StepSpacing(
            o["timestep_spacing"], o["steps_offset"], clean, rounded=False, **read_sigmas(o)
        )
        return make_recipe(o, sampler, spacing)

    return build


def _flow_match(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    """Returns the builder of a scheduler of flow matching."""

    def build(o: Options) -> SchedulerRecipe:
        shift, low = read_shift(o, "shift"), 1 / o["num_train_timesteps"]
        if not o["use_dynamic_shifting"]:
            low = shifted(low, shift)  # FlowSpacing shifts it a second time, as in diffusers
        spacing = FlowSpacing(1.0, low, False, shift, o["shift_terminal"], read_sigmas(o)["sigmas"])
        return make_flow_recipe(
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
    sigmas = read_sigmas(o)
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
        return make_flow_recipe(
            o, sampler, FlowSpacing(*flow, True, read_shift(o, "flow_shift"), o["shift_terminal"])
        )
    min_lambda = float(o.get("lambda_min_clipped", -math.inf))
    options = {"drop_cleanest": True, "min_lambda": min_lambda, **sigmas}
    return make_recipe(
        o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"], clean, **options)
    )


def _dpm_solver(o: Options) -> SchedulerRecipe:
    kinds = ("dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis")
    kind, order, clean = check_choice(o, "algorithm_type", kinds), o["solver_order"], ends_clean(o)
    if o["variance_type"] is not None:  # the solver does not use it
        check_choice(o, "variance_type", ("learned", "learned_range"))
    check_choice(o, "solver_type", ("midpoint", "heun", *UNIPC_TYPES, "logrho"))
    if o["euler_at_final"] and not clean and order > 1:
        raise ValueError(
            "Expected final_sigmas_type='zero' with euler_at_final, got 'sigma_min'. "
            "Fix: set final_sigmas_type='zero'."
        )
    weights = "midpoint" if order == 2 and o["solver_type"] != "heun" else "exact"
    predict = "eps" if kind == "dpmsolver" else "x0"
    sampler = DPMSolver(order, predict, 1.0 if kind.startswith("sde") else 0.0, weights)  # type: ignore[arg-type]
    return _multistep(o, sampler, clean, flow=(1 - 1 / o["num_train_timesteps"], 0.0))


def _deis(o: Options) -> SchedulerRecipe:
    check_choice(o, "solver_type", ("logrho", "midpoint", "heun", *UNIPC_TYPES))
    return _multistep(o, DPMSolver(o["solver_order"], "eps"), clean=False)


def _unipc(o: Options) -> SchedulerRecipe:
    check_choice(o, "solver_type", (*UNIPC_TYPES, "midpoint", "heun", "logrho"))
    variant = "bh1" if o["solver_type"] == "bh1" else "bh2"
    solver = UniPC(o["solver_order"], variant)  # type: ignore[arg-type]
    high = 1.0
    if o["use_flow_sigmas"]:  # a little signal, as in diffusers, lets the corrector run in step 1
        high = shifted(1 - 1e-6, 1 / read_shift(o, "flow_shift"))
    return _multistep(o, solver, ends_clean(o), sys.maxsize, (high, 1 / o["num_train_timesteps"]))


def _lcm(o: Options) -> SchedulerRecipe:
    recipe = make_recipe(o, DDIM(), DistilledSpacing(o["original_inference_steps"]))
    sampler = LCM(0.5, o["timestep_scaling"], recipe.trained_steps, o["original_inference_steps"])
    return replace(recipe, sampler=sampler)


def _score_sde_ve(o: Options) -> SchedulerRecipe:
    sampler = Langevin(ReverseDiffusion(), o["snr"], o["correct_steps"])
    schedule, spacing = VE(o["sigma_min"], o["sigma_max"]), GeometricSpacing(o["sampling_eps"])
    return SchedulerRecipe(schedule, Score(), sampler, spacing, o["num_train_timesteps"])


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
    "DEISMultistepScheduler": (_deis, {**MULTISTEP, "solver_type": "logrho"}),
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
            "sampling_eps": 1e-5,
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
