"""The command of scripts/train.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ..data import TrainingDataset
from ..parts import options
from ..policies import Policy
from ..storage.building import check_size
from ..storage.checkpoint import Checkpoint, list_checkpoints, step_of
from ..trainable import Trainable
from ..training import Trainer
from ..training.rehearsal import rehearsed
from ..training.starting import Start
from ..training.summary import ending
from .common import Tree, run

DEFAULTS = {
    "data": {"class_path": "ImageFolder"},
    "diffusion": {
        "class_path": "GaussianDiffusion",
        "init_args": {"model": {"class_path": "UNet"}},
    },
    "trainer": {},
}
_FROM_MODEL = {
    "image_size": "--diffusion.model.image_size",
    "channels": "--diffusion.model.channels",
    **dict.fromkeys(("horizon", "observation_steps", "action_steps"), "the policy"),
}
GIVEN = {
    "data": _FROM_MODEL,
    "validation": _FROM_MODEL,
    "trainer": {
        "model": "--diffusion",
        "folder_or_dataset": "--data",
        "validation": "--validation",
        "convert_image_to": "--data.convert_image_to",
    },
}


def train(argv: Sequence[str], default_config: Path) -> None:
    """Runs scripts/train.py.

    Args:
        argv: Command line, without the program.
        default_config: Config to use where the command line names neither a config nor data.
    """
    base_config = partial(_base_config, default_config)
    run(_train, argv, "train.py", defaults=DEFAULTS, given=GIVEN, base_config=base_config)


def _train(
    *,
    data: TrainingDataset,
    diffusion: Trainable,
    trainer: Trainer,
    validation: TrainingDataset | None = None,
    resume: bool | Literal["auto"] = False,
    resume_from: int | None = None,
    init_from: str | None = None,
    dry_run: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Trains a diffusion model on a folder of images, or without options on handwritten digits.

      train.py --data.folder PATH --diffusion.model.image_size 64 --trainer.results_folder PATH
      train.py --config configs/flowers64.yaml --data.folder PATH

    A part is chosen by name (--diffusion.model DiT) and has its own options
    (--diffusion.model.dim 64). `--config FILE` reads options from a file, and flags override it.

    Args:
        data: Dataset of images or other samples to train on.
        diffusion: Model, with its network, noise schedule, objective and loss.
        trainer: Options of the training loop, such as steps, batch size and learning rate.
        validation: Held-out dataset to validate on.
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
        "validation": validation,
    }
    check_size(plans["diffusion"])
    seed = plans["trainer"].options.get("seed", options(Trainer)["seed"].default)
    torch.manual_seed(seed)  # for the initial weights
    model = plans["diffusion"].build()
    channels, *size = model.sample_shape
    from_model = {"channels": channels, "image_size": tuple(size)}
    if isinstance(model, Policy):
        from_model |= model.data_options
    built = {
        name: plans[name].build(**from_model)
        for name in ("data", "validation")
        if plans[name] is not None
    }
    run = plans["trainer"].build(
        model=model, folder_or_dataset=built["data"], validation=built.get("validation")
    )
    if dry_run:
        run.check(Start(resume, resume_from, init_from))
        told = f"{run.summary()}\n{rehearsed(run)}\ndry run: nothing was written"
    else:
        run.announces = True
        run.train(resume=resume, resume_from=resume_from, init_from=init_from)
        told = ending(run.outline)
    if run.accelerator.is_main_process:
        print(told)


def _base_config(
    default_config: Path, tree: Tree, config_named: bool, read: Callable[[Path], Tree]
) -> Tree:
    """Returns the config that lies below the flags: of the resumed run, or else the default.

    The default config serves only where the flags name neither a config nor data.
    """
    data = tree.get("data")
    names_data = isinstance(data, str) or (
        isinstance(data, dict) and not {"class_path", "folder"}.isdisjoint(data)
    )
    found = {} if config_named or names_data else read(default_config)
    step = str(tree.get("resume_from", ""))
    if str(tree.get("resume")) in ("true", "auto") or step.isdecimal():
        trainer = {**_options(found.get("trainer")), **_options(tree.get("trainer"))}
        folder = str(trainer.get("results_folder", options(Trainer)["results_folder"].default))
        if stored := _stored_config(folder, int(step) if step.isdecimal() else None):
            config = read(stored)
            config["trainer"] = {**_options(config.get("trainer")), "results_folder": folder}
            return config
    return found


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
