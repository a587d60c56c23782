"""Logs a run to CSV files, TensorBoard and the terminal without waiting for the device."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from ..storage.replacing import replacing
from .checks import expect

COLUMNS = ("step", "loss", "grad_norm", "lr", "images_per_second")


@dataclass(frozen=True)
class Logging:
    """Options of the log.

    Args:
        every: Number of optimizer steps between two rows of `log.csv`.
        progress: Whether to show progress: a bar in a terminal, otherwise a line for each row of
            the log.

    Raises:
        ValueError: If a field is out of range.
    """

    every: int = 50
    progress: bool = True

    def __post_init__(self) -> None:
        wanted = "logging.every of at least 1"
        expect(self.every >= 1, wanted, self.every, "set it to 1 for a row at each step")


class TrainingLog:
    """Collects losses on the device and writes a row of their means at each `write`.

    Args:
        folder: Folder of log.csv and validation.csv.
        accelerator: Accelerator of the run. Its trackers get the same numbers, and only its main
            process writes.
        start: Number of optimizer steps already taken; later rows in the files are dropped.
        stop: Number of optimizer steps of the whole run.
        images_per_step: Number of samples of a step over all processes.
        progress: Whether to show a progress bar in a terminal, otherwise a line for each row.
        unwritten: Result of `unwritten` when the run stopped at `start`.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        start: int,
        stop: int,
        images_per_step: int,
        progress: bool,
        unwritten: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.path, self.accelerator, self.images_per_step = (
            folder / "log.csv",
            accelerator,
            images_per_step,
        )
        self.metrics_path = folder / "validation.csv"
        self.before = list(unwritten)
        self.steps: list[Tensor] = []
        self.start, self.stop = start, stop
        self.began = self.since = time.perf_counter()
        self.checkpoint = f"step {start}" if start else "none"
        terminal = sys.stderr.isatty()
        main = accelerator.is_main_process
        self.lines = main and progress and not terminal
        self.bar = tqdm(
            initial=start,
            total=stop,
            desc="training",
            unit="step",
            disable=not (main and progress and terminal),
        )
        if main:
            _drop_rows_after(start, self.path, COLUMNS)
            if self.metrics_path.exists():
                _drop_rows_after(start, self.metrics_path)
            accelerator.init_trackers(
                "tensorboard", init_kwargs={"tensorboard": {"purge_step": start + 1}}
            )

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Adds the loss and the gradient norm of one step, scalars on the device."""
        self.steps.append(torch.stack([loss, norm]))
        self.bar.update()

    def pause(self, seconds: float) -> None:
        """Excludes seconds spent on saving or sampling from the images per second."""
        self.since += seconds

    def unwritten(self) -> list[tuple[float, float]]:
        """Returns loss and gradient norm, over all processes, of each step since the last row.

        Waits for the device. A checkpoint keeps these numbers, so that the next row of a resumed
        run equals that of an uninterrupted run.
        """
        if self.steps:
            mean = self.accelerator.reduce(torch.stack(self.steps), reduction="mean")
            self.before += [(loss, norm) for loss, norm in mean.tolist()]
            self.steps = []
        return self.before

    def write(self, step: int, lr: float) -> None:
        """Writes one row of log.csv with means since the last row; waits for the device."""
        steps = len(self.steps)
        loss, norm = (sum(column) / len(column) for column in zip(*self.unwritten(), strict=True))
        rate = steps * self.images_per_step / max(time.perf_counter() - self.since, 1e-9)
        self.before, self.since = [], time.perf_counter()
        self.accelerator.log(
            {"loss": loss, "grad_norm": norm, "lr": lr, "images_per_second": rate}, step=step
        )
        left = timedelta(
            seconds=round((self.since - self.began) / (step - self.start) * (self.stop - step))
        )
        shown = f"loss {loss:.4f}, gradient norm {norm:.3g}, {rate:.0f} images/s"
        shown += f", checkpoint: {self.checkpoint}"
        self.bar.set_postfix_str(shown)
        if self.lines:
            print(f"step {step} of {self.stop}: {shown}, {left} left", file=sys.stderr, flush=True)
        if self.accelerator.is_main_process:
            with open(self.path, "a", newline="") as file:
                csv.writer(file).writerow(
                    [step, f"{loss:.6g}", f"{norm:.6g}", f"{lr:.6g}", f"{rate:.1f}"]
                )

    def write_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Writes one row of validation.csv, unless there are no metrics."""
        self.accelerator.log(metrics, step=step)
        if metrics and self.accelerator.is_main_process:
            if not self.metrics_path.exists():
                _drop_rows_after(0, self.metrics_path, ("step", *metrics))
            with open(self.metrics_path, "a", newline="") as file:
                csv.writer(file).writerow([step, *(f"{value:.6g}" for value in metrics.values())])

    def saved(self, step: int) -> None:
        """Sets the step of the newest checkpoint, which the progress shows."""
        self.checkpoint = f"step {step}"

    def add_picture(self, path: Path, step: int) -> None:
        """Adds an image file to TensorBoard; on the main process only."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        writer = self.accelerator.get_tracker("tensorboard", unwrap=True)
        writer.add_image("samples", pixels, step, dataformats="HWC" if pixels.ndim == 3 else "HW")

    def close(self) -> None:
        """Closes the progress bar and the trackers."""
        self.bar.close()
        self.accelerator.end_training()


def _drop_rows_after(step: int, path: Path, header: Sequence[str] = ()) -> None:
    """Rewrites a CSV file with its complete rows up to a step, below the header or its own."""
    rows = []
    if path.exists():
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
    header = header or (rows[0] if rows else ())
    whole = [row for row in rows if len(row) == len(header) and row[0].isdigit()]
    with replacing(path, "t", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in whole if int(row[0]) <= step)])
