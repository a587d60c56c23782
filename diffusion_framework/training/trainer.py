"""The training loop."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import Dataset

from ..data import ImageFolder
from ..data.loading.loader import loaded_batches, shuffled_batches
from ..data.loading.placement import cached
from ..diffusion import GaussianDiffusion
from ..process.noise import mix
from ..storage.checkpoint import Checkpoint, check_space, list_checkpoints, newest_whole_checkpoint, write_checkpoint
from ..storage.config import Configurable
from ..storage.images import save_grid
from .compute import Compute
from .distributed import on_main_process
from .ema import EMA
from .learning_rate import LearningRate
from .loading import Loading
from .log import Logging, TrainingLog
from .options import (
    changed_options,
    check_best,
    check_data,
    check_launch,
    check_options,
    differences,
    run_config,
)
from .precision import choose_precision
from .previews import Previews, sample_previews
from .run_lock import RunLock
from .saving import Saving
from .seeds import Purpose
from .state import TrainingState
from .step import TrainingStep
from .stopping import Guard, NotedSignals, end_process, outlive_signals
from .validation import ValidationOptions, validate


class Trainer(Configurable):
    """Trains a diffusion model and writes down what it did.

    Started by `accelerate launch` or `torchrun`, it trains on all their processes. Below the results folder it keeps
    `checkpoints/`, sample grids in `samples/`, the numbers in `log.csv` and `tensorboard/`.

    Order, mirroring, times, noise and dropout are functions of (seed, step, process): none of them needs to be saved.

    Args:
        model: Model to train.
        folder_or_dataset: A folder of images, or a dataset of images [channels, height, width]
            (uint8, or floats in [0, 1]), of other samples, or of pairs of these and a label or a
            dictionary of keywords of the model's forward.
        validation: Dataset like `folder_or_dataset` but held out; the averaged weights are measured
            on it and the results go to `validation.csv`.
        train_batch_size: Samples of a batch, over all processes with split_batches, else of each.
        gradient_accumulate_every: Batches of one optimizer step.
        augment_horizontal_flip: Flip each image horizontally with probability 1/2.
        train_lr: Learning rate of Adam at its peak.
        train_num_steps: Optimizer steps of the whole run.
        max_grad_norm: Norm to which larger gradients are scaled down.
        ema_update_every: Optimizer steps between two updates of the averaged weights.
        ema_decay: Decay of the averaged weights at an update, at its maximum (see `EMA`).
        betas: Adam's betas.
        weight_decay: Weight decay of AdamW; with 0 it is Adam.
        save_and_sample_every: Optimizer steps between two checkpoints.
        num_samples: Images of a preview.
        results_folder: Folder for everything that the run writes.
        mixed_precision: 'no' (float32), 'fp16' or 'bf16' for the network's arithmetic (the weights
            stay float32), or 'auto', bf16 where it is faster (see `choose_precision`).
        split_batches: Whether train_batch_size counts all processes together.
        convert_image_to: Pillow mode that the images of a folder are converted to first, as 'L'.
        seed: Seed for all randomness of the run.
        ema: Course of the decay of the averaged weights.
        learning_rate: Course of the learning rate.
        loading: Data workers, and where decoded images are kept.
        validation_options: When and on how many samples validation runs.
        saving: Which checkpoints are kept.
        previews: When and with how many sampler steps previews are drawn.
        logging: How often the log is written.
        compute: Compilation, and weights spread over processes.

    Raises:
        ValueError: an option out of range, options that do not go together, or fewer images than a
            batch.
    """

    def __init__(
        self,
        model: GaussianDiffusion,
        folder_or_dataset: str | os.PathLike[str] | Dataset,
        *,
        validation: Dataset | None = None,
        train_batch_size: int = 16,
        gradient_accumulate_every: int = 1,
        augment_horizontal_flip: bool = True,
        train_lr: float = 1e-4,
        train_num_steps: int = 100_000,
        max_grad_norm: float = 1.0,
        ema_update_every: int = 10,
        ema_decay: float = 0.995,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        save_and_sample_every: int = 1000,
        num_samples: int = 25,
        results_folder: str | os.PathLike[str] = "./results",
        mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto",
        split_batches: bool = True,
        convert_image_to: str | None = None,
        seed: int = 0,
        ema: EMA = EMA(),
        learning_rate: LearningRate = LearningRate(),
        loading: Loading = Loading(),
        validation_options: ValidationOptions = ValidationOptions(),
        saving: Saving = Saving(),
        previews: Previews = Previews(),
        logging: Logging = Logging(),
        compute: Compute = Compute(),
    ) -> None:
        check_options(locals())
        check_best(saving, validation, validation_options.every, save_and_sample_every)
        self.results_folder, self.seed = Path(results_folder), seed
        self.num_steps, self.save_every = train_num_steps, save_and_sample_every
        self.num_samples, self.validation = num_samples, validation
        self.loading, self.logging, self.saving = loading, logging, saving
        self.validation_options, self.previews = validation_options, previews
        AcceleratorState._reset_state()  # else a second trainer of one process could not have another precision
        self.precision = choose_precision(mixed_precision, model.model)  # the accelerator's is that of the last one
        self.accelerator = Accelerator(
            mixed_precision=self.precision,
            log_with="tensorboard",
            project_dir=os.fspath(results_folder),
        )
        check_launch(self.accelerator, compute.shard)
        self.batch_size = train_batch_size * (1 if split_batches else self.accelerator.num_processes)
        self.dataset: Any = folder_or_dataset
        if isinstance(folder_or_dataset, str | os.PathLike):
            if len(model.sample_shape) != 3:
                raise ValueError(
                    f"a folder of images is no data for a network of samples {model.sample_shape}; give a dataset"
                )
            channels, height, width = model.sample_shape
            self.dataset = ImageFolder(folder_or_dataset, (height, width), channels, convert_image_to=convert_image_to)
        elif convert_image_to is not None:
            raise ValueError("convert_image_to goes with a folder given by its path; set it on the dataset instead")
        if loading.cache in ("memory", "disk") and not getattr(self.dataset, "worth_caching", False):
            raise ValueError(
                f"loading.cache={loading.cache!r} keeps images of a folder that are cropped at the center, "
                f"not those of this {type(self.dataset).__name__}; set loading.cache to auto or off"
            )
        check_data(self.dataset, model, self.results_folder, self.batch_size, self.accelerator.num_processes)
        self.config = run_config(self, self.dataset, model)
        model.fit(self.dataset)
        self.state = TrainingState(
            model,
            self.accelerator,
            average=partial(ema.average, decay=ema_decay, update_every=ema_update_every),
            adam={"betas": tuple(betas), "weight_decay": weight_decay},
            compile=compute.compile,
            shard=compute.shard,
        )
        self.take_step = TrainingStep(
            self.accelerator,
            partial(learning_rate.at, peak=train_lr, num_steps=train_num_steps),
            seed,
            gradient_accumulate_every,
            augment_horizontal_flip,
            max_grad_norm,
        )

    @property
    def model(self) -> GaussianDiffusion:
        """The model in training."""
        return self.state.diffusion

    @property
    def averaged(self) -> GaussianDiffusion:
        """The model with the averaged weights: the one to sample from."""
        return self.state.averaged

    def train(self, resume: bool = False) -> None:
        """Train to train_num_steps.

        SIGINT (Ctrl-C), SIGTERM or SIGUSR1 to any process of the run end all of them with a checkpoint after the step
        in progress, and then as such a signal ends a process: KeyboardInterrupt, or exit code 128 + its number. A
        second one ends at once.

        Args:
            resume: Go on from the newest checkpoint of the results folder, or start if there is none.

        Raises:
            ValueError: the results folder holds a run and resume is not set, or holds one of another model, or is in
                use; or the disk has no room for the checkpoints.
            FloatingPointError: the loss or the gradient of a step is not finite. It changed nothing.
            OSError: something could not be written.
        """
        checkpoint = self.check(resume)
        with cached(self.dataset, self.loading.cache, self.accelerator) as dataset:
            self._train(dataset, checkpoint)

    def _train(self, dataset: Any, checkpoint: Checkpoint | None) -> None:
        lock = on_main_process(self.accelerator, lambda: RunLock(self.results_folder))
        try:
            if checkpoint:
                self._load(checkpoint)
            with NotedSignals() as signals:
                guard = Guard(self.accelerator, signals)
                self._loop(dataset, guard, checkpoint.state["unwritten"] if checkpoint else [])
            if guard.signal:
                end_process(guard.signal, self._say_stopped(guard.signal))
        finally:
            if lock is not None:
                lock.release()

    def _loop(self, dataset: Any, guard: Guard, unwritten: Sequence[tuple[float, float]]) -> None:
        state = self.state
        images_per_step = self.batch_size * self.take_step.accumulate
        log = TrainingLog(
            self.results_folder,
            self.accelerator,
            state.step,
            self.num_steps,
            images_per_step,
            self.logging.progress,
            unwritten,
        )
        try:
            with self._batches(dataset) as batches:
                while state.step < self.num_steps and not guard.signal:
                    log.add(*self.take_step(state, batches, guard))
                    saves = self._due(None)
                    logs = saves or state.step % self.logging.every == 0
                    validates = self.validation is not None and self._due(self.validation_options.every)
                    previews = self._due(self.previews.every)
                    if logs or validates or previews or guard.signal:
                        guard.settle()
                    if logs:
                        log.write(state.step, state.optimizer.param_groups[0]["lr"])
                    began = time.perf_counter()
                    metrics = self._validate(log) if validates else {}
                    if saves or guard.signal:
                        self._save(log, metrics)
                    if previews and len(self.model.sample_shape) == 3:  # which is images
                        self._preview(log)
                    log.pause(time.perf_counter() - began)
        finally:
            log.close()

    def _due(self, every: int | None) -> bool:
        """Whether it is time for what happens every so many steps and at the last one; None: as saving does."""
        every = self.save_every if every is None else every
        return every > 0 and (self.state.step % every == 0 or self.state.step == self.num_steps)

    def _say_stopped(self, number: int) -> str:
        name = signal.Signals(number).name
        message = f"{name}: stopped after step {self.state.step} and saved in {self.results_folder}; resume to go on"
        if self.accelerator.is_main_process:
            print(message, file=sys.stderr)
        return message

    def check(self, resume: bool = False) -> Checkpoint | None:
        """Raise what `train` would raise before its first step, writing nothing. Returns what it would resume from."""
        there = list_checkpoints(self.results_folder)
        to_write = min(
            self.saving.keep_newest + 1, -(-self.num_steps // self.save_every)
        )  # one more than are kept, for a while
        check_space(self.results_folder, self.state.size(), max(1, to_write - len(there)))
        if not there:
            return None
        if not resume:
            raise ValueError(f"{self.results_folder} already holds a run; resume it, or choose another results_folder")
        checkpoint = newest_whole_checkpoint(self.results_folder)
        if different := list(differences(checkpoint.config["diffusion"], self.config["diffusion"])):
            raise ValueError(
                f"{checkpoint.path} is of another model ({'; '.join(different)}); resume it with its own settings, or "
                "choose another results_folder"
            )
        different = list(differences(checkpoint.state["order"], self._order()))
        if different := different + list(changed_options(checkpoint.config["trainer"], self.config["trainer"])):
            warnings.warn(f"not the same run as before: {'; '.join(different)}", stacklevel=2)
        return checkpoint

    def _order(self) -> dict[str, Any]:
        """What decides which images a step sees, with what noise and how exactly."""
        fingerprint = getattr(self.dataset, "fingerprint", lambda: len(self.dataset))
        images_per_step = self.batch_size * self.take_step.accumulate
        order = {"seed": self.seed, "images per step": images_per_step, "images": fingerprint()}
        return {**order, "precision": self.precision}

    def _batches(self, dataset: Dataset) -> AbstractContextManager[Iterator[Any]]:
        order = shuffled_batches(
            self.dataset,
            self.batch_size,
            mix(self.seed, Purpose.ORDER),
            self.state.step * self.take_step.accumulate,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        return loaded_batches(dataset, order, self.loading.num_workers, self.accelerator.device, outlive_signals)

    def _validate(self, log: TrainingLog) -> dict[str, float]:
        samples = self.validation_options.samples
        metrics = validate(self.averaged, self.validation, samples, self.batch_size, self.accelerator, self.seed)
        if self.saving.keep_best and self.saving.best_metric not in metrics:
            raise ValueError(
                f"Expected saving.best_metric among {', '.join(metrics)}, got {self.saving.best_metric!r}. "
                "Fix: take one of these."
            )
        log.write_metrics(self.state.step, metrics)
        return metrics

    def _save(self, log: TrainingLog, metrics: dict[str, float]) -> None:
        tensors = self.state.tensors()
        numbers = {**self.state.numbers(), "order": self._order(), "metrics": metrics, "unwritten": log.unwritten()}

        def write() -> None:
            spare = self.saving.best_steps(self.results_folder, self.state.step, metrics)
            keep = self.saving.keep_newest
            write_checkpoint(self.results_folder, self.state.step, tensors, self.config, numbers, keep, spare)

        on_main_process(self.accelerator, write)
        log.saved(self.state.step)

    def _load(self, checkpoint: Checkpoint) -> None:
        self.state.load(checkpoint)
        steps = self.accelerator.gather(torch.tensor([self.state.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(f"the processes would resume from steps {steps}; give all of them the same results_folder")

    def _preview(self, log: TrainingLog) -> None:
        seed = mix(self.seed, Purpose.SAMPLE)
        steps = self.previews.sampling_steps
        images = sample_previews(self.state.averaged, self.accelerator, self.num_samples, steps, seed)
        if self.accelerator.is_main_process:
            path = self.results_folder / "samples" / f"step-{self.state.step:08d}.png"
            save_grid(images, path, columns=self.model.num_classes)  # a class a column
            log.add_picture(path, self.state.step)
