"""Options of the schedulers of diffusers with their defaults, in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Options = Mapping[str, Any]

FIXED: Options = {
    "stochastic_sampling": False,
    "invert_sigmas": False,
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
}
"""Options supported with a single value, in schedulers that have them."""

INERT = {
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "skip_prk_steps",
}
"""Options without effect here; from `base_shift` to `max_image_seq_len` they help to compute mu."""

TRAINING: Options = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
LATENT: Options = {**TRAINING, "beta_start": 0.00085, "beta_end": 0.012}
THRESHOLD: Options = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
CLIP: Options = {
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "timestep_spacing": "leading",
    **THRESHOLD,
}
ZERO: Options = {"rescale_betas_zero_snr": False}
SIGMAS: Options = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
SHIFT: Options = {
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
    "shift_terminal": None,
}
MULTISTEP: Options = {
    **TRAINING,
    **SIGMAS,
    **SHIFT,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "solver_order": 2,
    **THRESHOLD,
    "lower_order_final": True,
}
EULER: Options = {
    **TRAINING,
    **SIGMAS,
    **ZERO,
    "final_sigmas_type": "zero",
    "sigma_min": None,
    "sigma_max": None,
}
DPM_SOLVER: Options = {
    **MULTISTEP,
    **ZERO,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}
UNIPC: Options = {
    **MULTISTEP,
    **ZERO,
    "solver_type": "bh2",
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
    "final_sigmas_type": "zero",
    "sigma_min": None,
    "sigma_max": None,
}
FLOW_EULER: Options = {
    **SIGMAS,
    **SHIFT,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "stochastic_sampling": False,
    "invert_sigmas": False,
}
LCM_OPTIONS: Options = {
    **LATENT,
    **CLIP,
    **ZERO,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}
