"""The `scheduler_config.json` of a diffusers pipeline, as a schedule, an objective, a sampler and its grids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..parts import convert
from ..storage.config import read_json
from .recipe import SchedulerRecipe
from .schedulers import FIXED, INERT, SCHEDULERS, Options


def read_scheduler_config(
    config: Mapping[str, Any] | str | os.PathLike[str], mu: float | None = None
) -> SchedulerRecipe:
    """The recipe that a `scheduler_config.json` of diffusers describes.

    Known are DDPM, DDIM, PNDM, LMSDiscrete, EulerDiscrete, EulerAncestralDiscrete, HeunDiscrete, KDPM2Discrete,
    DPMSolverMultistep, DEISMultistep, UniPCMultistep, LCM, ScoreSdeVe, KarrasVe, FlowMatchEulerDiscrete and
    FlowMatchHeunDiscrete. From the same noise a trajectory
    ends where theirs does, but for these, where it is meant to differ:

    - `trailing` makes as many steps as asked for (there, rounding makes one more for some numbers), and one step of
      `linspace` is the noisiest (there, the cleanest).
    - DDIM steps to the level where the next step starts (there, always N // steps below, whatever the spacing).
      With `clip_sample` or `thresholding` the noise is read off again, so that both still make up x (there, only the
      data is changed).
    - DDPM adds no noise in its last step (there, it does with `fixed_large` unless that is step 0 of training), and
      `fixed_large_log` is the large variance (there, the root of a negative number).
    - DPM-Solver of order 3 is of order 3 (there, half of the second difference is lost, and the order is 2; where steps
      are long that damps, and can come nearer by luck; the SDE's third order has a wrong sign besides).
    - PNDM's weights are for steps of equal length in sigma / alpha, which they are not. Here they are the exact ones,
      and need no Runge-Kutta or repeated step to start with: `skip_prk_steps` has no meaning.
    - LMS, Heun and the others start their history with the first step that is made, wherever that lies (there, LMS
      takes the order of the place in the whole grid). Heun takes a first-order step over more than a factor of 10.
    - The network is told the time of the level itself (there, with Karras and similar sigmas, it is rounded to a step
      by most multistep schedulers, and where the first two fall together, the first is passed over). A step that would
      lead to where it starts, as the last one to `sigma_min` with such sigmas, is left out (there, the network is
      called for nothing, or for NaN with DPM-Solver of order 3).
    - `rescale_betas_zero_snr` leaves no signal at all at the last step (there, alpha² = 2⁻²⁴ in all but DDPM, DDIM and
      LCM), so that multistep methods begin after it, and epsilon cannot be predicted there.
    - UniPC's `bh1` reaches the clean end (there, NaN). With Karras and similar sigmas to `sigma_min` it ends without
      a correction (there, the step left out makes one).
    - ScoreSdeVe sets the size of each Langevin correction for each sample by itself (there, over the batch). The result
      is without the last noise, as its pipeline's.
    - KarrasVe's sigmas are those between `sigma_min` and `sigma_max` (there, their squares).

    LCM takes its own steps, those of the distillation, and ends clean: `timestep_spacing`, `steps_offset` and
    `set_alpha_to_one` have no meaning, there and here. Options of other schedulers are passed over, as there.

    Args:
        config: What the file holds, its path, or that of its folder or pipeline.
        mu: Of a config with `use_dynamic_shifting` (and only of such): the logarithm of the shift, which pipelines find
            from the number of tokens of an image; with `time_shift_type: linear` the shift itself.

    Raises:
        ValueError: a file that cannot be read, an unknown scheduler or option, or one that has no counterpart here.
    """
    options = _load(config)
    name = options.get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULERS:
        names = ", ".join(sorted(SCHEDULERS))
        raise ValueError(f"unknown scheduler; got _class_name={name!r:.60}, wanted one of {names}")
    build, defaults = SCHEDULERS[name]
    known = {key for _, others in SCHEDULERS.values() for key in others} | FIXED.keys() | INERT
    for key in options:
        if key not in known and not key.startswith("_"):
            raise ValueError(f"unknown option of {name}; got {key}={options[key]!r:.60}: remove it if it means nothing")
    for key, neutral in FIXED.items():
        value = options.get(key)
        if key in defaults and value is not None and value != neutral:
            raise ValueError(
                f"{name}: got {key}={value!r:.60}, which has no counterpart here, wanted {neutral!r}: set it if that "
                "serves"
            )
    if mu is not None and not options.get("use_dynamic_shifting"):
        raise ValueError(f"mu goes with use_dynamic_shifting; got mu={mu} for a {name} without: leave it out")
    try:
        typed = {key: _typed(f"{name}: {key}", options[key], defaults[key]) for key in defaults if key in options}
        return build({"mu": mu, **defaults, **typed})
    except (TypeError, ArithmeticError, RuntimeError, AttributeError, LookupError) as error:
        raise ValueError(f"{name}: its options make no sampler ({' '.join(str(error).split()):.200})") from error


def _typed(where: str, value: Any, default: Any) -> Any:
    """A value of the type that its default has; of the kinds that occur if the default is None."""
    if value is None:
        return default
    hint = type(default) if isinstance(default, bool | int | float | str) else bool | float | str | list[Any]
    return convert(value, hint, where=where)


def _load(config: Mapping[str, Any] | str | os.PathLike[str]) -> Options:
    if isinstance(config, Mapping):
        return config
    path = Path(config)
    for inner in (path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"):
        path = inner if path.is_dir() and inner.is_file() else path
    options = read_json(path)
    if not isinstance(options, dict):
        raise ValueError(f"a scheduler config is a JSON object; got {type(options).__name__} in {path}")
    return options
