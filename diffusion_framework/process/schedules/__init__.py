"""Noise schedules: frozen dataclasses, each defined by one falling curve log_snr(t).

To add one, write a class in a file of this folder, add it to the lines below, and give it a row in
`parts/table.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...parts import find, resolve
from .base import Exploding, Interpolating, NoiseSchedule, Scaled
from .beta import Betas, LinearBeta, ScaledLinearBeta, SquaredCosBeta
from .edm import EDM
from .flow import Flow
from .gamma import Cosine, Linear, Sigmoid
from .ve import VE


def schedule_named(
    value: str | NoiseSchedule, options: Mapping[str, float], steps: int = 1000
) -> NoiseSchedule:
    """Returns the schedule for a name and its options; a schedule object is returned unchanged.

    Args:
        value: Name of a schedule, or a schedule.
        options: Fields of the named schedule to set; empty for a schedule object.
        steps: Number of training steps of a named schedule that has them.

    Raises:
        ValueError: If the name or an option is unknown, or if options come with an object.
    """
    if not isinstance(value, str):
        if options:
            raise ValueError(
                "Expected schedule_kwargs only for a schedule given by name, got the object "
                f"{value}. Fix: set its options in its constructor."
            )
        return resolve(value, NoiseSchedule, "noise_schedule")
    cls: Any = find(value, NoiseSchedule, (), "noise_schedule")
    names = [field.name for field in dataclasses.fields(cls)]
    if unknown := [name for name in options if name not in names]:
        raise ValueError(
            f"Expected schedule_kwargs of {value!r} among {', '.join(names)}, got {unknown[0]!r}. "
            "Fix: use one of these names."
        )
    given = {"steps": steps, **options}
    if "steps" in names:
        given["steps"] = int(given["steps"])
    return resolve(value, NoiseSchedule, "noise_schedule", **given)


__all__ = [
    "EDM",
    "VE",
    "Betas",
    "Cosine",
    "Exploding",
    "Flow",
    "Interpolating",
    "Linear",
    "LinearBeta",
    "NoiseSchedule",
    "Scaled",
    "ScaledLinearBeta",
    "Sigmoid",
    "SquaredCosBeta",
    "schedule_named",
]
