"""Checks the content of a checkpoint before a run resumes from it.

Checksums find damage. These checks find a checkpoint that was written otherwise, such as by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..storage.checkpoint import Checkpoint
from ..storage.manifest import DamagedCheckpoint
from ..storage.post_hoc_ema import StoredAverages
from .optimizer_state import OptimizerState

_STATE = {"ema_step": int, "order": dict, "metrics": dict, "unwritten": list, "left": list}
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


def check_stored(checkpoint: Checkpoint) -> None:
    """Checks that config.yaml and state.json have the entries that resuming reads.

    Raises:
        DamagedCheckpoint: If an entry is missing or of another type.
    """
    config, state = checkpoint.config, checkpoint.state
    for name in ("diffusion", "trainer"):
        if not isinstance(config.get(name), dict):
            raise DamagedCheckpoint(checkpoint.path, f"config.yaml has no {name}")
    for name, kind in _STATE.items():
        if type(state.get(name)) is not kind:
            raise DamagedCheckpoint(checkpoint.path, f"state.json has no {name}")
    if not all(isinstance(task, str) for task in state["left"]):
        raise DamagedCheckpoint(checkpoint.path, "a task in state.json is not a word")
    if not 0 <= state["ema_step"] < 2**63:
        raise DamagedCheckpoint(checkpoint.path, "ema_step in state.json is out of range")
    if not isinstance(state.get("environment", {}), dict):
        raise DamagedCheckpoint(checkpoint.path, "state.json has no environment")
    _check_optimizer(checkpoint, state.get("optimizer", {}))
    if not isinstance(state.get("scaler", "missing"), dict | None):
        raise DamagedCheckpoint(checkpoint.path, "state.json has no scaler")
    _check_budget(checkpoint, state.get("budget"))
    if not all(_is_number(value) for value in state["metrics"].values()):
        raise DamagedCheckpoint(checkpoint.path, "a metric in state.json is not a number")
    pairs = (isinstance(row, list) and len(row) == 2 for row in state["unwritten"])
    if not all(pairs) or not all(_is_number(n) for row in state["unwritten"] for n in row):
        raise DamagedCheckpoint(checkpoint.path, "a loss in state.json is not a number")


def _check_budget(checkpoint: Checkpoint, stored: Any) -> None:
    """Checks the time of a run and its number of steps, if it has one."""
    if stored is None:
        return
    fits = isinstance(stored, dict) and _is_number(stored.get("minutes")) and stored["minutes"] > 0
    if not (fits and type(stored.get("steps")) is int and stored["steps"] > 0):
        raise DamagedCheckpoint(checkpoint.path, "state.json has no budget")


def _check_optimizer(checkpoint: Checkpoint, stored: Any) -> None:
    """Checks the form of the state of the optimizer besides its tensors."""
    fits = isinstance(stored, dict) and isinstance(stored.get("class", ""), str)
    fits = fits and isinstance(stored.get("slots", {}), dict)
    fits = fits and isinstance(groups := stored.get("groups", []), list)
    if not fits or not all(isinstance(group, dict) for group in groups):
        raise DamagedCheckpoint(checkpoint.path, "state.json has no optimizer")


def check_profiles(checkpoint: Checkpoint, widths: Sequence[float]) -> None:
    """Checks that a checkpoint has the averages with which a run is to resume.

    Args:
        checkpoint: Checkpoint to resume from.
        widths: Widths of the profiles of the run that resumes.

    Raises:
        ValueError: If it has none or others.
    """
    stored = StoredAverages.of(checkpoint)
    before = () if stored is None else tuple(profile.width for profile in stored.profiles)
    if widths and tuple(widths) != before:
        fix = f"give {', '.join(map(str, before))}" if before else "leave them out"
        raise ValueError(
            f"{checkpoint.path}: expected ema.profiles as before, {[*before]}, got {[*widths]}. "
            f"Fix: {fix}, or begin a run with init_from."
        )


def check_slots(
    checkpoint: Checkpoint,
    slots: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    optimizer: OptimizerState,
) -> None:
    """Checks that the optimizer state of a checkpoint fits the optimizer and its parameters.

    Fused kernels read it without a check, so that another shape would crash the process.

    Args:
        checkpoint: Checkpoint to name in errors.
        slots: Optimizer state by "parameter.slot".
        parameters: Parameters by name.
        optimizer: State of the optimizer that continues.

    Raises:
        DamagedCheckpoint: If a slot is unknown, is missing or has another shape or dtype, or is
            not finite.
    """
    numbers = checkpoint.state.get("optimizer", {})
    _check_groups(checkpoint, numbers.get("groups", []), optimizer.optimizer.param_groups)
    needed = _needed(optimizer.optimizer)
    found: dict[str, set[str]] = {}
    for key, value in {**slots, **numbers.get("slots", {})}.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters or not slot or (needed and slot not in needed):
            raise DamagedCheckpoint(checkpoint.path, f"unknown optimizer state {key!r:.100}")
        found.setdefault(name, set()).add(slot)
        if key not in slots and not needed:
            continue
        shape = () if slot == "step" else parameters[name].shape
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape
        if needed and not fits:
            raise DamagedCheckpoint(checkpoint.path, f"the optimizer state {key:.100} does not fit")
        if bool(value.isnan().any()) or (needed and not bool(value.isfinite().all())):
            reason = f"the optimizer state {key:.100} is not finite"
            raise DamagedCheckpoint(checkpoint.path, reason)
    for name, theirs in found.items():
        if missing := needed - theirs:
            raise DamagedCheckpoint(checkpoint.path, f"no optimizer state {name}.{min(missing)}")


def _needed(optimizer: Optimizer) -> set[str]:
    """Returns the slots of an optimizer with fused kernels; empty if they are not known."""
    group = optimizer.param_groups[0]
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        return _ADAM | ({"max_exp_avg_sq"} if group["amsgrad"] else set())
    if type(optimizer) is torch.optim.SGD:
        return {"momentum_buffer"}
    return set()


def _check_groups(checkpoint: Checkpoint, stored: Any, groups: Any) -> None:
    """Checks that changed options of groups are options of the optimizer, of the same kind."""
    if len(stored) not in (0, len(groups)):
        raise DamagedCheckpoint(checkpoint.path, "state.json has another number of groups")
    for changed, group in zip(stored, groups, strict=False):
        for key, value in changed.items():
            if key in ("params", "lr") or key not in group:
                reason = f"unknown option of the optimizer {key!r:.100}"
                raise DamagedCheckpoint(checkpoint.path, reason)
            if isinstance(value, dict | list) and isinstance(group[key], bool | int | float):
                reason = f"the option of the optimizer {key:.100} does not fit"
                raise DamagedCheckpoint(checkpoint.path, reason)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
