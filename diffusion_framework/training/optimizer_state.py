"""An optimizer's state as named tensors and plain numbers, so that it can be stored without pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def flatten_optimizer(optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, numbers) by "parameter.slot"."""
    saved = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, slots in saved["state"].items():
        for slot, value in slots.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{parameter}.{slot}"] = value
    return tensors, numbers


def restore_optimizer(optimizer: Any, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Undo `flatten_optimizer`. The options of the parameter groups are the optimizer's own, not the stored ones."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **numbers}.items():
        parameter, slot = name.split(".", 1)
        state.setdefault(int(parameter), {})[slot] = value
    with torch.no_grad():
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
