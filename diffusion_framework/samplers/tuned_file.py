"""`tuned.json`, which `diffusion tune` writes beside checkpoints: samplers and grids of a model."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..denoisers import NetworkParts, as_guidance
from ..parts import BadPart, plan
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule
from ..storage.config import read_json, to_config
from ..storage.exporting import TUNED
from ..storage.replacing import replacing
from .base import Sampler
from .tuned import Tuned

FORMAT_VERSION = 1
_MOST = 100  # numbers of calls
_FIGURES = ("error", "default_error")


@dataclass(frozen=True)
class TunedCalls:
    """What tuning found for one number of network calls.

    Attributes:
        tuned: Sampler and grid.
        error: RMS distance to the teacher's ends, on paths that the search did not see.
        default_error: The same of the choice without tuning.
    """

    tuned: Tuned
    error: float
    default_error: float


@dataclass(frozen=True)
class TunedFile:
    """Content of `tuned.json`.

    Attributes:
        schedule: Description of the noise schedule, of `to_config`.
        objective: Description of the objective.
        weights: Weights that were tuned for: ema, model, or such as ema-0.08.
        step: Number of optimizer steps of these weights.
        guidance: Description of the guidance, or its scale.
        found: Sampler, grid and errors for each number of calls, in rising order.
    """

    schedule: Mapping[str, Any]
    objective: Mapping[str, Any]
    weights: str
    step: int
    guidance: Any
    found: tuple[TunedCalls, ...]

    @property
    def calls(self) -> list[int]:
        """Numbers of network calls."""
        return [one.tuned.steps for one in self.found]

    def misfit(self, schedule: NoiseSchedule, objective: Objective) -> str | None:
        """Returns what of a model the file was not made for, in words; None if it fits."""
        for name, own, part in (
            ("schedule", self.schedule, schedule),
            ("objective", self.objective, objective),
        ):
            if own != to_config(part):
                return f"another {name}"
        return None

    def write(self, folder: Path) -> Path:
        """Writes the file to a folder, atomically, and returns its path."""
        entries = [
            {
                "calls": one.tuned.steps,
                "sampler": to_config(one.tuned.sampler),
                "log_snrs": list(one.tuned.log_snrs),
                "error": one.error,
                "default_error": one.default_error,
            }
            for one in self.found
        ]
        content = {
            "format_version": FORMAT_VERSION,
            "schedule": self.schedule,
            "objective": self.objective,
            "weights": self.weights,
            "step": self.step,
            "guidance": self.guidance,
            "tuned": entries,
        }
        with replacing(folder / TUNED, "t") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        return folder / TUNED

    @classmethod
    def read(cls, folder: Path) -> TunedFile | None:
        """Reads the file of a folder; None if there is none.

        Raises:
            ValueError: If the file cannot be read, is damaged or has a newer format.
        """
        path = folder / TUNED
        if not path.exists():
            return None
        content = read_json(path)
        return _checked(content if isinstance(content, dict) else {}, path)


def tuned_sampler(
    sampler: Sampler, parts: NetworkParts, folder: Path, weights: str
) -> tuple[Sampler, Any]:
    """Returns the sampler with the choices in a folder's file, and the guidance that they are for.

    The guidance is a description, or None without choices. A file for another model is ignored.

    Args:
        sampler: Default sampler of the model.
        parts: Parts of the model.
        folder: Folder of the file.
        weights: Name of the weights of the model; those that the file is not for have their sampler
            unchanged.

    Raises:
        ValueError: If the file is damaged.
    """
    found = TunedFile.read(folder)
    if found is None or found.weights != weights or not sampler.chooses:
        return sampler, None
    other = found.misfit(parts.schedule, parts.objective)
    if other is not None:
        warnings.warn(
            f"{folder / TUNED} was made for {other} and is ignored. Fix: tune again.", stacklevel=2
        )
        return sampler, None
    for one in found.found:
        one.tuned.grid(parts.schedule)  # its levels are those of the schedule
    choosing: Any = sampler
    tuned: Sampler = replace(choosing, tuned=tuple(one.tuned for one in found.found))
    plain = isinstance(found.guidance, int | float | None)
    return tuned, to_config(as_guidance(found.guidance)) if plain else found.guidance


def _checked(content: Mapping[str, Any], path: Path) -> TunedFile:
    version = _of(content, "format_version", int, path)
    if version > FORMAT_VERSION:
        raise BadPart(
            f"{path}: expected format {FORMAT_VERSION} or lower, got {version:.60g}. "
            "Fix: upgrade diffusion_framework, or delete the file."
        )
    entries = _of(content, "tuned", list, path)
    if len(entries) > _MOST:
        raise _damaged(path, f"{len(entries)} numbers of calls")
    found = tuple(_entry(entry, path) for entry in entries)
    file = TunedFile(
        _of(content, "schedule", dict, path),
        _of(content, "objective", dict, path),
        _of(content, "weights", str, path),
        _of(content, "step", int, path),
        content.get("guidance"),
        found,
    )
    if file.calls != sorted(set(file.calls)):
        raise _damaged(path, "numbers of calls that do not rise")
    if not re.fullmatch(r"(ema(-0\.\d{1,6})?|model)", file.weights):
        raise _damaged(path, "unknown weights")
    return file


def _entry(entry: Any, path: Path) -> TunedCalls:
    if not isinstance(entry, dict):
        raise _damaged(path, "an entry without options")
    options = {name: entry.get(name) for name in ("sampler", "log_snrs")}
    planned = plan({"class_path": "Tuned", "init_args": options}, Tuned, where=str(path))
    try:
        tuned: Tuned = planned.build()
    except ValueError as error:
        raise _damaged(path, f"an error ({error})") from error
    if tuned.steps != _of(entry, "calls", int, path) or tuned.sampler.adaptive:
        raise _damaged(path, "another number of steps than calls")
    errors = [float(_of(entry, name, float, path)) for name in _FIGURES]
    if not all(map(math.isfinite, errors)):
        raise _damaged(path, "errors that are not finite")
    return TunedCalls(tuned, *errors)


def _of(content: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    """Returns a value of the file, if it has the type; whole numbers are at least 0."""
    value: Any = content.get(name)
    fits = type(value) is kind
    if not fits or (kind is int and not 0 <= value < 2**63):
        raise _damaged(path, f"no {name}")
    return value


def _damaged(path: Path, how: str) -> BadPart:
    return BadPart(
        f"{path}: expected a file of `diffusion tune`, got {how}. "
        "Fix: tune again with --overwrite, or delete the file."
    )
