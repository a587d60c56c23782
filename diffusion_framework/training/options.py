"""The settings of a run: checked, written down, and compared with those of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..diffusion import GaussianDiffusion
from ..storage.config import Configurable, to_config


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options of the Trainer that are out of range."""
    at_least_one = (
        "train_batch_size gradient_accumulate_every train_num_steps ema_update_every save_and_sample_every "
        "num_samples sampling_steps log_every keep_checkpoints validation_samples"
    )
    for names, fits, wanted in (
        (at_least_one, lambda value: value >= 1, "be at least 1"),
        ("warmup_steps num_workers weight_decay keep_best", lambda value: value >= 0, "not be negative"),
        ("train_lr max_grad_norm ema_inv_gamma ema_power", lambda value: 0 < value < math.inf, "be above 0"),
        ("ema_decay", lambda value: 0 <= value <= 1, "lie in [0, 1]"),
    ):
        for name in names.split():
            if not fits(options[name]):
                raise ValueError(f"{name} must {wanted}; got {options[name]}")
    if options["lr_schedule"] not in ("constant", "linear", "cosine"):
        raise ValueError(f"lr_schedule must be constant, linear or cosine; got {options['lr_schedule']!r}")


def check_launch(accelerator: Accelerator, shard: bool) -> None:
    """Raise ValueError for ways of spreading a model over processes whose runs could not be saved and resumed here."""
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"):
        raise ValueError(
            f"{accelerator.distributed_type.value} of accelerate is not supported; launch plain processes (accelerate "
            "launch --multi_gpu, or torchrun), and set shard to true where the model is too large for one device"
        )
    if shard and accelerator.mixed_precision == "fp16":
        raise ValueError("shard goes with bf16 or float32, not with fp16; set mixed_precision to bf16")


def check_data(
    dataset: Any, diffusion: GaussianDiffusion, results_folder: Path, batch_size: int, num_processes: int
) -> None:
    """Raise ValueError if these do not go together; batch_size is that of all processes."""
    if batch_size % num_processes:
        raise ValueError(
            f"train_batch_size {batch_size} cannot be split over {num_processes} processes; "
            "make it divisible, or set split_batches to false"
        )
    names = getattr(dataset, "class_names", None)
    classes = getattr(diffusion.model, "num_classes", None)
    if names is not None and len(names) != (classes or 0):
        raise ValueError(
            f"the data has {len(names)} classes, the network {classes}: set its num_classes to match "
            "(and labels of the data to true, for classes)"
        )
    folder = getattr(dataset, "folder", None)
    if folder is not None and results_folder.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(
            f"results_folder {results_folder} lies inside the data folder {folder}, and its pictures would be "
            "trained on; choose another"
        )
    if len(dataset) < batch_size:
        raise ValueError(
            f"{dataset} has {len(dataset)} images, fewer than a batch of {batch_size}: "
            "add images or lower train_batch_size"
        )


def run_config(trainer: Configurable, dataset: Any, diffusion: GaussianDiffusion) -> dict[str, Any]:
    """Everything that built the run, in the form that scripts/train.py reads."""
    options, apart = dict(trainer._init_args), {}
    for name in ("diffusion", "folder", "validation", "convert_image_to"):
        apart[name] = options.pop(name)
    config = {"data": dataset, "diffusion": diffusion, "trainer": options}
    if apart["validation"] is not None:
        config["validation"] = apart["validation"]
    return to_config(config)


def changed_options(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """Options of the Trainer that make a resumed run go on in another way, as "key: theirs, not ours"."""
    matter = (
        "augment_horizontal_flip train_lr train_num_steps max_grad_norm ema_update_every ema_decay ema_inv_gamma "
        "ema_power betas weight_decay lr_schedule warmup_steps"
    )
    before, now = ({key: config.get(key) for key in matter.split()} for config in (theirs, ours))
    yield from differences(before, now)


def differences(theirs: Any, ours: Any, at: str = "") -> Iterator[str]:
    """What differs between two configs, as "key: theirs, not ours"."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*theirs, *ours)):
            name = at if key == "init_args" else f"{at}.{key}".lstrip(".")
            yield from differences(theirs.get(key), ours.get(key), name)
    elif theirs != ours:
        yield f"{at}: {theirs}, not {ours}"
