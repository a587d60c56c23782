"""Modules from plans, tried on the meta device first: a file that asks for too much takes no memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ..parts import Plan

MOST_TENSORS = 100_000


class TooLarge(ValueError):
    """A description of a module that is larger than it can be."""


def build_fitting(planned: Plan, tensors: Mapping[str, Tensor], what: str, **given: Any) -> nn.Module:
    """The module of a plan, if the tensors of a file can be its state.

    Args:
        planned: The plan.
        tensors: By the names of the module's state.
        what: Name of the file, for errors.
        given: As for `Plan.build`.

    Raises:
        ValueError: a module with other shapes, or far more parts than the file has tensors.
    """
    for name, shape in _shapes(planned, len(tensors), **given).items():
        if name not in tensors or tensors[name].shape != shape:
            there = [*tensors[name].shape] if name in tensors else "none"
            raise ValueError(
                f"the weights of {what} do not fit the model of its config: {name:.200} has shape {[*shape]}, the "
                f"file's has {there}"
            )
    module: nn.Module = planned.build(**given)
    return module


def check_size(planned: Plan) -> None:
    """Raise ValueError if this machine's memory cannot hold the float32 weights of a plan."""
    count = sum(math.prod(shape) for shape in _shapes(planned, MOST_TENSORS).values())
    there = psutil.virtual_memory().total
    if 4 * count > there:
        raise TooLarge(
            f"{planned.where}: the weights need {4e-9 * count:.3g} GB. Expected at most {1e-9 * there:.3g} GB, the "
            "memory of this machine. Fix: make the network smaller."
        )


def _shapes(planned: Plan, most: int, **given: Any) -> dict[str, torch.Size]:
    """Shapes of the state of a plan's module by name, without memory; none where its class needs real numbers."""
    try:
        with torch.device("meta"), _at_most(most):
            return {name: tensor.shape for name, tensor in planned.build(**given).state_dict().items()}
    except TooLarge:
        raise
    except (ValueError, NotImplementedError):
        if planned.is_ours():
            raise
        return {}  # a network of the user's own may read numbers while it is made


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """TooLarge as soon as modules are made that have far more parameters or parts than these tensors fill."""
    counts = {"parameters": 0, "modules": 0}
    most = {"parameters": 2 * tensors + 100, "modules": 20 * tensors + 1000}

    def count(what: str, *registered: Any) -> None:
        counts[what] += 1
        if counts[what] > most[what]:
            raise TooLarge(f"the config makes a model of more than {most[what]} {what}, for {tensors} tensors")

    hooks = [
        register_module_parameter_registration_hook(partial(count, "parameters")),
        register_module_module_registration_hook(partial(count, "modules")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
