"""Logs a run to CSV files, trackers and the terminal without waiting for the device."""

from __future__ import annotations

import csv
import re
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from ..progress import LineTimes, shows_bars, time_left
from ..storage.checkpoint import Checkpoint
from ..storage.images import save_picture
from ..storage.replacing import replacing
from .checks import expect
from .curves import add_row, draw_curves
from .trackers import (
    begin_tracking,
    check_trackers,
    chosen_trackers,
    hint_without_trackers,
    track_image,
)

_FIRST_WORD = 1.0  # seconds after the start
_WORTH_TELLING = 5.0  # seconds left
COLUMNS = ("step", "loss", "grad_norm", "lr", "images_per_second")


@dataclass(frozen=True)
class Logging:
    """Options of the log.

    Args:
        every: Number of optimizer steps between two rows of `log.csv`.
        progress: Whether to show progress: a bar in a terminal, otherwise lines, from two seconds
            on at growing intervals.
        trackers: Trackers of accelerate that get the same numbers, such as tensorboard or wandb.
            None is TensorBoard if it is installed; an empty list is none.
        project: Project of the run, for trackers that have projects.

    Raises:
        ValueError: If a field is out of range, or a tracker is unknown or not installed.
    """

    every: int = 50
    progress: bool = True
    trackers: Sequence[str] | None = None
    project: str = "diffusion"

    def __post_init__(self) -> None:
        wanted = "logging.every of at least 1"
        expect(self.every >= 1, wanted, self.every, "set it to 1 for a row at each step")
        if self.trackers is not None:
            fits = isinstance(self.trackers, tuple | list)
            fix = f"give ({self.trackers!r:.40},)"
            expect(fits, "logging.trackers as names in a tuple", self.trackers, fix)
            check_trackers(self.trackers)


class TrainingLog:
    """Collects losses on the device and writes a row of their means at each `write`.

    Args:
        folder: Folder of log.csv and validation.csv.
        accelerator: Accelerator of the run. Its trackers get the same numbers, and only its main
            process writes.
        options: Options of the log.
        config: All options that build the run, for the trackers.
        start: Number of optimizer steps already taken; later rows in the files are dropped.
        stop: Number of optimizer steps of the whole run.
        images_per_step: Number of samples of a step over all processes.
        unwritten: Result of `unwritten` when the run stopped at `start`.
        left: Tasks that the run left at `start`; rows that it may have begun are dropped too. A row
            of log.csv is whole if its numbers are no longer among the unwritten ones.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        options: Logging,
        config: Mapping[str, Any],
        start: int,
        stop: int,
        images_per_step: int,
        unwritten: Sequence[tuple[float, float]] = (),
        left: Collection[str] = (),
    ) -> None:
        self.path, self.metrics_path = folder / "log.csv", folder / "validation.csv"
        self.accelerator, self.images_per_step = accelerator, images_per_step
        self.before = list(unwritten)
        self.steps: list[Tensor] = []
        self.start, self.stop = start, stop
        self.began = self.since = time.perf_counter()
        self.step, self.times, self.first = start, LineTimes(), 0.0
        self.checkpoint = f"step {start}" if start else "none"
        terminal = shows_bars()
        main = accelerator.is_main_process
        progress = options.progress
        self.lines, self.tells_time = main and progress and not terminal, main and progress
        self.bar = tqdm(
            initial=start,
            total=stop,
            desc="training",
            unit="step",
            disable=not (main and progress and terminal),
        )
        if main:
            _drop_rows_after(start - bool("log" in left and unwritten), self.path, COLUMNS)
            if self.metrics_path.exists():
                _drop_rows_after(start - ("validate" in left), self.metrics_path)
            names, place = chosen_trackers(options.trackers), (folder, options.project)
            begin_tracking(accelerator, names, *place, config, start)
            if progress:
                hint_without_trackers(options.trackers)

    @classmethod
    def of(cls, run: Any, checkpoint: Checkpoint | None) -> TrainingLog:
        """Returns the log of a Trainer that goes on from a checkpoint, or begins."""
        left = {} if checkpoint is None else checkpoint.state
        steps = run.state.step, run.budget.steps, run.images_per_step
        stopped = left.get("unwritten", ()), left.get("left", ())
        return cls(run.results_folder, run.accelerator, run.logging, run.config, *steps, *stopped)

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Adds the loss and gradient norm of a step, over all processes, scalars on the device."""
        self.steps.append(torch.stack([loss, norm]))
        self.step += 1
        self.bar.update()
        if self.tells_time:
            self._tell_time()
        if self.lines and self.step < self.stop and self.times.is_due():
            self._print_line()

    def _tell_time(self) -> None:
        """Prints once how long the steps will take, after a second; the first step is left out."""
        done, now = self.step - self.start - 1, time.perf_counter()
        if done == 0:
            self.first = now
        elif done > 2 and now - self.began > _FIRST_WORD:
            torch.stack(self.steps).tolist()  # waits for the device
            each = (time.perf_counter() - self.first) / done
            left = each * (self.stop - self.step)
            if left > _WORTH_TELLING:
                told = timedelta(seconds=round(left))
                tqdm.write(f"{'time':12}about {told} for the steps, {each:.3g} s each")
            self.tells_time = False

    def pause(self, seconds: float) -> None:
        """Excludes seconds spent on saving or sampling from the images per second."""
        self.since += seconds

    def unwritten(self) -> list[tuple[float, float]]:
        """Returns loss and gradient norm of each step since the last row.

        Waits for the device. A checkpoint keeps these numbers, so that the next row of a resumed
        run equals that of an uninterrupted run.
        """
        if self.steps:
            self.before += [(loss, norm) for loss, norm in torch.stack(self.steps).tolist()]
            self.steps = []
        return self.before

    def write(self, step: int, lr: float) -> None:
        """Writes one row of log.csv with means since the last row, if there were steps.

        Waits for the device. If the row cannot be written, its numbers stay among the unwritten.
        """
        steps = len(self.steps)
        if not self.unwritten():
            return
        loss, norm = (sum(column) / len(column) for column in zip(*self.before, strict=True))
        now = time.perf_counter()
        rate = steps * self.images_per_step / max(now - self.since, 1e-9)
        self.accelerator.log(
            {"loss": loss, "grad_norm": norm, "lr": lr, "images_per_second": rate}, step=step
        )
        if self.accelerator.is_main_process:
            row = [step, f"{loss:.6g}", f"{norm:.6g}", f"{lr:.6g}", f"{rate:.1f}"]
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(row)
        self.before, self.since = [], now
        shown = f"loss {loss:.4f}, gradient norm {norm:.3g}, {rate:.3g} images/s"
        self.bar.set_postfix_str(f"{shown}, checkpoint: {self.checkpoint}")
        if self.lines and step == self.stop:
            print(f"step {step} of {self.stop}: {shown}", file=sys.stderr, flush=True)

    def _print_line(self) -> None:
        """Prints the numbers since the last row; waits for the device."""
        new = [*self.before, *torch.stack(self.steps).tolist()]
        loss, norm = (sum(column) / len(column) for column in zip(*new, strict=True))
        elapsed, done = time.perf_counter() - self.began, self.step - self.start
        rate = done * self.images_per_step / elapsed
        left = time_left(elapsed, done / (self.stop - self.start))
        line = f"step {self.step} of {self.stop}: loss {loss:.4f}, gradient norm {norm:.3g}"
        line += f", {rate:.3g} images/s, checkpoint: {self.checkpoint}, {left}"
        print(line, file=sys.stderr, flush=True)

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Hands further numbers to the trackers."""
        self.accelerator.log(dict(values), step=step)

    def write_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Writes a row of validation.csv and draws validation.png, unless there are no metrics."""
        self.accelerator.log(metrics, step=step)
        if metrics and self.accelerator.is_main_process:
            add_row(self.metrics_path, step, metrics)
            draw_curves(self.metrics_path, self.metrics_path.with_suffix(".png"))

    def saved(self, step: int) -> None:
        """Sets the step of the newest checkpoint, which the progress shows."""
        self.checkpoint = f"step {step}"

    def write_preview(self, picture: Tensor, path: Path, step: int) -> None:
        """Writes a preview to a file and to the trackers.

        Args:
            picture: Grid of samples [channels, height, width] in [0, 1].
            path: Path of the file.
            step: Number of optimizer steps taken.
        """
        import numpy as np
        from PIL import Image

        save_picture(picture, path)
        with Image.open(path) as image:
            track_image(self.accelerator, "samples", np.asarray(image.convert("RGB")), step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Closes the progress bar and the trackers; an error before hides an error of theirs."""
        self.bar.close()
        with nullcontext() if kind is None else suppress(OSError):
            self.accelerator.end_training()


def _drop_rows_after(step: int, path: Path, header: Sequence[str] = ()) -> None:
    """Rewrites a CSV file with its complete rows up to a step, below the header or its own."""
    rows = _rows(path)
    header = header or (rows[0] if rows else ())
    whole = [row for row in rows if len(row) == len(header) and re.fullmatch("[0-9]{1,18}", row[0])]
    with replacing(path, "t", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in whole if int(row[0]) <= step)])


def _rows(path: Path) -> list[list[str]]:
    """Returns the rows of a CSV file up to damage that cannot be read; none without the file."""
    rows: list[list[str]] = []
    with (
        suppress(FileNotFoundError, csv.Error),
        open(path, encoding="utf-8", errors="replace", newline="") as file,
    ):
        for row in csv.reader(file):
            rows.append(row)
    return rows
