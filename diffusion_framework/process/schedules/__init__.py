"""Noise schedules: frozen dataclasses, each defined by one falling curve log_snr(t).

To add one, write a class in a file of this folder, add it to the lines below, and give it a row in
`parts/table.py`.
"""

import dataclasses
from collections.abc import Mapping

from ...parts import resolve
from .base import Exploding, Interpolating, NoiseSchedule, Scaled
from .beta import Betas, LinearBeta, ScaledLinearBeta, SquaredCosBeta
from .edm import EDM
from .flow import Flow
from .gamma import Cosine, Linear, Sigmoid
from .ve import VE


def schedule_named(value: str | NoiseSchedule, options: Mapping[str, float]) -> NoiseSchedule:
    """Returns the schedule for a name and its options; a schedule object is returned unchanged.

    Args:
        value: Name of a schedule, or a schedule.
        options: Fields of the named schedule to set; empty for a schedule object.

    Raises:
        ValueError: If the name or an option is unknown, or if options come with an object.
    """
    schedule = resolve(value, NoiseSchedule, "noise_schedule")
    if not options:
        return schedule
    if not isinstance(value, str):
        raise ValueError(
            f"Expected schedule_kwargs only for a schedule given by name, got the object {value}. "
            "Fix: set its options in its constructor."
        )
    names = [field.name for field in dataclasses.fields(schedule)]  # type: ignore[arg-type]
    if unknown := [name for name in options if name not in names]:
        raise ValueError(
            f"Expected schedule_kwargs of {value!r} among {', '.join(names)}, got {unknown[0]!r}. "
            "Fix: use one of these names."
        )
    return dataclasses.replace(schedule, **options)  # type: ignore[type-var]


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
