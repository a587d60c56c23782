"""One small function a scheduler of diffusers, from its options to a recipe; add one with its line in `SCHEDULERS`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ..denoisers import Clip, Threshold
from ..process.objectives import X0, Eps, NegatedEps, Objective, Score, V, Velocity
from ..process.schedules import VE, Betas, Flow, LinearBeta, NoiseSchedule, ScaledLinearBeta, SquaredCosBeta
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
from .flow import FlowHeun, FlowSpacing, shift_of, shifted
from .grids import DistilledSpacing, GeometricSpacing, Spacing, StepSpacing
from .lower_order_final import LowerOrderFinal
from .recipe import SchedulerRecipe

Options = Mapping[str, Any]


def _schedule(o: Options) -> NoiseSchedule:
    kind, first, last, count = o["beta_schedule"], o["beta_start"], o["beta_end"], o["num_train_timesteps"]
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
        return Betas(tuple(first + (last - first) / (1 + math.exp(-logit)) for logit in logits), rescale)
    if kind == "exp":
        return Betas((-math.expm1(-12 / count),) * count, rescale)
    raise ValueError(
        f"unknown beta_schedule; got {kind!r}, wanted linear, scaled_linear, squaredcos_cap_v2, sigmoid or exp: "
        "give its values as trained_betas"
    )


def _objective(o: Options) -> Objective:
    objectives = {"epsilon": Eps(), "sample": X0(), "original_sample": X0(), "v_prediction": V()}
    if o.get("use_flow_sigmas"):
        objectives["flow_prediction"] = Velocity()
    kind = o["prediction_type"]
    if kind not in objectives:
        raise ValueError(
            f"prediction_type has no counterpart here; got {kind!r}, wanted one of {', '.join(objectives)}"
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
        raise ValueError(f"each step has a beta; got {len(betas)} trained_betas, num_train_timesteps={steps}: mend one")
    return SchedulerRecipe(_schedule(o), _objective(o), sampler, spacing, steps, _clip_denoised(o))


def _sigmas(o: Options) -> dict[str, Any]:
    """The options of sigmas that replace the steps."""
    names = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas")
    on = [name for name in names if o.get(f"use_{name}")]
    if len(on) > 1:
        raise ValueError(
            f"only one kind of sigmas can be used; got {', '.join(f'use_{name}' for name in on)}: keep one"
        )
    kinds = {"karras_sigmas": "karras", "exponential_sigmas": "exponential", "beta_sigmas": "beta"}
    kinds["lu_lambdas"] = "exponential"
    return {
        "sigmas": kinds.get(on[0]) if on else None,
        "sigma_min": o.get("sigma_min"),
        "sigma_max": o.get("sigma_max"),
    }


def _ends_clean(o: Options) -> bool:
    if o["final_sigmas_type"] not in ("zero", "sigma_min"):
        raise ValueError(f"final_sigmas_type must be 'zero' or 'sigma_min'; got {o['final_sigmas_type']!r}")
    return o["final_sigmas_type"] == "zero"


def _ddpm(o: Options) -> SchedulerRecipe:
    sizes = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large"}
    kind = o["variance_type"]
    if kind not in sizes:
        raise ValueError(f"variance_type has no counterpart here; got {kind!r}, wanted one of {', '.join(sizes)}")
    sampler = DDPM("small" if sizes[kind] == "small" else "large")
    return _recipe(o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"]))


def _ddim(o: Options) -> SchedulerRecipe:
    return _recipe(o, DDIM(), StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"])))


def _pndm(o: Options) -> SchedulerRecipe:
    return _recipe(o, LMS(), StepSpacing(o["timestep_spacing"], o["steps_offset"], bool(o["set_alpha_to_one"])))


def _karras(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    """A scheduler in sigma / alpha, whose steps of training may be fractions."""

    def build(o: Options) -> SchedulerRecipe:
        clean = _ends_clean({"final_sigmas_type": "zero", **o})
        spacing = StepSpacing(o["timestep_spacing"], o["steps_offset"], clean, whole=False, **_sigmas(o))
        return _recipe(o, sampler, spacing)

    return build


def _flow_recipe(o: Options, sampler: Sampler, spacing: FlowSpacing) -> SchedulerRecipe:
    steps = o["num_train_timesteps"]
    return SchedulerRecipe(Flow(), _objective(o), sampler, spacing, steps, _clip_denoised(o), clean_step=0)


def _flow_match(sampler: Sampler) -> Callable[[Options], SchedulerRecipe]:
    def build(o: Options) -> SchedulerRecipe:
        shift, low = shift_of(o, "shift"), 1 / o["num_train_timesteps"]
        if not o["use_dynamic_shifting"]:
            low = shifted(low, shift)  # and once more below, as there
        spacing = FlowSpacing(1.0, low, False, shift, o["shift_terminal"], _sigmas(o)["sigmas"])
        return _flow_recipe({**o, "prediction_type": "flow_prediction", "use_flow_sigmas": True}, sampler, spacing)

    return build


def _multistep(
    o: Options, solver: DPMSolver | UniPC, clean: bool, falls_below: int = 15, flow: tuple[float, float] = (1.0, 0.0)
) -> SchedulerRecipe:
    sigmas = _sigmas(o)
    # With sigmas to the first step of training, their last step, of order 1, leads nowhere: here there is one less.
    last = 2 if sigmas["sigmas"] and not clean else 1
    plain = not o["lower_order_final"] or solver.order <= (2 if clean else last)  # the clean end is of order 1 anyway
    sampler: Sampler = solver if plain else LowerOrderFinal(solver, falls_below + 1 - last, last)
    if o["use_flow_sigmas"]:
        if not clean:
            raise ValueError("use_flow_sigmas ends clean here; got final sigmas above 0: set final_sigmas_type='zero'")
        return _flow_recipe(o, sampler, FlowSpacing(*flow, True, shift_of(o, "flow_shift"), o["shift_terminal"]))
    lowest = float(o.get("lambda_min_clipped", -math.inf))
    options = {"spare": True, "lowest": lowest, **sigmas}
    return _recipe(o, sampler, StepSpacing(o["timestep_spacing"], o["steps_offset"], clean, **options))


def _dpm_solver(o: Options) -> SchedulerRecipe:
    kind, order, clean = o["algorithm_type"], o["solver_order"], _ends_clean(o)
    if kind not in ("dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"):
        raise ValueError(
            f"algorithm_type has no counterpart here; got {kind!r}, wanted dpmsolver, dpmsolver++ or sde-dpmsolver++"
        )
    if o["variance_type"] is not None:
        raise ValueError(
            f"variance_type has no counterpart here; got {o['variance_type']!r}, wanted None: cut the network's output"
        )
    if o["euler_at_final"] and not clean and order > 1:
        raise ValueError(
            "euler_at_final has no counterpart here; got True with final_sigmas_type='sigma_min': end at 'zero'"
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
    if o["use_flow_sigmas"]:  # as there, with a little signal, so that the first step is corrected too
        high = shifted(1 - 1e-6, 1 / shift_of(o, "flow_shift"))
    return _multistep(o, solver, _ends_clean(o), sys.maxsize, (high, 1 / o["num_train_timesteps"]))


def _lcm(o: Options) -> SchedulerRecipe:
    recipe = _recipe(o, DDIM(), DistilledSpacing(o["original_inference_steps"]))
    return replace(recipe, sampler=LCM(timestep_scaling=o["timestep_scaling"], timesteps=recipe.trained_steps))


def _score_sde_ve(o: Options) -> SchedulerRecipe:
    sampler = Langevin(ReverseDiffusion(), o["snr"], o["correct_steps"])
    schedule = VE(o["sigma_min"], o["sigma_max"])
    return SchedulerRecipe(schedule, Score(), sampler, GeometricSpacing(), o["num_train_timesteps"])


def _karras_ve(o: Options) -> SchedulerRecipe:
    sampler = Churn(Heun(), o["s_churn"], o["s_min"], o["s_max"], o["s_noise"])
    return SchedulerRecipe(VE(o["sigma_min"], o["sigma_max"]), NegatedEps(), sampler, GeometricSpacing())


FIXED: Options = {
    "stochastic_sampling": False,
    "invert_sigmas": False,
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
}
"""Options with a counterpart here for one value only, where a scheduler has them."""

INERT = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "skip_prk_steps", "sampling_eps"}
"""Options that mean something only beside one of the above, or nothing: `read_scheduler_config` says why."""

_TRAINING: Options = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_LATENT: Options = {**_TRAINING, "beta_start": 0.00085, "beta_end": 0.012}
_THRESHOLD: Options = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_CLIP: Options = {"clip_sample": True, "clip_sample_range": 1.0, "timestep_spacing": "leading", **_THRESHOLD}
_ZERO: Options = {"rescale_betas_zero_snr": False}
_SIGMAS: Options = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_SHIFT: Options = {"use_dynamic_shifting": False, "time_shift_type": "exponential", "shift_terminal": None}
_MULTISTEP: Options = {
    **_TRAINING,
    **_SIGMAS,
    **_SHIFT,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "solver_order": 2,
    **_THRESHOLD,
    "lower_order_final": True,
}
_EULER: Options = {**_TRAINING, **_SIGMAS, **_ZERO, "final_sigmas_type": "zero", "sigma_min": None, "sigma_max": None}

SCHEDULERS: dict[str, tuple[Callable[[Options], SchedulerRecipe], Options]] = {
    "DDPMScheduler": (_ddpm, {**_TRAINING, **_CLIP, **_ZERO, "variance_type": "fixed_small"}),
    "DDIMScheduler": (_ddim, {**_TRAINING, **_CLIP, **_ZERO, "set_alpha_to_one": True}),
    "PNDMScheduler": (_pndm, {**_TRAINING, "timestep_spacing": "leading", "set_alpha_to_one": False}),
    "LMSDiscreteScheduler": (_karras(LMS()), {**_TRAINING, **_SIGMAS}),
    "EulerDiscreteScheduler": (
        _karras(Euler()),
        {**_EULER, "interpolation_type": "linear", "timestep_type": "discrete"},
    ),
    "EulerAncestralDiscreteScheduler": (_karras(DDIM(eta=1.0)), {**_TRAINING, **_ZERO}),
    "HeunDiscreteScheduler": (
        _karras(Heun()),
        {**_LATENT, **_SIGMAS, "clip_sample": False, "clip_sample_range": 1.0},
    ),
    "KDPM2DiscreteScheduler": (_karras(DPM2()), {**_LATENT, **_SIGMAS}),
    "DPMSolverMultistepScheduler": (
        _dpm_solver,
        {
            **_MULTISTEP,
            **_ZERO,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "euler_at_final": False,
            "use_lu_lambdas": False,
            "final_sigmas_type": "zero",
            "lambda_min_clipped": -math.inf,
            "variance_type": None,
        },
    ),
    "DEISMultistepScheduler": (_deis, _MULTISTEP),
    "UniPCMultistepScheduler": (
        _unipc,
        {
            **_MULTISTEP,
            **_ZERO,
            "solver_type": "bh2",
            "predict_x0": True,
            "disable_corrector": [],
            "solver_p": None,
            "final_sigmas_type": "zero",
            "sigma_min": None,
            "sigma_max": None,
        },
    ),
    "FlowMatchEulerDiscreteScheduler": (
        _flow_match(Euler()),
        {
            **_SIGMAS,
            **_SHIFT,
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "stochastic_sampling": False,
            "invert_sigmas": False,
        },
    ),
    "FlowMatchHeunDiscreteScheduler": (
        _flow_match(FlowHeun()),
        {**_SHIFT, "num_train_timesteps": 1000, "shift": 1.0},
    ),
    "LCMScheduler": (
        _lcm,
        {
            **_LATENT,
            **_CLIP,
            **_ZERO,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "original_inference_steps": 50,
            "timestep_scaling": 10.0,
        },
    ),
    "ScoreSdeVeScheduler": (
        _score_sde_ve,
        {"num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.01, "sigma_max": 1348.0, "correct_steps": 1},
    ),
    "KarrasVeScheduler": (
        _karras_ve,
        {"sigma_min": 0.02, "sigma_max": 100.0, "s_noise": 1.007, "s_churn": 80.0, "s_min": 0.05, "s_max": 50.0},
    ),
}
