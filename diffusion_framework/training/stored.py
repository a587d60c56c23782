"""Checks the content of a checkpoint before a run resumes from it.

Checksums find damage. These checks find a checkpoint that was written otherwise, such as by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..storage.checkpoint import Checkpoint
from ..storage.manifest import DamagedCheckpoint

_STATE = {"ema_step": int, "order": dict, "metrics": dict, "unwritten": list, "left": list}
_SLOTS = {"step", "exp_avg", "exp_avg_sq"}


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
    if not isinstance(state.get("scaler", "missing"), dict | None):
        raise DamagedCheckpoint(checkpoint.path, "state.json has no scaler")
    if not all(_is_number(value) for value in state["metrics"].values()):
        raise DamagedCheckpoint(checkpoint.path, "a metric in state.json is not a number")
    pairs = (isinstance(row, list) and len(row) == 2 for row in state["unwritten"])
    if not all(pairs) or not all(_is_number(n) for row in state["unwritten"] for n in row):
        raise DamagedCheckpoint(checkpoint.path, "a loss in state.json is not a number")


def check_slots(
    checkpoint: Checkpoint, slots: Mapping[str, Any], parameters: Mapping[str, Tensor]
) -> None:
    """Checks that the optimizer state of a checkpoint fits the parameters.

    Adam reads its moments without a check, so that another shape would crash the process.

    Args:
        checkpoint: Checkpoint to name in errors.
        slots: Optimizer state by "parameter.slot".
        parameters: Parameters by name.

    Raises:
        DamagedCheckpoint: If a slot is unknown, is missing or has another shape or dtype, or is
            not finite.
    """
    found: dict[str, set[str]] = {}
    for key, value in slots.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters or slot not in _SLOTS:
            raise DamagedCheckpoint(checkpoint.path, f"unknown optimizer state {key!r:.100}")
        shape = () if slot == "step" else parameters[name].shape
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape
        if not fits:
            raise DamagedCheckpoint(checkpoint.path, f"the optimizer state {key:.100} does not fit")
        if not bool(value.isfinite().all()):
            reason = f"the optimizer state {key:.100} is not finite"
            raise DamagedCheckpoint(checkpoint.path, reason)
        found.setdefault(name, set()).add(slot)
    for name, theirs in found.items():
        if missing := _SLOTS - theirs:
            raise DamagedCheckpoint(checkpoint.path, f"no optimizer state {name}.{min(missing)}")


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
