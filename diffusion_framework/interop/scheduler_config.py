"""Reads `scheduler_config.json` of diffusers as a schedule, objective, sampler and grids.

From the same noise, a trajectory ends where that of diffusers ends. The intended differences are:

- `trailing` makes exactly the requested number of steps. In diffusers, rounding adds one step for
  some numbers. A single step of `linspace` starts at the noisiest process step; in diffusers, at
  the cleanest.
- DDIM steps to the level where the next step starts. In diffusers, it always goes down N // steps
  process steps, whatever the spacing. With `clip_sample` or `thresholding`, the noise is computed
  again from the clipped data, so that both still make up x. In diffusers, only the data changes.
- DDPM adds no noise in its last step. In diffusers, it does with `fixed_large`, unless that is
  process step 0. `fixed_large_log` means the large variance; in diffusers, it is the root of a
  negative number. With `learned`, the network predicts the log-variance (Nichol & Dhariwal 2021);
  in diffusers, the variance, which may be negative.
- DPM-Solver of order 3 has order 3. In diffusers, it loses half of the second difference and has
  order 2. That loss damps long steps, whose result can come closer by luck. The third order of the
  SDE solver also has a wrong sign in diffusers.
- PNDM's weights hold for steps of equal length in sigma / alpha, which its steps do not have. Here
  the weights are exact and need no Runge-Kutta or repeated step at the start. `skip_prk_steps`
  therefore has no meaning.
- LMS, Heun and other samplers with a history start it at the first step made, anywhere in the grid.
  In diffusers, LMS takes the order of the step's place in the whole grid. Heun takes a first-order
  step over more than a factor of 10 in sigma / alpha.
- The network is given the time of the level itself. In diffusers, most multistep schedulers round
  it to a process step with Karras and similar sigmas. Where the first two round to the same process
  step, they skip the first.
- A step that would end where it starts is left out, such as the last one to `sigma_min` with
  Karras and similar sigmas. In diffusers, this step calls the network without effect, or gives NaN
  with DPM-Solver of order 3.
- `rescale_betas_zero_snr` leaves no signal at the last process step. In diffusers, alpha² = 2⁻²⁴
  except in DDPM, DDIM and LCM. Multistep methods therefore begin after this step. A network that
  predicts epsilon, which leaves the data unknown at this step, is refused.
- UniPC's `bh1` reaches the clean end; in diffusers, it gives NaN. With Karras and similar sigmas to
  `sigma_min`, it ends without a correction. In diffusers, the step left out here makes one.
- ScoreSdeVe sets the size of its Langevin corrections by sigma. In diffusers, it depends on the
  norms of the score and of the added noise, averaged over the batch. The result omits the last
  noise, as that of the pipeline does. If `sampling_eps` rounds two steps to the same sigma, the
  second is left out; in diffusers, it starts from the sigma before.
- KarrasVe's sigmas lie between `sigma_min` and `sigma_max`. In diffusers, they lie between their
  squares.

LCM takes process steps of its distillation and ends clean. `timestep_spacing`, `steps_offset` and
`set_alpha_to_one` have no meaning for it, in diffusers or here. Options of other schedulers are
ignored, as in diffusers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..parts import convert
from ..storage.config import read_json
from .recipe import SchedulerRecipe
from .scheduler_options import FIXED, INERT, Options
from .schedulers import SCHEDULERS


def read_scheduler_config(
    config: Mapping[str, Any] | str | os.PathLike[str], mu: float | None = None
) -> SchedulerRecipe:
    """Returns the recipe that a `scheduler_config.json` of diffusers describes.

    It knows the schedulers DDPM, DDIM, PNDM, LMSDiscrete, EulerDiscrete, EulerAncestralDiscrete,
    HeunDiscrete, KDPM2Discrete, DPMSolverMultistep, DEISMultistep, UniPCMultistep, LCM, ScoreSdeVe,
    KarrasVe, FlowMatchEulerDiscrete and FlowMatchHeunDiscrete, also by the names of their Flax
    versions. The docstring of this module lists the intended differences from diffusers.

    Args:
        config: Contents of the file, or the path of the file, its folder or its pipeline.
        mu: Logarithm of the shift, or with `time_shift_type: linear` the shift itself. Required if
            and only if the config has `use_dynamic_shifting`. Pipelines compute it from the number
            of tokens of an image.

    Raises:
        ValueError: If the file cannot be read, the scheduler or an option is unknown, or an option
            has no counterpart here.
    """
    options = _load(config)
    told = options.get("_class_name")
    name = told.removeprefix("Flax") if isinstance(told, str) else None
    if name is None or name not in SCHEDULERS:
        raise ValueError(
            f"Expected a known scheduler, got _class_name={told!r:.60}. "
            f"Fix: use one of {', '.join(sorted(SCHEDULERS))}."
        )
    build, defaults = SCHEDULERS[name]
    _check_options(name, options, defaults)
    if mu is not None and not options.get("use_dynamic_shifting"):
        raise ValueError(
            f"Expected mu with use_dynamic_shifting only, got mu={mu} for a {name} without it. "
            "Fix: leave mu out."
        )
    try:
        typed = {
            key: _typed(f"{name}: {key}", options[key], defaults[key])
            for key in defaults
            if key in options
        }
        return build({"mu": mu, **defaults, **typed})
    except (TypeError, ArithmeticError, RuntimeError, AttributeError, LookupError) as error:
        raise ValueError(
            f"{name}: Expected options that make a sampler, got the error "
            f"{' '.join(str(error).split())!r:.200}. Fix: correct them in the config."
        ) from error


def _check_options(name: str, options: Options, defaults: Options) -> None:
    """Checks that the options of a scheduler are known and have a counterpart in this package."""
    known = {key for _, others in SCHEDULERS.values() for key in others} | FIXED.keys() | INERT
    for key in options:
        if key not in known and not key.startswith("_"):
            raise ValueError(
                f"Expected known options of {name}, got {key}={options[key]!r:.60}. "
                "Fix: remove it if it has no effect."
            )
    for key, supported in FIXED.items():
        value = options.get(key)
        if key in defaults and value is not None and value != supported:
            raise ValueError(
                f"Expected {key}={supported!r} in {name}, the only supported value, got "
                f"{key}={value!r:.60}. Fix: set it to {supported!r} if that suits the network."
            )


def _typed(where: str, value: Any, default: Any) -> Any:
    """Converts a value to the type of its default, or to any option type if that is None."""
    if value is None:
        return default
    hint = (
        type(default)
        if isinstance(default, bool | int | float | str)
        else bool | float | str | list[Any]
    )
    return convert(value, hint, where=where)


def _load(config: Mapping[str, Any] | str | os.PathLike[str]) -> Options:
    """Returns the options of a config, read from its file where a path is given."""
    if isinstance(config, Mapping):
        return config
    path = Path(config)
    for inner in (path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"):
        path = inner if path.is_dir() and inner.is_file() else path
    options = read_json(path)
    if not isinstance(options, dict):
        raise ValueError(
            f"{path}: expected a JSON object, got {type(options).__name__}. "
            "Fix: give a scheduler_config.json of diffusers."
        )
    return options
