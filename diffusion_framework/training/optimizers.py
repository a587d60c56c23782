"""The optimizer of a run: the default, or the user's by name, class, function or object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..parts import fold, nearest
from ..storage.config import class_path, import_path
from .checks import expect
from .muon import Muon
from .optimizer_state import is_plain

OptimizerChoice = str | Optimizer | Callable[[list[nn.Parameter]], Optimizer]
"""A name in torch.optim, an optimizer, or a class or function that makes one of parameters."""

_NEED_MORE = {"LBFGS", "Optimizer", "SparseAdam"}  # a closure, or sparse gradients
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
NAMED = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and name not in _NEED_MORE
} | {"Muon": Muon}  # that of PyTorch takes matrices alone


class ChosenOptimizer:
    """The Trainer's `optimizer` with its options, checked.

    Args:
        chosen: Name, class, function or object; None for AdamW.
        options: Options of a name or class.
        lr: Learning rate of a name or class.
        adam: Options of the default.

    Raises:
        ValueError: If the name is unknown, or options come without a name or a class.
    """

    def __init__(
        self,
        chosen: OptimizerChoice | None,
        options: Mapping[str, Any],
        lr: float,
        adam: Mapping[str, Any],
    ) -> None:
        self.given, self.options, self.lr = chosen, options, lr
        self.chosen: Any = chosen
        fix = "give optimizer too, such as 'AdamW'"
        expect(chosen is not None or not options, "optimizer_options of an optimizer", options, fix)
        if chosen is None:
            self.chosen, self.options = torch.optim.AdamW, adam
        elif isinstance(chosen, str):
            self.chosen = _named(chosen)
        fits = isinstance(self.chosen, type) or not self.options
        fix = "give them to the optimizer itself"
        expect(fits, "no optimizer_options with an optimizer or a function", options, fix)
        fits = callable(self.chosen) or isinstance(self.chosen, Optimizer)
        fix = "give a name in torch.optim, an optimizer, its class, or a function of parameters"
        expect(fits, "an optimizer", chosen, fix)

    def make(self, model: nn.Module) -> Optimizer:
        """Returns the optimizer of a model's parameters.

        Raises:
            ValueError: If it cannot be made, holds other parameters, or needs a closure.
        """
        if isinstance(self.chosen, Optimizer):
            made: Any = self.chosen
        else:
            made = _made(self.chosen, [*model.parameters()], self._options(model))
        fix = "return a torch.optim.Optimizer from the function"
        expect(isinstance(made, Optimizer), "an optimizer", type(made).__name__, fix)
        ours = {id(parameter) for parameter in model.parameters()}
        fits = all(id(parameter) in ours for parameter in parameters_of(made))
        fix = (
            "give optimizer=type(...) or a function of the parameters, or build the optimizer of "
            "the parameters of the model that is trained"
        )
        kind = type(made).__name__
        expect(fits, "an optimizer of the model's parameters", f"{kind} of others", fix)
        closure = inspect.signature(made.step).parameters.get("closure")
        fits = closure is None or closure.default is not inspect.Parameter.empty
        expect(fits, "an optimizer whose step needs no closure", kind, "choose another")
        return made

    def describe(self, optimizer: Optimizer) -> str | None:
        """Returns the name of the optimizer for the config of a run; None for the default.

        Options follow where the optimizer came as an object or from a function.
        """
        if self.given is None:
            return None
        name = next((n for n, kind in NAMED.items() if kind is type(optimizer)), None)
        name = name or class_path(type(optimizer))
        if isinstance(self.given, str | type):
            return name
        return f"{name}({'; '.join(_options_of(optimizer))})"

    def _options(self, model: nn.Module) -> dict[str, Any]:
        """Returns the options of a class: the user's, the learning rate, and fused kernels."""
        if not isinstance(self.chosen, type):
            return {}
        options = {"lr": self.lr, **self.options}
        device = next((p.device.type for p in model.parameters()), "cpu")
        free = {"fused", "foreach", "differentiable"}.isdisjoint(options)
        if self.chosen in _FUSED and free and device in ("cpu", "cuda"):
            options = {"fused": True, **options}
        return options


def _named(name: str) -> type[Optimizer]:
    found = {fold(known): kind for known, kind in NAMED.items()}
    close = nearest(name, NAMED)
    fix = f"write {close!r}" if close else f"choose one of {', '.join(NAMED)}"
    fix += "" if close else ", or give one in Python"
    expect(fold(name) in found, "the name of an optimizer of torch.optim", name, fix)
    return found[fold(name)]


def _made(make: Any, parameters: list[nn.Parameter], options: Mapping[str, Any]) -> Any:
    """Returns make(parameters, **options); its error becomes one line."""
    try:
        return make(parameters, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"Expected options and parameters that {import_path(make)} takes, got an error "
            f"({cause:.300}). Fix: change optimizer_options, or choose another optimizer."
        ) from error


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Returns the parameters of an optimizer, in the order of its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def skips_steps(optimizer: Optimizer) -> bool:
    """Returns whether it leaves the weights unchanged where its `found_inf` is above 0."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _options_of(optimizer: Optimizer) -> Iterator[str]:
    """Yields the options of each group that differ from the defaults of the class."""
    defaults = inspect.signature(type(optimizer)).parameters
    for group in optimizer.param_groups:
        told = {key: value for key, value in group.items() if key != "params" and is_plain(value)}
        yield ", ".join(
            f"{key}={value}"
            for key, value in told.items()
            if key == "lr" or (key in defaults and value != defaults[key].default)
        )
