"""scripts/train.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data import TrainingDataset
from ..parts import options
from ..policies import Policy
from ..storage.building import check_size
from ..storage.checkpoint import Checkpoint, list_checkpoints
from ..trainable import Trainable
from ..training import Trainer
from .common import Tree, run

_NETWORK = {"class_path": "UNet"}
DEFAULTS = {
    "data": {"class_path": "ImageFolder"},
    "diffusion": {"class_path": "GaussianDiffusion", "init_args": {"model": _NETWORK}},
    "trainer": {},
}
_SIZE = "the network. Fix: set --diffusion.model.image_size."
_POLICY = "the policy. Fix: set it there."
_LINKS = {
    "image_size": _SIZE,
    "channels": "the network. Fix: set --diffusion.model.channels.",
    "horizon": _POLICY,
    "observation_steps": _POLICY,
    "action_steps": _POLICY,
}
_PARTS = ("model", "folder_or_dataset", "validation", "convert_image_to")
GIVEN = {
    "data": _LINKS,
    "validation": _LINKS,
    "trainer": dict.fromkeys(
        ("model", "folder_or_dataset", "validation", "convert_image_to"), "--diffusion and --data."
    ),
}


def train(argv: Sequence[str], default_config: Path) -> None:
    """Run scripts/train.py.

    Args:
        argv: The command line, without the program.
        default_config: What to train where the command line names neither a config nor data.
    """
    below = partial(_configs_below, default_config)
    run(_train, argv, "train.py", defaults=DEFAULTS, given=GIVEN, below=below)


def _train(
    *,
    data: TrainingDataset,
    diffusion: Trainable,
    trainer: Trainer,
    validation: TrainingDataset | None = None,
    resume: bool = False,
    trust: tuple[str, ...] = (),
) -> None:
    """Train a diffusion model on a folder of images, or without any options on handwritten digits.

      train.py --data.folder PATH --diffusion.model.image_size 64 --trainer.results_folder PATH
      train.py --config configs/flowers64.yaml --data.folder PATH

    A part is chosen by name (--diffusion.model DiT) and has options of its own (--diffusion.model.dim 64).
    `--config FILE` reads options from a file, and flags override it.

    Args:
        data: Images or other samples to train on.
        diffusion: The model, with its network, noise schedule, objective and loss.
        trainer: Steps, batch size, learning rate, precision and what else the training loop needs.
        validation: Held-out samples.
        resume: Go on from the newest checkpoint of the results folder, with its settings where no others are given.
        trust: Packages whose classes the files may name, which runs their code.
    """
    plans: Any = {"data": data, "diffusion": diffusion, "trainer": trainer, "validation": validation}
    check_size(plans["diffusion"])
    torch.manual_seed(plans["trainer"].options.get("seed", options(Trainer)["seed"].default))  # first weights
    model = plans["diffusion"].build()
    channels, *size = model.sample_shape
    links = {"channels": channels, "image_size": tuple(size)}
    if isinstance(model, Policy):
        links |= model.data_options
    built = {name: plans[name].build(**links) for name in ("data", "validation") if plans[name] is not None}
    run = plans["trainer"].build(model=model, folder_or_dataset=built["data"], validation=built.get("validation"))
    run.train(resume=resume)
    if run.accelerator.is_main_process:
        print(f"done: {run.results_folder}; sample with: python scripts/sample.py {run.results_folder} --steps 50")


def _configs_below(default_config: Path, tree: Tree, config_named: bool) -> list[Path]:
    """The configs that lie below the flags: the default one where no data is named, and that of the resumed run."""
    data = tree.get("data")
    names_data = isinstance(data, str) or (isinstance(data, dict) and not {"class_path", "folder"}.isdisjoint(data))
    found = [] if config_named or names_data else [default_config]
    if str(tree.get("resume")) == "true":
        results = (tree.get("trainer") or {}).get("results_folder")
        if results is None and found:
            from ..parts import read_yaml

            results = read_yaml(default_config.read_bytes(), str(default_config))["trainer"]["results_folder"]
        if stored := _stored_config(str(results or options(Trainer)["results_folder"].default)):
            return [stored]
    return found


def _stored_config(results_folder: str) -> Path | None:
    """The config of the newest checkpoint that has a readable one."""
    for path in reversed(list_checkpoints(results_folder)):
        try:
            if Checkpoint.open(path).config:
                return path / "config.yaml"
        except ValueError:
            continue  # the trainer says what is wrong with it
    return None
