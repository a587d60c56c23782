"""The training loop."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import Dataset

from ..checkpoint import Checkpoint, check_space, list_checkpoints, newest_whole_checkpoint, write_checkpoint
from ..config import Configurable
from ..data import ImageFolder
from ..data.loading.loader import loaded_batches, shuffled_batches
from ..data.loading.placement import cached
from ..diffusion import GaussianDiffusion
from ..pictures import save_grid
from ..process.noise import mix
from .guard import Guard
from .learning_rate import LearningRate
from .log import TrainingLog
from .owner import Ownership
from .precision import choose_precision
from .previews import sample_previews
from .processes import on_main_process
from .seeds import Purpose
from .settings import changed_options, check_data, check_launch, check_options, differences, run_config
from .signals import NotedSignals, end_process, outlive_signals
from .state import TrainingState
from .step import TrainingStep
from .validation import best_steps, validate


class Trainer(Configurable):
    """Trains a diffusion model and writes down what it did.

    Started by `accelerate launch` or `torchrun`, it trains on all their processes. Below the results folder it keeps
    `checkpoints/`, sample grids in `samples/`, the numbers in `log.csv` and `tensorboard/`.

    Order, mirroring, times, noise and dropout are functions of (seed, step, process): none of them needs to be saved.

    Args:
        diffusion: The model to train.
        folder: A folder of images, or any dataset of images [channels, height, width] (uint8, or floats in [0, 1]) or
            other samples, or of pairs of those and a label or a dictionary of keywords of `diffusion`'s forward.
        validation: Data like that of folder, but not trained on: what the averaged weights make of it is written to
            `validation.csv` with each checkpoint.
        train_batch_size: Images of a batch: over all processes with split_batches, else of each process.
        gradient_accumulate_every: Batches of one optimizer step.
        augment_horizontal_flip: Mirror every other image, at random; leaves alone what is no image.
        train_lr: Learning rate of Adam, at its highest.
        train_num_steps: Optimizer steps of the whole run.
        max_grad_norm: Gradients are scaled down to this norm.
        ema_update_every: Steps between updates of the averaged weights.
        ema_decay: Of the averaged weights, per update, at its highest: they follow the weights for the first 100 steps,
            and the decay then rises (as ema-pytorch does by default).
        ema_inv_gamma: Stretches that rise: the decay at update n is 1 - (1 + n / ema_inv_gamma)^-ema_power.
        ema_power: See ema_inv_gamma; 0.75 suits short runs.
        betas: Of Adam.
        weight_decay: Of AdamW, which is Adam without any.
        save_and_sample_every: Steps between checkpoints, each with a grid of samples.
        num_samples: Images of that grid.
        results_folder: Where everything is written.
        mixed_precision: 'no' (float32), 'fp16' or 'bf16' for the network's calculations (the weights stay float32), or
            'auto': bf16 where it is faster, see `choose_precision`.
        split_batches: See train_batch_size.
        convert_image_to: Pillow mode that images of a folder are converted to first, such as 'L'.
        seed: Of everything random.
        lr_schedule: How the learning rate goes on after the warm-up: 'constant', 'linear' or 'cosine' (both to 0).
        warmup_steps: Steps over which the learning rate rises from 0.
        num_workers: Processes that load images, for each training process; 0 loads in the training process itself.
        cache: Where decoded images of a folder are kept, so that only the first epoch decodes them: 'memory', 'disk'
            (in the cache folder, for later runs too), 'off', or 'auto': the first of these with room, see `cached`.
        compile: Compile the network with torch.compile.
        shard: Keep on each of several processes only its part of the weights, their average and the optimizer's state
            (FSDP), and the whole in checkpoints, so that these serve any number of processes.
        sampling_steps: Steps of the sampler for the grids.
        log_every: Steps between rows of the log.
        keep_checkpoints: Checkpoints to keep, the newest.
        keep_best: Checkpoints to keep beside those, the best by best_metric.
        best_metric: A column of `validation.csv`, the smaller the better: validation_loss, or action_error of policies.
        validation_samples: Samples of the validation data that are looked at, evenly spread.
        progress: Show progress bars.

    Raises:
        ValueError: an option out of range, or fewer images than a batch.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        folder: str | os.PathLike[str] | Dataset,
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
        ema_inv_gamma: float = 1.0,
        ema_power: float = 2 / 3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        save_and_sample_every: int = 1000,
        num_samples: int = 25,
        results_folder: str | os.PathLike[str] = "./results",
        mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto",
        split_batches: bool = True,
        convert_image_to: str | None = None,
        seed: int = 0,
        lr_schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup_steps: int = 0,
        num_workers: int = 2,
        cache: Literal["auto", "memory", "disk", "off"] = "auto",
        compile: bool = False,
        shard: bool = False,
        sampling_steps: int = 50,
        log_every: int = 50,
        keep_checkpoints: int = 3,
        keep_best: int = 0,
        best_metric: str = "validation_loss",
        validation_samples: int = 1000,
        progress: bool = True,
    ) -> None:
        check_options(locals())
        self.results_folder, self.seed = Path(results_folder), seed
        AcceleratorState._reset_state()  # else a second trainer of one process could not have another precision
        self.precision = choose_precision(mixed_precision, diffusion.model)  # the accelerator's is that of the last one
        self.accelerator = Accelerator(
            mixed_precision=self.precision,
            log_with="tensorboard",
            project_dir=os.fspath(results_folder),
        )
        check_launch(self.accelerator, shard)
        self.batch_size = train_batch_size * (1 if split_batches else self.accelerator.num_processes)
        self.dataset: Any = folder
        if isinstance(folder, str | os.PathLike):
            if len(diffusion.sample_shape) != 3:
                raise ValueError(
                    f"a folder of images is no data for a network of samples {diffusion.sample_shape}; give a dataset"
                )
            channels, height, width = diffusion.sample_shape
            self.dataset = ImageFolder(folder, (height, width), channels, convert_image_to=convert_image_to)
        elif convert_image_to is not None:
            raise ValueError("convert_image_to goes with a folder given by its path; set it on the dataset instead")
        if cache in ("memory", "disk") and not getattr(self.dataset, "worth_caching", False):
            raise ValueError(
                f"cache={cache!r} keeps images of a folder that are cropped at the center, not those of this "
                f"{type(self.dataset).__name__}; set cache to auto or off"
            )
        check_data(self.dataset, diffusion, self.results_folder, self.batch_size, self.accelerator.num_processes)
        if keep_best and validation is None:
            raise ValueError("keep_best needs validation data to tell which is best; give validation, or set it to 0")
        self.validation, self.validation_samples = validation, validation_samples
        self.keep_best, self.best_metric = keep_best, best_metric
        self.config = run_config(self, self.dataset, diffusion)
        diffusion.fit(self.dataset)
        self.cache = cache
        self.num_steps, self.num_workers, self.progress = train_num_steps, num_workers, progress
        self.save_every, self.log_every, self.keep = save_and_sample_every, log_every, keep_checkpoints
        self.num_samples, self.sampling_steps = num_samples, sampling_steps
        self.state = TrainingState(
            diffusion,
            self.accelerator,
            ema={"beta": ema_decay, "update_every": ema_update_every, "inv_gamma": ema_inv_gamma, "power": ema_power},
            adam={"betas": tuple(betas), "weight_decay": weight_decay},
            compile=compile,
            shard=shard,
        )
        self.take_step = TrainingStep(
            self.accelerator,
            LearningRate(train_lr, lr_schedule, warmup_steps, train_num_steps),
            seed,
            gradient_accumulate_every,
            augment_horizontal_flip,
            max_grad_norm,
        )

    @property
    def diffusion(self) -> GaussianDiffusion:
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
        with cached(self.dataset, self.cache, self.accelerator) as dataset:
            self._train(dataset, checkpoint)

    def _train(self, dataset: Any, checkpoint: Checkpoint | None) -> None:
        owner = on_main_process(self.accelerator, lambda: Ownership(self.results_folder))
        try:
            if checkpoint:
                self._load(checkpoint)
            with NotedSignals() as signals:
                guard = Guard(self.accelerator, signals)
                self._loop(dataset, guard, checkpoint.state["unwritten"] if checkpoint else [])
            if guard.signal:
                end_process(guard.signal, self._say_stopped(guard.signal))
        finally:
            if owner is not None:
                owner.release()

    def _loop(self, dataset: Any, guard: Guard, unwritten: Sequence[tuple[float, float]]) -> None:
        state = self.state
        images_per_step = self.batch_size * self.take_step.accumulate
        log = TrainingLog(
            self.results_folder, self.accelerator, state.step, self.num_steps, images_per_step, self.progress, unwritten
        )
        try:
            with self._batches(dataset) as batches:
                while state.step < self.num_steps and not guard.signal:
                    log.add(*self.take_step(state, batches, guard))
                    saves = state.step % self.save_every == 0 or state.step == self.num_steps
                    if saves or guard.signal or state.step % self.log_every == 0:
                        guard.settle()
                    if saves or state.step % self.log_every == 0:
                        log.write(state.step, state.optimizer.param_groups[0]["lr"])
                    if saves or guard.signal:
                        self._save(log, planned=saves)
        finally:
            log.close()

    def _say_stopped(self, number: int) -> str:
        name = signal.Signals(number).name
        message = f"{name}: stopped after step {self.state.step} and saved in {self.results_folder}; resume to go on"
        if self.accelerator.is_main_process:
            print(message, file=sys.stderr)
        return message

    def check(self, resume: bool = False) -> Checkpoint | None:
        """Raise what `train` would raise before its first step, writing nothing. Returns what it would resume from."""
        there = list_checkpoints(self.results_folder)
        to_write = min(self.keep + 1, -(-self.num_steps // self.save_every))  # one more than are kept, for a while
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
        return loaded_batches(dataset, order, self.num_workers, self.accelerator.device, outlive_signals)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        metrics = validate(
            self.averaged, self.validation, self.validation_samples, self.batch_size, self.accelerator, self.seed
        )
        if self.keep_best and self.best_metric not in metrics:
            raise ValueError(f"best_metric must be one of {', '.join(metrics)}; got {self.best_metric!r}")
        return metrics

    def _save(self, log: TrainingLog, planned: bool) -> None:
        """Write a checkpoint; if it was planned, with metrics and previews."""
        began = time.perf_counter()
        metrics = self._validate() if planned else {}
        log.write_metrics(self.state.step, metrics)
        tensors = self.state.tensors()
        numbers = {**self.state.numbers(), "order": self._order(), "metrics": metrics, "unwritten": log.unwritten()}

        def write() -> None:
            spare = best_steps(self.results_folder, self.best_metric, self.keep_best, self.state.step, metrics)
            write_checkpoint(self.results_folder, self.state.step, tensors, self.config, numbers, self.keep, spare)

        on_main_process(self.accelerator, write)
        log.saved(self.state.step)
        if planned and len(self.diffusion.sample_shape) == 3:  # which is images
            self._preview(log)
        log.pause(time.perf_counter() - began)

    def _load(self, checkpoint: Checkpoint) -> None:
        self.state.load(checkpoint)
        steps = self.accelerator.gather(torch.tensor([self.state.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(f"the processes would resume from steps {steps}; give all of them the same results_folder")

    def _preview(self, log: TrainingLog) -> None:
        seed = mix(self.seed, Purpose.SAMPLE)
        images = sample_previews(self.state.averaged, self.accelerator, self.num_samples, self.sampling_steps, seed)
        if self.accelerator.is_main_process:
            path = self.results_folder / "samples" / f"step-{self.state.step:08d}.png"
            save_grid(images, path, columns=self.diffusion.num_classes)  # a class a column
            log.add_picture(path, self.state.step)
