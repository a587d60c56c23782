"""What a checkpoint or an export holds, read without building anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .checkpoint import STATE, Checkpoint
from .figures import best_metrics, last_loss
from .manifest import MANIFEST, DamagedCheckpoint
from .post_hoc_ema import StoredAverages, is_whole
from .run_paths import absolute_from_run, results_folder

_LONGEST = 300  # characters of a text


@dataclass(frozen=True)
class Description:
    """What a checkpoint or an export holds, as plain data. Texts are printable and short.

    Attributes:
        path: Folder of the checkpoint or export.
        kind: 'checkpoint' or 'export'.
        weights: Kinds of weights: 'ema' for averaged ones, 'model' for those of the last step.
        averages: Number of snapshots of averages, and the widths that can be made from them; empty
            without profiles of the EMA.
        model: Class of the model.
        network: Network with its options.
        parameters: Number of trained parameters; None if unknown.
        parts: Objective, noise schedule, data space and conditions of the model.
        steps: Number of optimizer steps done.
        num_steps: Number of optimizer steps of the whole run; None if unknown.
        data: Dataset of the training.
        samples: Number of training samples; None if unknown.
        classes: Names of the classes.
        batch: Number of samples of a step; None if unknown.
        figures: Last loss, and the best value of each metric.
        size: Size of all files in bytes.
        written: Date and time of writing.
        versions: Versions of the package and of PyTorch.
    """

    path: str
    kind: str
    weights: list[str]
    averages: dict[str, Any]
    model: str
    network: str
    parameters: int | None
    parts: dict[str, str]
    steps: int
    num_steps: int | None
    data: str | None
    samples: int | None
    classes: list[str]
    batch: int | None
    figures: dict[str, float]
    size: int
    written: str
    versions: dict[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Description:
        """Describes a checkpoint or an export.

        Raises:
            ValueError: If its config or state is damaged.
        """
        config, state = checkpoint.config, _state(checkpoint)
        model = config.get("diffusion")
        if not isinstance(model, dict):
            raise DamagedCheckpoint(checkpoint.path, "config.yaml has no diffusion")
        trained = isinstance(config.get("trainer"), dict)
        about, options = _mapping(state.get("about")), _mapping(config.get("trainer"))
        order, arguments = _mapping(state.get("order")), _mapping(model.get("init_args"))
        results, stored = results_folder(checkpoint), StoredAverages.of(checkpoint)
        figures = _figures(results, checkpoint.step) if trained else about.get("figures")
        environment = state.get("environment") if trained else about.get("versions")
        return cls(
            path=printable(str(checkpoint.path), 4096),
            kind="checkpoint" if trained else "export",
            weights=[kind for kind in checkpoint.kinds() if is_whole(kind)],
            averages={} if stored is None else stored.describe(),
            model=_name(model),
            network=_one_line(arguments.get("model")),
            parameters=_parameters(checkpoint, _count(about.get("parameters"))),
            parts=_parts(arguments),
            steps=checkpoint.step if trained else _count(about.get("steps")) or 0,
            num_steps=_count(_mapping(state.get("budget", options)).get("steps"))
            or _count(options.get("train_num_steps")),
            data=_data(config.get("data"), results) if "data" in config else None,
            samples=_count(state.get("samples")),
            classes=[printable(name, 40) for name in checkpoint.class_names],
            batch=_count(order.get("images per step")),
            figures={printable(k, 40): v for k, v in _mapping(figures).items() if _is_finite(v)},
            size=sum(_count(file.get("size")) or 0 for file in checkpoint.files.values()),
            written=_date(checkpoint.path / MANIFEST),
            versions={
                printable(key, 40): printable(str(value), 80)
                for key, value in _mapping(environment).items()
                if key != "processes"
            },
        )


def printable(text: str, most: int = _LONGEST) -> str:
    """Returns a text on one line, without control characters, cut to a length."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the state, which may have been deleted to save space."""
    has_state = STATE in checkpoint.files and (checkpoint.path / STATE).exists()
    return checkpoint.state if has_state else {}


def _figures(results: Path | None, step: int) -> dict[str, float]:
    if results is None:
        return {}
    loss = last_loss(results, step)
    return ({} if loss is None else {"loss": loss}) | best_metrics(results, step)


def _parameters(checkpoint: Checkpoint, told: int | None) -> int | None:
    """Returns the number of parameters: those with optimizer state, else all stored numbers."""
    kinds = checkpoint.kinds()
    own = next((kind for kind in ("ema", "model") if kind in kinds), None)
    if told is not None or own is None:
        return told
    shapes = checkpoint.shapes(own)
    if "optimizer" in kinds:
        trained = {name.rpartition(".")[0] for name in checkpoint.shapes("optimizer")}
        shapes = {name: shape for name, shape in shapes.items() if name in trained} or shapes
    return sum(math.prod(shape) for shape in shapes.values())


def _parts(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Returns the objective, the schedule and other parts that are set, each on one line."""
    known = ("objective", "noise_schedule", "loss", "loss_weight", "space", "conditions", "times")
    found = {name: arguments[name] for name in known if arguments.get(name) is not None}
    return {name: _one_line(value) for name, value in found.items()}


def _data(node: Any, results: Path | None) -> str:
    """Returns the dataset and its place; of an unknown results folder, the relative one."""
    text = node if results is None else absolute_from_run(node, results)
    options = _mapping(text.get("init_args")) if isinstance(text, dict) else {}
    place = next((options[key] for key in ("folder", "shards") if key in options), None)
    return printable(f"{_name(text)} {place}" if place is not None else _name(text))


def _name(node: Any) -> str:
    """Returns the last word of the class of a described part."""
    path = node.get("class_path") if isinstance(node, dict) else node
    return printable(str(path).rpartition(".")[2], 80)


def _one_line(node: Any) -> str:
    """Returns a described part as Class(option=value, ...); options that are null are left out."""
    return printable(_text(node, 0))


def _text(node: Any, depth: int) -> str:
    if depth > 6:
        return "..."
    if isinstance(node, dict) and "class_path" in node:
        inner = _mapping(node.get("init_args"))
        shown = [f"{k}={_text(v, depth + 1)}" for k, v in inner.items() if v is not None][:20]
        return f"{_name(node)}({', '.join(shown)})"
    if isinstance(node, dict):
        shown = [f"{k}: {_text(v, depth + 1)}" for k, v in [*node.items()][:20]]
        return ", ".join(shown)
    if isinstance(node, list):
        return f"({', '.join(_text(item, depth + 1) for item in node[:8])})"
    return printable(str(node), 80)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).isoformat(" ", "seconds")
