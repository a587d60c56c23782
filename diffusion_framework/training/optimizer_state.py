"""The state of any optimizer as tensors and plain data, by the names of its parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..storage.config import import_path
from .checks import expect

_SET_BY_THE_RUN = ("params", "lr", "initial_lr")


class OptimizerState:
    """Reads and restores the state of an optimizer.

    Options of a parameter group are restored only if the optimizer changed them itself, so that a
    resumed run may have others.

    Args:
        optimizer: Optimizer that has taken no step.
        model: Model that holds its parameters.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = optimizer.param_groups
        self.optimizer = optimizer
        self.names = [names[id(p)] for group in groups for p in group["params"]]
        self.at_first = [copy.deepcopy(self._options(group)) for group in groups]

    @staticmethod
    def _options(group: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in group.items() if key not in _SET_BY_THE_RUN}

    @property
    def name(self) -> str:
        """Import path of the optimizer's class."""
        return import_path(self.optimizer)

    def _slots(self) -> dict[str, Any]:
        """Returns the values of all slots as {"parameter.slot": value}."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{self.names[index]}.{slot}": value
            for index, slots in state.items()
            for slot, value in slots.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """Returns the slots that are tensors, by "parameter.slot"."""
        return {key: value for key, value in self._slots().items() if isinstance(value, Tensor)}

    def numbers(self) -> dict[str, Any]:
        """Returns the class, the other slots and the changed options of groups, as plain data."""
        slots = {k: v for k, v in self._slots().items() if not isinstance(v, Tensor)}
        groups = [
            {k: value for k, value in self._options(group).items() if _differ(value, first.get(k))}
            for group, first in zip(self.optimizer.param_groups, self.at_first, strict=True)
        ]
        return {"class": self.name, "slots": slots, "groups": groups}

    def check(self) -> None:
        """Raises ValueError if a checkpoint cannot hold the state that a step has left."""
        numbers = self.numbers()
        named = {**numbers["slots"]}
        for index, group in enumerate(numbers["groups"]):
            named |= {f"group {index}: {key}": value for key, value in group.items()}
        fix = "choose another optimizer; checkpoints hold tensors, numbers, words and lists"
        for key, value in named.items():
            wanted = f"optimizer state {key} that a checkpoint can hold"
            expect(is_plain(value), wanted, type(value).__name__, fix)

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Restores the result of `tensors` and `numbers`."""
        index = {name: i for i, name in enumerate(self.names)}
        state: dict[int, dict[str, Any]] = {}
        for key, value in {**tensors, **numbers.get("slots", {})}.items():
            name, _, slot = key.rpartition(".")
            state.setdefault(index[name], {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        for group, changed in zip(groups, numbers.get("groups", []), strict=False):
            for key, value in changed.items():
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
        with torch.no_grad():
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return not torch.equal(one, other)
    return isinstance(one, Tensor) or isinstance(other, Tensor) or bool(one != other)


def is_plain(value: Any) -> bool:
    """Returns whether JSON can hold a value; a tuple comes back as a list."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)
