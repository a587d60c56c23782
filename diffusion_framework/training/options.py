"""The settings of a run: checked, written down, and compared with those of a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..diffusion import GaussianDiffusion
from ..storage.config import RecordsArguments, to_config
from .checks import expect


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of the Trainer, outside of the groups, that is out of range."""
    counts = (
        "train_batch_size gradient_accumulate_every train_num_steps ema_update_every save_and_sample_every num_samples"
    )
    for names, fits, wanted, fix in (
        (counts, lambda value: value >= 1, "of at least 1", "give a whole number above 0"),
        ("weight_decay", lambda value: value >= 0, "of at least 0", "0 for none"),
        ("train_lr max_grad_norm", lambda value: 0 < value < math.inf, "above 0", "give one"),
        ("ema_decay", lambda value: 0 <= value <= 1, "in [0, 1]", "0.995 suits most runs"),
    ):
        for name in names.split():
            expect(fits(options[name]), f"{name} {wanted}", options[name], fix)
    minutes = options["minutes"]
    expect(minutes is None or minutes > 0, "minutes above 0", minutes, "leave it out for no limit")


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


def run_config(trainer: RecordsArguments, dataset: Any, model: GaussianDiffusion) -> dict[str, Any]:
    """Returns everything that built the run, in the form that scripts/train.py reads."""
    options: dict[str, Any] = {
        name: vars(value) if dataclasses.is_dataclass(value) else value  # a group as a plain mapping
        for name, value in trainer._init_args.items()
    }
    for name in ("model", "folder_or_dataset", "convert_image_to"):
        del options[name]
    validation = trainer._init_args["validation"]
    del options["validation"]
    config = {"data": dataset, "diffusion": model, "trainer": options}
    return to_config(config if validation is None else {**config, "validation": validation})


def changed_options(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """Yields options that make a resumed run go on in another way, as "group.key: theirs, not ours"."""
    matter = (
        "augment_horizontal_flip train_lr train_num_steps max_grad_norm ema_update_every ema_decay "
        "betas weight_decay ema learning_rate"
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
