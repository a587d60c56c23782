"""The Trainer, with the training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from ..data.loading.one_pass import one_pass
from ..data.loading.placement import cached
from ..process.noise import mix
from ..storage.checkpoint import Checkpoint
from ..storage.config import RecordsArguments
from ..trainable import Trainable
from .budget import Budget
from .callbacks import Callback, Callbacks
from .compute import Compute
from .ema import EMA
from .learning_rate import LearningRate
from .leaving import ended_in_words, leave
from .loading import Loading, open_dataset, split_data
from .log import Logging, TrainingLog
from .optimizers import ChosenOptimizer, OptimizerChoice
from .options import check_data, check_options, run_config, run_numbers, run_order
from .precision import choose_precision
from .previews import Previews
from .quality import QualityInTraining, SampleQuality
from .run_lock import locked
from .saving import Saving
from .seeds import Purpose
from .signals import NotedSignals
from .starting import Start
from .state import TrainingState
from .step import TrainingStep
from .stopping import Guard
from .summary import Outline, summary
from .tasks import Tasks, due_tasks
from .validation import ValidationOptions


class Trainer(RecordsArguments):
    """Trains a model and keeps its checkpoints, previews and log in a results folder.

    `accelerate launch` and `torchrun` start it on several processes. The folder gets
    `checkpoints/`, `samples/`, `log.csv`, `validation.csv` and `tensorboard/`. The order of
    samples and all randomness are functions of (seed, step, process); resumed runs repeat them.

    Args:
        model: Model to train.
        folder_or_dataset: Path of a folder of images, or a dataset, list, tensor or array of images
            [channels, height, width] or other samples. Each sample is alone or in a pair with a
            label or a dictionary of conditions.
        validation: Held-out data in the form of `folder_or_dataset`, on which the averaged weights
            are measured, or the share of the data to hold out, in (0, 1), chosen by the seed. The
            results are written to `validation.csv`.
        train_batch_size: Number of samples of a batch, of all processes together with
            split_batches, otherwise of each process.
        gradient_accumulate_every: Number of batches of one optimizer step (gradient accumulation).
        augment_horizontal_flip: Whether to flip images and their conditions with probability 1/2.
        train_lr: Peak learning rate of Adam, or of an optimizer given by its name or class.
        train_num_steps: Number of optimizer steps of the whole run.
        max_grad_norm: Gradient norm above which gradients are clipped.
        ema_update_every: Number of optimizer steps between two updates of the averaged weights.
        ema_decay: Maximum decay of the averaged weights (EMA) at an update.
        betas: Adam's betas.
        weight_decay: Weight decay of AdamW; 0 is plain Adam.
        optimizer: Optimizer in place of AdamW: 'muon', another name in torch.optim, a class, a
            function of the list of parameters, or an optimizer. The last two bring their own
            learning rates in place of train_lr.
        optimizer_options: Options of an optimizer given by its name or class, by name.
        save_and_sample_every: Number of optimizer steps between two checkpoints.
        num_samples: Number of images in a preview.
        results_folder: Folder for all files of the run.
        mixed_precision: Number format of the network's arithmetic: 'no' (float32), 'fp16', 'bf16',
            or 'auto', which is bf16 where it is faster. The weights stay float32.
        split_batches: Whether train_batch_size counts the samples of all processes together.
        convert_image_to: Pillow mode, such as 'L', that images of a folder are converted to first.
        seed: Seed for all randomness of the run.
        minutes: Time for the steps in minutes, which sets train_num_steps once, at the start.
        ema: Warm-up of the EMA decay.
        learning_rate: Warm-up and decay of the learning rate.
        loading: Data workers, and the cache for decoded images.
        validation_options: Interval and number of samples of the validation.
        saving: Checkpoints to keep.
        quality: Number of samples and features of their distance to the validation data.
        previews: Interval and number of sampler steps of the previews.
        logging: Interval of the log, and display of progress.
        compute: Compilation, and sharding of the weights.
        callbacks: Code to call at the start, after each step and at the end (see `Callback`).

    Raises:
        ValueError: If an option is out of range, options conflict, or the data is below a batch.
    """

    def __init__(
        self,
        model: Trainable,
        folder_or_dataset: str | os.PathLike[str] | Dataset | Sequence[Any] | Tensor,
        *,
        validation: Dataset | Sequence[Any] | Tensor | float | None = None,
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
        optimizer: OptimizerChoice | None = None,
        optimizer_options: dict[str, Any] | None = None,
        save_and_sample_every: int = 1000,
        num_samples: int = 25,
        results_folder: str | os.PathLike[str] = "./results",
        mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto",
        split_batches: bool = True,
        convert_image_to: str | None = None,
        seed: int = 0,
        minutes: float | None = None,
        ema: EMA = EMA(),
        learning_rate: LearningRate = LearningRate(),
        loading: Loading = Loading(),
        validation_options: ValidationOptions = ValidationOptions(),
        saving: Saving = Saving(),
        quality: SampleQuality = SampleQuality(),
        previews: Previews = Previews(),
        logging: Logging = Logging(),
        compute: Compute = Compute(),
        callbacks: Sequence[Callback] = (),
    ) -> None:
        check_options(locals())
        names = *model.metric_names, *quality.metric_names
        saving.check(names, validation, validation_options.every, save_and_sample_every)
        self.results_folder, self.seed = Path(results_folder), seed
        self.budget, self.save_every = Budget(train_num_steps, minutes), save_and_sample_every
        self.loading, self.logging, self.saving, self.compute = loading, logging, saving, compute
        self.precision = choose_precision(mixed_precision, model)
        self.accelerator = compute.accelerator(self.precision, self.results_folder)
        processes = self.accelerator.num_processes
        self.batch_size = train_batch_size * (1 if split_batches else processes)
        self.images_per_step = self.batch_size * gradient_accumulate_every
        whole = open_dataset(folder_or_dataset, model.sample_shape, convert_image_to)
        self.dataset, held_out = split_data(whole, validation, mix(seed, Purpose.HELD_OUT))
        loading.check(self.dataset)
        check_data(self.dataset, held_out, model, self.results_folder, self.batch_size, processes)
        self.order = run_order(seed, self.images_per_step, self.dataset, self.precision)
        self.config = run_config(self, model, whole, held_out)
        adam = {"betas": tuple(betas), "weight_decay": weight_decay}
        chosen = ChosenOptimizer(optimizer, optimizer_options or {}, train_lr, adam)
        self.state = TrainingState(
            model,
            self.accelerator,
            average=partial(ema.average, decay=ema_decay, update_every=ema_update_every),
            track=partial(ema.track, update_every=ema_update_every),
            optimizer=chosen.make,
            compile=compute.compile,
            shard=compute.shard,
        )
        self.config["trainer"]["optimizer"] = chosen.describe(self.state.slots.optimizer)
        rate = partial(self.budget.rate, learning_rate)
        self.take_step = TrainingStep(
            self.accelerator,
            seed,
            progress=self.budget.progress,
            learning_rate=rate,
            accumulate=gradient_accumulate_every,
            flip=augment_horizontal_flip,
            max_grad_norm=max_grad_norm,
        )
        self.tasks = Tasks(
            self.state,
            self.results_folder,
            self.config,
            numbers=run_numbers(self.dataset, self.order),
            budget=self.budget,
            seed=seed,
            batch_size=self.batch_size,
            validation=held_out,
            conditions=self.dataset if held_out is None else held_out,
            num_samples=num_samples,
            validation_options=validation_options,
            quality=QualityInTraining(quality, self.dataset, held_out, previews, seed),
            previews=previews,
            saving=saving,
            learning_rate=rate,
        )
        self.callbacks = Callbacks(callbacks, self.tasks)
        self.every = {"log": logging.every, "save": self.save_every, "preview": previews.every}
        self.every["validate"] = 0 if held_out is None else validation_options.every
        self.announce: Callable[[], Any] = lambda: None  # called before the first step

    @property
    def model(self) -> Trainable:
        return self.state.model

    @property
    def averaged(self) -> Trainable:
        """The model with the averaged weights (EMA), from which samples are drawn."""
        return self.state.averaged

    def train(
        self,
        resume: bool | Literal["auto"] = False,
        *,
        resume_from: int | None = None,
        init_from: str | os.PathLike[str] | None = None,
    ) -> None:
        """Trains for train_num_steps, or for as many steps as take `minutes`.

        SIGINT (Ctrl-C), SIGTERM or SIGUSR1 to any process ends all processes of the run after the
        step in progress, with a checkpoint. They end by KeyboardInterrupt for SIGINT, otherwise
        with exit code 128 + number. A second signal ends them at once.

        Args:
            resume: Whether to resume from the newest checkpoint of the results folder; 'auto'
                starts a new run if the folder holds none.
            resume_from: Step of the checkpoint to resume from instead. Later ones are moved aside.
            init_from: Run, checkpoint or export with whose averaged weights a new run starts.
                Weights of another shape keep their initial values; a warning names them.

        Raises:
            ValueError: If the results folder holds a run and resume is not set, holds nothing to
                resume or a run of another model, or is in use; if no weights of `init_from` fit; or
                if the disk has no space for the checkpoints.
            FloatingPointError: If a step is not finite; it changes nothing.
            OSError: If a file cannot be written.
        """
        start = Start(resume, resume_from, init_from)
        checkpoint = self.check(start)
        weights = start.weights(self.model) if checkpoint is None else None
        with (
            ended_in_words(self.state, self.results_folder),
            cached(self.dataset, self.loading.cache, self.accelerator) as dataset,
            locked(self.results_folder, self.accelerator),
        ):
            all_data = one_pass(dataset, self.batch_size, self.accelerator.device)
            self.state.begin(checkpoint, all_data, weights)
            self.tasks.begin(checkpoint)
            start.set_later_aside(self.results_folder, self.accelerator)
            seed, first = mix(self.seed, Purpose.ORDER), self.state.step * self.take_step.accumulate
            order = self.batch_size, seed, first, self.accelerator
            load = partial(self.loading.batches, dataset, *order)
            self.budget.measure(self.take_step, self.state, load, self.compute.timeout)
            self.announce()
            begun = TrainingLog.of(self, checkpoint)
            with NotedSignals() as signals, begun as log, load() as batches:
                late = None if self.state.skips_steps else False
                guard = Guard(self.accelerator, signals, late, self.compute.timeout)
                try:
                    if checkpoint is not None:
                        self.tasks.do_left(checkpoint, guard, log)
                    self._loop(batches, guard, log)
                except BaseException as error:
                    save = partial(self.tasks.save, log, {})
                    find = partial(batches.find_cause, check=self.model.check)
                    leave(error, self.state, self.tasks.saved, guard, save, find)
                    raise

    def _loop(self, batches: Iterator[Any], guard: Guard, log: TrainingLog) -> None:
        """Takes steps, and does the tasks that are due after some of them."""
        asked = self.callbacks.call(lambda one, run: one.on_start(run), guard, log)
        self.every["snapshot"] = self.state.profiles.interval(self.budget.steps)
        last = self.state.step >= self.budget.steps or "stop" in asked
        while not last:
            loss, norm = self.take_step(self.state, batches, guard)
            log.add(loss, norm)
            asked = self.callbacks.call(lambda one, run: one.on_step(run), guard, log, loss)
            last = self.state.step >= self.budget.steps or "stop" in asked
            if due := due_tasks(self.state.step, self.every, last, "save" in asked):
                guard.settle()  # raises if a step was not finite, before anything is written
                self.tasks.do(due, guard, log)
        self.callbacks.call(lambda one, run: one.on_end(run), guard, log)

    def summary(self) -> str:
        """Returns what the run is about to do: data, model, device, steps and places, in lines."""
        return summary(Outline.of(self))

    def save(self) -> None:
        """Writes a checkpoint of the current state between calls of `train`.

        Raises:
            ValueError: If no step was taken, or in a callback, which has `run.save()`.
        """
        with locked(self.results_folder, self.accelerator):
            self.tasks.save_between(self.callbacks.are_called, self.compute.timeout)

    def check(self, start: Start | None = None) -> Checkpoint | None:
        """Returns the checkpoint that `train` resumes from; raises its errors, writes nothing."""
        count = -(-self.budget.steps // self.save_every)
        self.saving.check_space(self.results_folder, self.state.size(), count)
        now = self.config, self.order, self.state.slots.name
        checkpoint = (start or Start()).checkpoint(self.results_folder, *now)
        self.budget.resume(checkpoint)
        return checkpoint
