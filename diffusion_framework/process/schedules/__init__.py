"""Noise schedules: frozen dataclasses, one falling curve each. Add one: a class in a file here and a line below."""

import dataclasses
from collections.abc import Mapping

from ...storage.config import resolve
from .base import Exploding, Interpolating, NoiseSchedule, Scaled
from .beta import Betas, LinearBeta, ScaledLinearBeta, SquaredCosBeta
from .edm import EDM
from .flow import Flow
from .gamma import Cosine, Linear, Sigmoid
from .ve import VE

by_name: dict[str, type[NoiseSchedule]] = {
    "sigmoid": Sigmoid,
    "cosine": Cosine,
    "linear": Linear,
    "ve": VE,
    "edm": EDM,
    "flow": Flow,
    "linear_beta": LinearBeta,
    "scaled_linear_beta": ScaledLinearBeta,
    "squaredcos_beta": SquaredCosBeta,
}
"""The names that `GaussianDiffusion(noise_schedule=...)` knows."""


def schedule_named(value: str | NoiseSchedule, options: Mapping[str, float]) -> NoiseSchedule:
    """The schedule of this name, with these options, or the schedule itself, without.

    Raises:
        ValueError: an unknown name or option, or options beside a schedule that has its own.
    """
    schedule = resolve(value, by_name, "noise_schedule")
    if not options:
        return schedule
    if not isinstance(value, str):
        raise ValueError(f"schedule_kwargs go with a schedule given by name; got the object {value} as well")
    names = [field.name for field in dataclasses.fields(schedule)]  # type: ignore[arg-type]
    if unknown := [name for name in options if name not in names]:
        raise ValueError(f"schedule_kwargs of {value!r} are {', '.join(names)}; got {unknown[0]!r}")
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
    "by_name",
    "schedule_named",
]
