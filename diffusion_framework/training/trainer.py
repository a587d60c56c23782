"""The training loop."""

from __future__ import annotations

import math
import os
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from ema_pytorch import EMA
from torch import Tensor
from torch.utils.data import Dataset

from ..checkpoint import Checkpoint, list_checkpoints, newest_whole_checkpoint, write_checkpoint
from ..config import Configurable
from ..data import ImageFolder
from ..diffusion import GaussianDiffusion, image_seeds
from ..noise import keyed_generator, mix
from ..pictures import save_grid
from .batches import ShuffledBatches, batch_loader, to_device
from .log import TrainingLog
from .optimizer_state import flatten_optimizer, restore_optimizer
from .settings import check_options, differences, run_config
from .validation import best_steps, validate

_ORDER, _FLIP, _COIN, _NOISE, _SAMPLE, _DROPOUT = range(6)  # what a key of the run's seed is for


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
        amp: Train in mixed precision.
        mixed_precision_type: With amp: 'fp16' or 'bf16'.
        split_batches: See train_batch_size.
        convert_image_to: Pillow mode that images of a folder are converted to first, such as 'L'.
        seed: Of everything random.
        lr_schedule: How the learning rate goes on after the warm-up: 'constant', 'linear' or 'cosine' (both to 0).
        warmup_steps: Steps over which the learning rate rises from 0.
        num_workers: Processes that load images, for each training process; 0 loads in the training process itself.
        compile: Compile the network with torch.compile.
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
        amp: bool = False,
        mixed_precision_type: Literal["fp16", "bf16"] = "fp16",
        split_batches: bool = True,
        convert_image_to: str | None = None,
        seed: int = 0,
        lr_schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup_steps: int = 0,
        num_workers: int = 2,
        compile: bool = False,
        sampling_steps: int = 50,
        log_every: int = 50,
        keep_checkpoints: int = 3,
        keep_best: int = 0,
        best_metric: str = "validation_loss",
        validation_samples: int = 1000,
        progress: bool = True,
    ) -> None:
        check_options(locals())
        AcceleratorState._reset_state()  # else a second trainer of one process could not have another precision
        self.accelerator = Accelerator(
            mixed_precision=mixed_precision_type if amp else None,  # None: as accelerate was launched
            log_with="tensorboard",
            project_dir=os.fspath(results_folder),
        )
        world = self.accelerator.num_processes
        self.batch_size = train_batch_size if split_batches else train_batch_size * world
        if self.batch_size % world:
            raise ValueError(
                f"train_batch_size {train_batch_size} cannot be split over {world} processes; "
                "make it divisible, or set split_batches to false"
            )
        if keep_best and validation is None:
            raise ValueError("keep_best needs validation data to tell which is best; give validation, or set it to 0")
        self.dataset: Any = folder
        self.validation, self.validation_samples = validation, validation_samples
        self.keep_best, self.best_metric = keep_best, best_metric
        if isinstance(folder, str | os.PathLike):
            if len(diffusion.sample_shape) != 3:
                raise ValueError(
                    f"a folder of images is no data for a network of samples {diffusion.sample_shape}; give a dataset"
                )
            channels, height, width = diffusion.sample_shape
            self.dataset = ImageFolder(folder, (height, width), channels, convert_image_to=convert_image_to)
        elif convert_image_to is not None:
            raise ValueError("convert_image_to goes with a folder given by its path; set it on the dataset instead")
        self.results_folder = Path(results_folder)
        self._check_data(diffusion)

        self.accumulate, self.flip = gradient_accumulate_every, augment_horizontal_flip
        self.lr, self.lr_schedule, self.warmup_steps = train_lr, lr_schedule, warmup_steps
        self.num_steps, self.max_grad_norm, self.seed = train_num_steps, max_grad_norm, seed
        self.save_every, self.log_every, self.keep = save_and_sample_every, log_every, keep_checkpoints
        self.num_samples, self.sampling_steps, self.progress = num_samples, sampling_steps, progress
        self.num_workers = num_workers

        self.step = 0
        self.config = run_config(self, self.dataset, diffusion)
        self.device = self.accelerator.device
        diffusion.fit(self.dataset)
        self.precision = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.accelerator.mixed_precision)
        self.diffusion = diffusion.to(self.device)
        # Made on the device rather than moved there: its step counter then stays on the CPU, where reading it is free.
        self.ema = EMA(
            self.diffusion,
            beta=ema_decay,
            inv_gamma=ema_inv_gamma,
            power=ema_power,
            update_every=ema_update_every,
            include_online_model=False,
            use_foreach=True,
        )
        if compile:
            self.diffusion.model.compile()
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            self.diffusion.parameters(),
            lr=train_lr,
            betas=(betas[0], betas[1]),
            weight_decay=weight_decay,
            fused=fused,
        )
        self.model, self.optimizer = self.accelerator.prepare(self.diffusion, optimizer)

    def _check_data(self, diffusion: GaussianDiffusion) -> None:
        names = getattr(self.dataset, "class_names", None)
        classes = getattr(diffusion.model, "num_classes", None)
        if names is not None and len(names) != (classes or 0):
            raise ValueError(
                f"the data has {len(names)} classes, the network {classes}: set its num_classes to match "
                "(and labels of the data to true, for classes)"
            )
        folder = getattr(self.dataset, "folder", None)
        if folder is not None and self.results_folder.resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"results_folder {self.results_folder} lies inside the data folder {folder}, and its pictures would be "
                "trained on; choose another"
            )
        if len(self.dataset) < self.batch_size:
            raise ValueError(
                f"{self.dataset} has {len(self.dataset)} images, fewer than a batch of {self.batch_size}: "
                "add images or lower train_batch_size"
            )

    def train(self, resume: bool = False) -> None:
        """Train to train_num_steps.

        Args:
            resume: Go on from the newest checkpoint of the results folder, or start if there is none.

        Raises:
            ValueError: the results folder holds a run and resume is not set, or holds one of another model.
            FloatingPointError: the loss or the gradient is no longer finite. Nothing of that step is saved.
        """
        if checkpoint := self.check(resume):
            self._load(checkpoint)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.results_folder.mkdir(parents=True, exist_ok=True)
        self.accelerator.init_trackers("tensorboard")
        images_per_step = self.batch_size * self.accumulate
        log = TrainingLog(
            self.results_folder, self.accelerator, self.step, self.num_steps, images_per_step, self.progress
        )
        batches = self._batches()
        try:
            while self.step < self.num_steps:
                log.add(*self._train_step(batches))
                self.step += 1
                saves = self.step % self.save_every == 0 or self.step == self.num_steps
                if saves or self.step % self.log_every == 0:
                    self._check_finite(*log.write(self.step, self.optimizer.param_groups[0]["lr"]))
                if saves:
                    began = time.perf_counter()
                    metrics = self._validate()
                    log.write_metrics(self.step, metrics)
                    self._save(metrics)
                    self._sample_grid()
                    log.pause(time.perf_counter() - began)
        finally:
            log.close()
            self.accelerator.end_training()

    def check(self, resume: bool = False) -> Checkpoint | None:
        """Raise what `train` would raise before its first step, writing nothing. Returns what it would resume from."""
        if not list_checkpoints(self.results_folder):
            return None
        if not resume:
            raise ValueError(f"{self.results_folder} already holds a run; resume it, or choose another results_folder")
        checkpoint = newest_whole_checkpoint(self.results_folder)
        if different := list(differences(checkpoint.config["diffusion"], self.config["diffusion"])):
            raise ValueError(
                f"{checkpoint.path} is of another model ({'; '.join(different)}); resume it with its own settings, or "
                "choose another results_folder"
            )
        if different := list(differences(checkpoint.state["order"], self._order())):
            warnings.warn(f"not the same run as before: {'; '.join(different)}", stacklevel=2)
        return checkpoint

    def _order(self) -> dict[str, Any]:
        """What decides which images a step sees, and with what noise."""
        fingerprint = getattr(self.dataset, "fingerprint", lambda: len(self.dataset))
        images_per_step = self.batch_size * self.accumulate
        return {"seed": self.seed, "images per step": images_per_step, "images": fingerprint()}

    def _train_step(self, batches: Iterator[Any]) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns its loss and gradient norm, on the device. Waits for nothing there."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self._lr_factor(self.step)
        total = torch.zeros((), device=self.device)
        for micro in range(self.accumulate):
            key = (self.step, micro)
            # One coin for all processes, so that none waits for another's extra pass.
            coin = random.Random(mix(self.seed, _COIN, *key)).random() < self.diffusion.train_prob_self_cond
            # dropout can only draw from torch's own generator
            torch.manual_seed(mix(self.seed, _DROPOUT, *key, self.accelerator.process_index))
            flip = self._generator(_FLIP, *key) if self.flip else None
            images, condition = to_device(next(batches), self.device, flip)
            last = micro == self.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):  # the processes meet once a step
                generator = self._generator(_NOISE, *key)
                loss = self.model(images, generator=generator, self_condition=coin, **condition) / self.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return total, norm

    def _generator(self, *keys: int) -> torch.Generator:
        return keyed_generator(self.device, self.seed, *keys, self.accelerator.process_index)

    def _batches(self) -> Iterator[Any]:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        order = ShuffledBatches(
            len(self.dataset),
            self.batch_size,
            mix(self.seed, _ORDER),
            self.step * self.accumulate,
            rank,
            world,
        )
        return iter(batch_loader(self.dataset, order, self.num_workers, pin_memory=self.device.type == "cuda"))

    def _lr_factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return 1.0
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return 1 - progress if self.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

    def _check_finite(self, loss: float, norm: float) -> None:
        # fp16 overflows now and then, and its gradient scaler then skips the step by itself
        if math.isfinite(loss) and (math.isfinite(norm) or self.precision is torch.float16):
            return
        raise FloatingPointError(
            f"loss {loss} and gradient norm {norm} by step {self.step}; lower train_lr or use bf16 instead of fp16, "
            "and resume from the last checkpoint"
        )

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        metrics = validate(
            self.ema.ema_model, self.validation, self.validation_samples, self.batch_size, self.accelerator, self.seed
        )
        if self.keep_best and self.best_metric not in metrics:
            raise ValueError(f"best_metric must be one of {', '.join(metrics)}; got {self.best_metric!r}")
        return metrics

    def _save(self, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            tensors, numbers = flatten_optimizer(self.optimizer)
            scaler = self.accelerator.scaler
            write_checkpoint(
                self.results_folder,
                self.step,
                tensors={
                    "model": self.diffusion.state_dict(),
                    "ema": self.ema.ema_model.state_dict(),
                    "optimizer": tensors,
                },
                config=self.config,
                state={
                    "optimizer": numbers,
                    "order": self._order(),
                    "ema_step": int(self.ema.step),
                    "scaler": scaler.state_dict() if scaler is not None else None,
                    "metrics": metrics,
                },
                keep=self.keep,
                spare=best_steps(self.results_folder, self.best_metric, self.keep_best, self.step, metrics),
            )
        self.accelerator.wait_for_everyone()

    def _load(self, checkpoint: Checkpoint) -> None:
        checkpoint.load_weights(self.diffusion, "model")
        checkpoint.load_weights(self.ema.ema_model, "ema")
        state = checkpoint.state
        restore_optimizer(self.optimizer, checkpoint.tensors("optimizer"), state["optimizer"])
        self.ema.step.fill_(state["ema_step"])
        self.ema.initted.fill_(True)
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = checkpoint.step
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(f"the processes would resume from steps {steps}; give all of them the same results_folder")

    def _sample_grid(self) -> None:
        """Sample on all processes, from the averaged weights; image i has the same noise in every grid."""
        if len(self.diffusion.sample_shape) != 3:
            return  # no images
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = math.ceil(self.num_samples / world)
        indices = [min(rank * share + i, self.num_samples - 1) for i in range(share)]
        condition = {}
        if classes := getattr(self.diffusion.model, "num_classes", None):
            condition["labels"] = torch.tensor([i % classes for i in indices], device=self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            images = self.ema.ema_model.sample(
                share,
                steps=self.sampling_steps,
                seed=image_seeds(mix(self.seed, _SAMPLE), indices),
                progress=False,
                **condition,
            )
        images = self.accelerator.gather(images)[: self.num_samples]
        if self.accelerator.is_main_process:
            path = self.results_folder / "samples" / f"step-{self.step:08d}.png"
            save_grid(images, path, columns=self.diffusion.num_classes)  # a class a column
