"""Says what a run will do before its first step, and what it left after its last."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..data import TrainingDataset
from ..parts.counting import counted
from ..policies import Policy
from ..storage.figures import best_metrics, last_loss
from ..trainable import Trainable
from .budget import Budget

_COLUMN = 12
_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, eq=False)
class Outline:
    """The data, model, steps and places of a run.

    Attributes:
        dataset: Training data.
        validation: Validation data, or None.
        model: Model to train.
        accelerator: Accelerator of the run.
        precision: Number format of the network's arithmetic.
        budget: Length of the run.
        step: Number of optimizer steps taken.
        batch_size: Number of samples of a batch over all processes.
        accumulate: Number of batches of one step.
        save_every: Number of optimizer steps between two checkpoints.
        results_folder: Folder for all files of the run.
        seed: Seed of the run.
    """

    dataset: TrainingDataset
    validation: TrainingDataset | None
    model: Trainable
    accelerator: Accelerator
    precision: str
    budget: Budget
    step: int
    batch_size: int
    accumulate: int
    save_every: int
    results_folder: Path
    seed: int

    @classmethod
    def of(cls, run: Any, step: int | None = None) -> Outline:
        """Returns the outline of a Trainer at its step, or at that of a checkpoint to resume."""
        data = run.dataset, run.tasks.validation, run.model, run.accelerator, run.precision
        taken = run.state.step if step is None else step
        steps = run.budget, taken, run.batch_size, run.take_step.accumulate
        return cls(*data, *steps, run.save_every, run.results_folder, run.seed)


def summary(run: Outline) -> str:
    """Returns what a run is about to do, in aligned lines."""
    place = [] if run.dataset.folder is None else [f"in {run.dataset.folder}"]
    rows = {"data": ", ".join([run.dataset.describe(), *place])}
    rows[""] = f"\n{'':{_COLUMN}}".join(run.dataset.notes())
    if run.validation is not None:
        rows["validation"] = run.validation.describe()
    rows |= run.model.describe()
    rows |= {"device": _device(run), "training": _steps(run)}
    rows["results"] = f"{run.results_folder}, a checkpoint every {counted(run.save_every, 'step')}"
    rows["resumed"] = f"from step {run.step:,}" if run.step else ""
    return aligned(rows)


def aligned(rows: dict[str, str]) -> str:
    """Returns the rows that are not empty as lines, with the names in a column."""
    return "\n".join(f"{name:{_COLUMN}}{text}" for name, text in rows.items() if text)


def _device(run: Outline) -> str:
    device, processes = run.accelerator.device, run.accelerator.num_processes
    name = str(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = f"CPU with {torch.get_num_threads()} threads"
    several = f"{processes} processes, each on " if processes > 1 else ""
    return f"{several}{name}, {_PRECISION[run.precision]}"


def _steps(run: Outline) -> str:
    processes, samples = run.accelerator.num_processes, run.batch_size * run.accumulate
    factors = [f"{run.batch_size // processes}"]
    factors += [counted(processes, "process")] * (processes > 1)
    factors += [f"{run.accumulate} accumulated"] * (run.accumulate > 1)
    product = f" ({' x '.join(factors)})" if len(factors) > 1 else ""
    size, minutes = f"{counted(samples, 'sample')}{product}", run.budget.minutes
    if not run.budget.known:
        return f"as many steps of {size} as take {minutes:g} minutes, seed {run.seed}"
    epochs = run.budget.steps * samples / len(run.dataset)
    shown = f"{epochs:,.0f}" if epochs >= 1000 else f"{epochs:.3g}"
    time = "" if minutes is None else f" in {minutes:g} minutes"
    steps = counted(run.budget.steps, "step")
    return f"{steps} of {size}{time}, {shown} epochs, seed {run.seed}"


def ending(run: Outline) -> str:
    """Returns the figures of a run, its pictures, and the command that uses its model."""
    folder = run.results_folder
    pictures = sorted((folder / "samples").glob("step-*.png"))[-1:]
    pictures += [path for path in [folder / "validation.png"] if path.exists()]
    rows = {"done": _figures(run), "pictures": ", ".join(map(str, pictures))}
    name = shlex.quote(str(folder))
    if isinstance(run.model, Policy):
        rows["next"] = f"diffusion rollout {name} --env {run.dataset.environment or 'NAME'}"
    else:
        rows["next"] = f"diffusion sample {name}{_condition(run)}"
    return aligned(rows)


def _condition(run: Outline) -> str:
    """Returns the flag for the first text of the data, or for its first classes, if any."""
    with suppress(OSError, ValueError):  # the run is done, whatever happened to its data
        sample = run.dataset[0]
        if isinstance(sample, tuple) and isinstance(sample[1], Mapping) and "text" in sample[1]:
            return f" --text {shlex.quote(sample[1]['text'])}"
    names = [*(run.dataset.class_names or ())][:3]
    plain = names and not any("," in name for name in names)
    return f" --labels {shlex.quote(','.join(names))}" if plain else ""


def _figures(run: Outline) -> str:
    loss, best = last_loss(run.results_folder), best_metrics(run.results_folder)
    figures = [f"step {run.step:,}", *([] if loss is None else [f"loss {loss:.4g}"])]
    shown = [name for name in run.model.metric_names[:1] if run.validation is not None]
    figures += [f"best {name} {best[name]:.4g}" for name in shown if name in best]
    return ", ".join(figures)
