"""Checks of what users pass to `walk` and `sample`."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditions.base import as_tensor
from ..denoisers import Feedback
from ..parts import nearest
from .base import Sampler
from .ddim import DDIM


def check_keywords(
    given: Collection[str], conditions: Collection[str], options: Collection[str], sampler: Sampler
) -> None:
    """Checks that all further keywords of `walk` are conditions.

    Args:
        given: Names that the user passed.
        conditions: Names of the model's conditions.
        options: Names of the options of `walk` and `sample`.
        sampler: Sampler of the walk, as an object.

    Raises:
        ValueError: If a name is unknown. The error gives the nearest known name, or the sampler
            that has an option of this name.
    """
    unknown = [name for name in given if name not in conditions]
    if not unknown:
        return
    name, known = unknown[0], [*conditions, *options]
    parts: list[Any] = [part for part in (sampler, DDIM()) if dataclasses.is_dataclass(part)]
    having = [p for p in parts if name in {field.name for field in dataclasses.fields(p)}]
    if having:
        fix = f"give it to the sampler, as in sampler={type(having[0]).__name__}({name}=...)"
    elif name == "labels":
        fix = "leave it out, or build the network with num_classes"
    elif close := nearest(name, known):
        fix = f"write {close}="
    else:
        fix = (
            "leave it out, build the model with a conditioner for it (conditions=), or choose one "
            f"of {', '.join(known)}"
        )
    raise ValueError(f"Expected an option or a condition, got {name!r}. Fix: {fix}.")


def whole_number(value: Any, name: str) -> int:
    """Returns an integer of any type, such as NumPy's, as an int.

    Args:
        value: Value that the user passed.
        name: Name of the argument.

    Raises:
        ValueError: If the value is not an integer.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(
            f"Expected an integer for {name}, got {value!r:.60}. Fix: pass int({name})."
        ) from error


def sample_count(batch_size: Any) -> int:
    """Returns the number of samples as an int.

    Raises:
        ValueError: If it is not an integer, or below 1.
    """
    count = whole_number(batch_size, "batch_size")
    if count < 1:
        raise ValueError(f"Expected batch_size of at least 1, got {count}. Fix: choose how many.")
    return count


def plain_seed(seed: Any) -> int | list[int] | None:
    """Returns a seed, or a list of seeds, as Python integers; None stays None.

    Args:
        seed: An integer of any type, or a sequence, array or tensor of integers.

    Raises:
        ValueError: If a seed is not an integer.
    """
    if seed is None:
        return None
    if isinstance(seed, Tensor | np.ndarray):
        seed = seed.tolist()  # of a single number, that number
    if isinstance(seed, Sequence | range) and not isinstance(seed, str):
        return [whole_number(one, "seed") for one in seed]
    return whole_number(seed, "seed")


def check_generator(generator: Any) -> None:
    """Raises ValueError unless the generator is one of PyTorch, or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"Expected one torch.Generator, got {type(generator).__name__}. "
            "Fix: pass seed=, with one seed for each sample."
        )


def samples(value: Any, batch_size: int, device: torch.device, name: str) -> Tensor:
    """Returns samples that the user passed as a tensor or an array, [batch, ...].

    Args:
        value: Samples, one for each of the batch.
        batch_size: Number of samples.
        device: Device of the result.
        name: Name of the argument.

    Raises:
        ValueError: If the value is not numbers, or has another number of samples.
    """
    tensor = as_tensor(value, device, f"samples [{batch_size}, ...] for {name}")
    if not tensor.ndim or len(tensor) != batch_size:
        raise ValueError(
            f"Expected {name} [{batch_size}, ...], got {[*tensor.shape]}. "
            "Fix: give one for each sample, or set batch_size."
        )
    return tensor


def feedback(given: float | None, steps: int, *, adaptive: bool) -> Feedback:
    """Returns what a network with self-conditioning sees of its earlier estimates.

    Without a factor, estimates are extrapolated to the level of the call. In few steps they are
    damped too, because the errors of long steps disturb the next ones. The README of this folder
    has the measurements.

    Args:
        given: Factor of the user for the last estimate, or None.
        steps: Number of steps of the grid.
        adaptive: Whether the sampler divides them further.

    Raises:
        ValueError: If the factor is not in [0, 1].
    """
    if given is None:
        damped = steps < 15 and not adaptive
        return Feedback(0.75 if damped else 1.0, extrapolates=not adaptive)
    if not 0 <= given <= 1:
        raise ValueError(
            f"Expected self_conditioning in [0, 1], got {given}. Fix: use 1, as in training."
        )
    return Feedback(float(given))
