"""Builds modules from plans, on the meta device first.

A file that describes a module too large therefore takes no memory.
"""

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

MOST_TENSORS = 10_000  # far above any real network; 2 s on the meta device


class TooLarge(ValueError):
    """A description of a module that is too large."""


def build_fitting(planned: Plan, tensors: Mapping[str, Tensor], what: str) -> nn.Module:
    """Builds the module of a plan after checking that tensors of a file fit its state.

    Args:
        planned: Plan of the module.
        tensors: Tensors by the names in the module's state.
        what: Name of the file, for errors.

    Raises:
        ValueError: If a name or shape differs, or the module has far more parameters or submodules
            than the file has tensors.
    """
    for name, shape in _shapes(planned, len(tensors)).items():
        if name not in tensors or tensors[name].shape != shape:
            got = [*tensors[name].shape] if name in tensors else "none"
            raise ValueError(
                f"{what}: expected weights of shape {[*shape]} for {name:.200}, as in the config, "
                f"got {got}. Fix: use the config and the weights of one run."
            )
    module: nn.Module = planned.build()
    return module


def check_size(planned: Plan) -> None:
    """Checks that the float32 weights of a plan's module fit the memory of this machine.

    Raises:
        ValueError: If they do not fit.
    """
    count = sum(math.prod(shape) for shape in _shapes(planned, MOST_TENSORS).values())
    memory = psutil.virtual_memory().total  # in bytes
    if 4 * count > memory:
        raise TooLarge(
            f"{planned.where}: expected weights of at most {1e-9 * memory:.3g} GB, the memory of "
            f"this machine, got {4e-9 * count:.3g} GB. Fix: make the network smaller."
        )


def _shapes(planned: Plan, most: int) -> dict[str, torch.Size]:
    """Returns the shapes in the state of a plan's module by name, without taking memory.

    The result is empty for a user's network that cannot be built on the meta device.
    """
    try:
        with torch.device("meta"), _at_most(most):
            return {name: tensor.shape for name, tensor in planned.build().state_dict().items()}
    except TooLarge:
        raise
    except (ValueError, NotImplementedError):
        if planned.is_ours():
            raise
        return {}  # its constructor may need the values of tensors


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """Raises TooLarge inside the context when modules have far more parts than this many tensors.

    The limits are 2 * tensors + 100 parameters and 20 * tensors + 1000 modules.
    """
    counts = {"parameters": 0, "modules": 0}
    limits = {"parameters": 2 * tensors + 100, "modules": 20 * tensors + 1000}

    def count(what: str, *registered: Any) -> None:
        counts[what] += 1
        if counts[what] > limits[what]:
            raise TooLarge(
                f"Expected at most {limits[what]} {what} for {tensors} tensors, got a model with "
                "more. Fix: make the network smaller."
            )

    hooks = [
        register_module_parameter_registration_hook(partial(count, "parameters")),
        register_module_module_registration_hook(partial(count, "modules")),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
