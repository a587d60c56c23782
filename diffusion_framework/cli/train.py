"""The command that trains a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ..data import TrainingDataset
from ..parts import Plan, options
from ..policies import Policy
from ..recipes import recipe_folder
from ..storage.building import check_size
from ..storage.checkpoint import Checkpoint, list_checkpoints, step_of
from ..trainable import Trainable
from ..training import Trainer
from ..training.rehearsal import rehearsed
from ..training.starting import Start
from ..training.summary import Outline, ending, summary
from .automatic import EXAMPLE, automatic, fits
from .common import AUTOMATIC, Below, Tree
from .words import overlay

DEFAULT_RECIPE = "digits.yaml"
_SHARE = 0.1  # of the data, held out by --validation alone


def train(
    *,
    data: TrainingDataset,
    diffusion: Trainable,
    trainer: Trainer,
    validation: TrainingDataset | float | bool | None = None,
    resume: bool | Literal["auto"] = False,
    resume_from: int | None = None,
    init_from: str | None = None,
    dry_run: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Trains a diffusion model on a folder of images, or without options on handwritten digits.

    Images may lie in subfolders; `--data` names other kinds of data. A part is chosen by name
    (--diffusion.model DiT) and has its own options (--diffusion.model.dim 64).

    Examples:
      diffusion train photos                                     settings that suit them
      diffusion train photos --diffusion.model.image_size 128 --trainer.minutes 600
      diffusion train photos --config edm --resume auto          a recipe; see `diffusion recipes`

    Args:
        data: Dataset of images or other samples to train on.
        diffusion: Model, with its network, noise schedule, objective and loss.
        trainer: Options of the training loop, such as steps, batch size and learning rate.
        validation: Held-out dataset to validate on, or the share of the training data to hold out,
            such as 0.1; true, or the flag alone, holds out a tenth.
        resume: Whether to resume from the newest checkpoint of the results folder, with its
            settings where no others are given: true, false, or auto, which starts a new run if
            the folder holds none.
        resume_from: Step of the checkpoint to resume from instead. Later ones are moved aside.
        init_from: Run, checkpoint or export with whose averaged weights a new run starts. Its
            network may have another image_size; weights of another shape start new.
        dry_run: Whether to stop before the first step and say what it would take: memory, time and
            floating-point operations. Nothing is written.
        trust: Packages whose classes the files may name; their code then runs.
    """
    plans: Any = {
        "data": data,
        "diffusion": diffusion,
        "trainer": trainer,
    }
    check_size(plans["diffusion"])
    seed = plans["trainer"].options.get("seed", options(Trainer)["seed"].default)
    torch.manual_seed(seed)  # for the initial weights
    model = plans["diffusion"].build()
    channels, *size = model.sample_shape
    from_model = {"channels": channels, "image_size": tuple(size)}
    if isinstance(model, Policy):
        from_model |= model.data_options
    held_out: Any = validation
    if isinstance(held_out, bool):
        held_out = _SHARE if held_out else None
    elif isinstance(held_out, Plan):
        held_out = held_out.build(**from_model)
    run = plans["trainer"].build(
        model=model, folder_or_dataset=plans["data"].build(**from_model), validation=held_out
    )
    _run(run, Start(resume, resume_from, init_from), dry_run)


def _run(run: Trainer, start: Start, dry_run: bool) -> None:
    """Trains, or measures a step, and prints what the main process has to say."""
    main = run.accelerator.is_main_process
    if dry_run:
        checkpoint = run.check(start)
        outline = Outline.of(run, None if checkpoint is None else checkpoint.step)
        if main:
            print(f"{summary(outline)}\nmeasuring a step ...", flush=True)
        told = f"{rehearsed(run, outline.step)}\ndry run: nothing was written"
    else:
        if main:
            run.announce = lambda: print(run.summary(), flush=True)
        run.train(resume=start.resume, resume_from=start.resume_from, init_from=start.init_from)
        told = ending(Outline.of(run))
    if main:
        print(told)


def base_config(tree: Tree, configs: Sequence[str], read: Callable[[Path], Tree]) -> Below:
    """Returns the config that lies below the flags.

    It is that of the resumed run. Otherwise, unless the flags name a config, it is that of the
    digits without data, or the recipe `auto` for a folder of images. The results folder has the
    name of the recipe or of the data, unless one is given. Options of the validation alone are
    those of a dataset like the data.

    Args:
        tree: Options of the flags and of the named configs.
        configs: Named configs.
        read: Function that reads a config file.
    """
    data, configs = tree.get("data"), [name for name in configs if name != AUTOMATIC]
    names_data = isinstance(data, str) or (
        isinstance(data, dict) and not {"class_path", "folder"}.isdisjoint(data)
    )
    found = {} if configs or names_data else read(recipe_folder() / DEFAULT_RECIPE)
    held_out = _options(tree.get("validation"))
    if held_out and "class_path" not in held_out:
        kind = data if isinstance(data, str) else _options(data).get("class_path")
        found = {**found, "validation": {"class_path": kind or "ImageFolder"}}
    below = {name: value for name, value in found.items() if name == "validation"}
    if name := _run_name(data, configs):
        trainer = {"results_folder": f"results/{name}", **_options(found.get("trainer"))}
        found = {**found, "trainer": trainer}
    step = str(tree.get("resume_from", ""))
    if str(tree.get("resume")) in ("true", "auto") or step.isdecimal():
        trainer = {**_options(found.get("trainer")), **_options(tree.get("trainer"))}
        folder = str(trainer.get("results_folder", options(Trainer)["results_folder"].default))
        if stored := _stored_config(folder, int(step) if step.isdecimal() else None):
            config = read(stored)
            config["trainer"] = {**_options(config.get("trainer")), "results_folder": folder}
            return Below({**below, **config})
    if configs or not fits(tree):
        return Below(found)

    def choose() -> tuple[Tree, list[str]]:
        chosen, lines = automatic(tree)
        return overlay(chosen, found), lines

    return Below(overlay(EXAMPLE, found), choose)


def _run_name(data: Any, configs: Sequence[str]) -> str:
    """Returns the name of a new run: that of its config, or of its data."""
    if configs:
        return Path(configs[-1]).stem
    options = _options(data)
    folder = _options(options.get("init_args", options)).get("folder")
    name = Path(os.path.abspath(str(folder))).name if folder else ""
    return name or str(data if isinstance(data, str) else options.get("class_path", "")).lower()


def _options(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _stored_config(results_folder: str, step: int | None = None) -> Path | None:
    """Returns the config of the newest checkpoint, up to a step, whose config can be read."""
    for path in reversed(list_checkpoints(results_folder)):
        if step is not None and step_of(path) > step:
            continue
        try:
            if Checkpoint.open(path).config:
                return path / "config.yaml"
        except ValueError:
            continue  # the Trainer warns of the damage
    return None
