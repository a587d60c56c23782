"""What a run writes down: the CSV log, the trackers and the progress bar, fed without waiting for the device."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

COLUMNS = ("step", "loss", "grad_norm", "lr", "images_per_second")


class TrainingLog:
    """Losses stay on the device until `write`, which averages those since the last time.

    Args:
        folder: Of log.csv.
        accelerator: Its trackers get the same numbers; only its main process writes.
        start: The step that training starts from: rows after it, of a run that went further, are dropped.
        stop: The step that it ends at, for the progress bar.
        images_per_step: Over all processes.
        progress: Show the progress bar.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        start: int,
        stop: int,
        images_per_step: int,
        progress: bool,
    ) -> None:
        self.path, self.accelerator, self.images_per_step = folder / "log.csv", accelerator, images_per_step
        self.metrics_path = folder / "validation.csv"
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.since = time.perf_counter()
        main = accelerator.is_main_process
        self.bar = tqdm(initial=start, total=stop, desc="training", unit="step", disable=not (main and progress))
        if main:
            _rewrite(self.path, COLUMNS, _rows(self.path, start))
            if self.metrics_path.exists():
                with open(self.metrics_path, newline="") as file:
                    header = next(csv.reader(file), ())
                _rewrite(self.metrics_path, header, _rows(self.metrics_path, start))

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Note one step's loss and gradient norm, both scalars on the device."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.bar.update()

    def pause(self, seconds: float) -> None:
        """Leave this long out of the images per second: saving and sampling are no training."""
        self.since += seconds

    def write(self, step: int, lr: float) -> tuple[float, float]:
        """Write one row for the steps since the last; this waits for the device.

        Returns:
            Their mean loss and gradient norm, over all processes.
        """
        steps = len(self.losses)
        mean = torch.stack([torch.stack(self.losses).mean(), torch.stack(self.norms).mean()])
        loss, norm = self.accelerator.reduce(mean, reduction="mean").tolist()
        rate = steps * self.images_per_step / (time.perf_counter() - self.since)
        self.losses, self.norms, self.since = [], [], time.perf_counter()
        self.accelerator.log({"loss": loss, "grad_norm": norm, "lr": lr, "images_per_second": rate}, step=step)
        self.bar.set_postfix(loss=f"{loss:.4f}", images_per_s=f"{rate:.0f}")
        if self.accelerator.is_main_process:
            with open(self.path, "a", newline="") as file:
                csv.writer(file).writerow([step, f"{loss:.6g}", f"{norm:.6g}", f"{lr:.6g}", f"{rate:.1f}"])
        return loss, norm

    def write_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row of validation.csv, if there are any."""
        self.accelerator.log(metrics, step=step)
        if metrics and self.accelerator.is_main_process:
            if not self.metrics_path.exists():
                _rewrite(self.metrics_path, ("step", *metrics), [])
            with open(self.metrics_path, "a", newline="") as file:
                csv.writer(file).writerow([step, *(f"{value:.6g}" for value in metrics.values())])

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()


def _rows(path: Path, last: int) -> list[list[str]]:
    """The rows of steps up to `last`."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= last]


def _rewrite(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
