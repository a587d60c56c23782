"""Checks, records and compares the options of a run."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import TrainingDataset
from ..data.loading.loader import to_device
from ..parts.counting import counted
from ..storage.config import RecordsArguments, to_config
from ..storage.opening import warn_how_to_open
from ..storage.run_paths import relative_to_run
from ..trainable import Trainable
from .checks import expect

_PLAIN: Mapping[type, tuple[Any, str]] = {
    bool: ((bool, np.bool_), "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


def check_types(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of the Trainer of another type than its default."""
    model, betas, minutes = (options[name] for name in ("model", "betas", "minutes"))
    fix = "wrap the network, as in GaussianDiffusion(network)"
    expect(isinstance(model, Trainable), "a model to train", _kind(model), fix)
    for name, parameter in inspect.signature(type(options["self"])).parameters.items():
        default, value = parameter.default, options[name]
        if dataclasses.is_dataclass(default):
            kind = type(default).__name__
            fields = dataclasses.fields(default)
            off = any(field.name == "every" and field.default is None for field in fields)
            fix = f"give {kind}(...)" + (f"; {kind}(every=0) switches it off" if off else "")
            expect(isinstance(value, type(default)), f"{name} as {kind}", value, fix)
            for field in fields:
                _check_plain(f"{name}.{field.name}", vars(value)[field.name], field.default)
        _check_plain(name, value, default)
    fits = minutes is None or isinstance(minutes, Real)
    expect(fits, "minutes as a number", minutes, "set it to None to count steps")
    fits = isinstance(betas, tuple | list) and len(betas) == 2
    expect(fits, "betas as two numbers", betas, "give (0.9, 0.99)")


def _check_plain(name: str, value: Any, default: Any) -> None:
    """Raises ValueError if a number or switch is of another type than its default."""
    if name.endswith((".every", ".sampling_steps")):
        fits = value is None or isinstance(value, Integral)
        fix = "or 0 to switch it off" if name.endswith(".every") else "or None for the default"
        expect(fits, f"{name} as a whole number", value, f"give one, {fix}")
    elif type(default) in _PLAIN:
        kinds, wanted = _PLAIN[type(default)]
        fits = isinstance(value, kinds) and (isinstance(default, bool) or value is not True)
        expect(fits, f"{name} as {wanted}", value, f"give a value like {default}")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of the Trainer itself that is out of range."""
    check_types(options)
    counts = (
        "train_batch_size gradient_accumulate_every train_num_steps ema_update_every "
        "save_and_sample_every num_samples"
    )
    for names, fits, wanted, fix in (
        (counts, lambda value: value >= 1, "of at least 1", "choose a whole number above 0"),
        ("weight_decay", lambda value: value >= 0, "of at least 0", "set it to 0 for none"),
        (
            "train_lr max_grad_norm",
            lambda value: 0 < value < math.inf,
            "above 0",
            "choose a positive number",
        ),
        (
            "ema_decay",
            lambda value: 0 <= value <= 1,
            "in [0, 1]",
            "choose 0.995, which suits most runs",
        ),
    ):
        for name in names.split():
            expect(fits(options[name]), f"{name} {wanted}", options[name], fix)
    parameters = inspect.signature(type(options["self"])).parameters
    for name in ("betas", "weight_decay"):
        ours = options["optimizer"] is None or np.array_equal(
            options[name], parameters[name].default
        )
        fix = f"give {name} in optimizer_options, or to the optimizer itself"
        expect(ours, f"no {name} with another optimizer", options[name], fix)
    minutes = options["minutes"]
    is_time = minutes is None or 0 < minutes < math.inf
    expect(is_time, "minutes above 0", minutes, "set it to None to count steps")


def check_data(
    dataset: TrainingDataset,
    held_out: TrainingDataset | None,
    model: Trainable,
    results_folder: Path,
    batch_size: int,
    num_processes: int,
) -> None:
    """Raises ValueError for data that does not fit the model, the results folder or the batch size.

    `batch_size` counts the samples of all processes together.
    """
    fix = "choose a multiple, or set split_batches to false"
    wanted = f"train_batch_size divisible by {num_processes} processes"
    expect(batch_size % num_processes == 0, wanted, batch_size, fix)
    folder = dataset.folder
    if folder is not None and results_folder.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(
            f"Expected results_folder outside of the data folder {folder}, got {results_folder}. "
            "Fix: choose another results_folder; its previews would be trained on."
        )
    if len(dataset) < batch_size:
        place = "" if folder is None else f" in {folder}"
        raise ValueError(
            f"Expected at least a batch of {counted(batch_size, 'sample')}, got "
            f"{counted(len(dataset), 'sample')}{place}. Fix: add samples, or lower "
            "train_batch_size."
        )
    _check_samples(model, dataset, held_out)


def _check_samples(model: Trainable, *datasets: TrainingDataset | None) -> None:
    """Raises ValueError if the model refuses the first sample of a dataset."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for dataset in datasets:
        if dataset is None:
            continue
        data, condition = to_device(dataset.take(np.zeros(1, int)), device)
        if dataset.class_names:  # the highest label fits only if all labels do
            highest = torch.full_like(condition["labels"], len(dataset.class_names) - 1)
            condition = {**condition, "labels": highest}
        model.check(data, **condition)


def run_config(
    trainer: RecordsArguments,
    model: Trainable,
    dataset: TrainingDataset,
    validation: TrainingDataset | None,
) -> dict[str, Any]:
    """Returns all options that build the run, in the form that `diffusion train` reads.

    Paths of the data are relative to the results folder, which itself is left out: it is where the
    checkpoint lies.
    """
    parts = {"model", "folder_or_dataset", "validation", "convert_image_to", "results_folder"}
    parts |= {"callbacks"}
    folder = Path(trainer._init_args["results_folder"])
    options = {  # groups become plain mappings
        name: dict(vars(value)) if dataclasses.is_dataclass(value) else value
        for name, value in trainer._init_args.items()
        if name not in parts
    }
    options["learning_rate"]["schedule"] = trainer._init_args["learning_rate"].described
    options["optimizer"] = None  # named once it is made
    config = {"data": dataset, "diffusion": model, "trainer": options}
    share = trainer._init_args["validation"]
    held_out = share if isinstance(share, float) else validation
    described = to_config(config if held_out is None else {**config, "validation": held_out})
    for name in ("data", "validation"):
        if isinstance(described.get(name), dict):
            described[name] = relative_to_run(described[name], folder)
    warn_how_to_open(described["diffusion"], {type(n).__name__ for n in model.networks}, 3)
    return described


def run_order(
    seed: int, images_per_step: int, dataset: TrainingDataset, precision: str
) -> dict[str, Any]:
    """Returns the values that determine the samples, noise and precision of each step."""
    order = {"seed": seed, "images per step": images_per_step}
    return {**order, "images": dataset.fingerprint(), "precision": precision}


def run_numbers(dataset: TrainingDataset, order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint holds of the data, as plain data."""
    names = [*(dataset.class_names or ())]
    return {"samples": len(dataset), "class_names": names, "order": order}


def changed_options(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """Yields changed options that affect a resumed run, as "group.key: theirs before, ours now"."""
    matter = (
        "augment_horizontal_flip train_lr train_num_steps minutes max_grad_norm ema_update_every "
        "ema_decay betas weight_decay optimizer optimizer_options ema learning_rate compute"
    )
    before, now = ({key: config.get(key) for key in matter.split()} for config in (theirs, ours))
    yield from differences(before, now)


def changed_data(theirs: Any, ours: Any, at: str) -> Iterator[str]:
    """Yields changed options of a dataset, except for its place, like `differences`."""
    places = tuple(
        f"{at}.{name}:" for name in ("folder", "pairs", "shards", "cache_folder", "keep")
    )
    yield from (one for one in differences(theirs, ours, at) if not one.startswith(places))


def differences(theirs: Any, ours: Any, at: str = "") -> Iterator[str]:
    """Yields the differences between two configs, as "key: theirs before, ours now"."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*theirs, *ours)):
            name = at if key == "init_args" else f"{at}.{key}".lstrip(".")
            yield from differences(theirs.get(key), ours.get(key), name)
    elif theirs != ours:
        yield f"{at}: {theirs} before, {ours} now"
