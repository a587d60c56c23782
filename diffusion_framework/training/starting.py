"""The start of a run: new, from the weights of another run, or from one of its own checkpoints."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..storage.checkpoint import Checkpoint, list_checkpoints, newest_whole_checkpoint, step_of
from ..storage.config import to_config
from ..storage.writing import set_aside
from ..trainable import Trainable
from .checks import expect
from .distributed import on_main_process
from .environment import environment
from .options import changed_data, changed_options, differences
from .stored import check_profiles, check_stored


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Args:
        resume: Whether to resume from the newest checkpoint of the results folder; 'auto' starts a
            new run if the folder holds none.
        resume_from: Step of the checkpoint to resume from; None for the newest one.
        init_from: Run, checkpoint or export whose weights a new run starts with.

    Raises:
        ValueError: If both resume_from and init_from are given, or resume_from is not a number.
    """

    resume: bool | Literal["auto"] = False
    resume_from: int | None = None
    init_from: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        step = self.resume_from
        fits = step is None or (isinstance(step, Integral) and step is not True)
        expect(fits, "the step of a checkpoint as resume_from", step, "give a number such as 3000")
        fix = "leave one out"
        fits = self.resume_from is None or self.init_from is None
        expect(fits, "resume_from or init_from", "both", fix)

    def checkpoint(
        self, folder: Path, config: Mapping[str, Any], order: Mapping[str, Any], optimizer: str
    ) -> Checkpoint | None:
        """Returns the checkpoint that a run resumes from, or None where a new run may begin.

        A changed setting that affects the resumed run causes a warning.

        Args:
            folder: Results folder.
            config: All options that build this run.
            order: Values that determine the samples, noise and precision of each step of this run.
            optimizer: Import path of the optimizer's class.

        Raises:
            ValueError: If the folder holds a run and resume is not set, a run of another model or
                optimizer, no undamaged checkpoint, none of the step `resume_from`, or nothing to
                resume.
        """
        found = list_checkpoints(folder)
        if self.resume_from is None and not found:
            if self.resume is True:
                raise ValueError(
                    f"Expected a run to resume in {folder}, got no checkpoint. Fix: check "
                    "results_folder, or resume with auto (--resume auto), which starts a new run."
                )
            return None
        if self.resume_from is None and not self.resume:
            raise ValueError(
                f"Expected an empty results_folder, got {folder}, which already holds a run. "
                f"Fix: resume it (resume=True, --resume), or choose another results_folder."
            )
        if self.resume_from is None:
            checkpoint = newest_whole_checkpoint(folder)
        else:
            checkpoint = _of_step(folder, found, self.resume_from)
        check_stored(checkpoint)
        check_profiles(checkpoint, config["trainer"]["ema"]["profiles"])
        theirs = checkpoint.state.get("optimizer", {}).get("class", optimizer)
        fix = f"give optimizer={theirs.rpartition('.')[2]!r:.60}, or begin a run with init_from"
        wanted = f"the optimizer of {checkpoint.path}, {theirs:.100}"
        expect(theirs == optimizer, wanted, optimizer, fix)
        _compare(checkpoint, config, order)
        return checkpoint

    def weights(self, model: Trainable) -> InitialWeights | None:
        """Returns the weights of `init_from` for a new run, or None.

        Raises:
            ValueError: If they cannot be read, or none of them fits the model.
        """
        return None if self.init_from is None else InitialWeights.read(self.init_from, model)

    def set_later_aside(self, folder: Path, accelerator: Accelerator) -> None:
        """Moves the checkpoints after `resume_from` aside. All processes must call it."""
        step = self.resume_from
        if step is None:
            return
        aside = on_main_process(accelerator, lambda: set_aside(folder, after=step))
        if aside is not None:
            warnings.warn(f"The checkpoints after step {step} are now in {aside}.", stacklevel=3)


def _of_step(folder: Path, found: list[Path], step: int) -> Checkpoint:
    """Returns the undamaged checkpoint of a step."""
    steps = {step_of(path): path for path in found}
    if step not in steps:
        raise ValueError(
            f"{folder}: expected a checkpoint of step {step}, got the steps "
            f"{', '.join(map(str, steps)) or 'none'}. Fix: resume from one of these."
        )
    checkpoint = Checkpoint.open(steps[step])
    checkpoint.verify()
    return checkpoint


def _compare(checkpoint: Checkpoint, config: Mapping[str, Any], order: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another model, and warns of changed settings."""
    if different := list(differences(checkpoint.config["diffusion"], config["diffusion"])):
        raise ValueError(
            f"{checkpoint.path}: expected a checkpoint of this model, got another model "
            f"({'; '.join(different)}). "
            f"Fix: resume it with its own settings, or choose another results_folder."
        )
    different = list(differences(checkpoint.state["order"], order))
    different += changed_options(checkpoint.config["trainer"], config["trainer"])
    for name in ("data", "validation"):
        different += changed_data(checkpoint.config.get(name), config.get(name), name)
    different += differences(checkpoint.state.get("environment", {}), environment())
    if different:
        warnings.warn(f"The resumed run differs from before: {'; '.join(different)}", stacklevel=5)


_LEARNING = {
    *("loss", "loss_weight", "times", "min_snr_loss_weight", "min_snr_gamma", "use_ddim"),
    *("train_prob_self_cond", "condition_dropout", "augmentation"),
    *("dropout", "second_time", "checkpointed_levels"),
}
"""Options that change how weights are learned, and not what they mean."""


@dataclass(frozen=True)
class InitialWeights:
    """Tensors of another run, averaged if it has an average, that fit a model by name and shape.

    Statistics of the training data are not among them.
    """

    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, source: str | os.PathLike[str], model: Trainable) -> InitialWeights:
        """Reads the tensors.

        A warning names weights that keep their own initial values, and differences of the models
        that give the weights another meaning, such as another objective. The loss may differ.

        Args:
            source: Results folder, checkpoint or export.
            model: Model that will be trained.

        Raises:
            ValueError: If the source cannot be read, or none of its tensors fits.
        """
        checkpoint = Checkpoint.find(source)
        stored, own = checkpoint.tensors(checkpoint.choose("ema")), network_tensors(model)
        fits = {k: v for k, v in stored.items() if k in own and v.shape == own[k].shape}
        left = [name for name in own if name not in fits]
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        fix = "give a run of the same kind of network"
        expect(bool(fits), f"weights in {checkpoint.path} that fit the model", "none", fix)
        theirs = checkpoint.config.get("diffusion")
        different = [
            difference
            for difference in differences(theirs, to_config(model))
            if _LEARNING.isdisjoint(difference.partition(": ")[0].split("."))
        ]
        if different:
            warnings.warn(
                f"{checkpoint.path}: the initial weights are those of another model: "
                f"{'; '.join(different)}. Fix: if they must mean the same, take over its settings "
                f"(--config {source}).",
                stacklevel=5,
            )
        if left:
            warnings.warn(
                f"{checkpoint.path}: {len(fits)} of {len(own)} tensors fit the model; the others "
                f"keep their initial values: {shown}",
                stacklevel=5,
            )
        return cls(fits)

    @torch.no_grad()
    def load_into(self, model: Trainable, shard: Any) -> None:
        """Copies the tensors into a model.

        Args:
            model: Model whose tensors are replaced.
            shard: Function that shards tensors by name like those of the model, if it is sharded.
        """
        own = network_tensors(model)
        for name, value in shard(dict(self.tensors), own=own).items():
            own[name].copy_(value)


def network_tensors(model: Trainable) -> dict[str, Tensor]:
    """Returns the trained parameters of a model, and all saved tensors of its networks, by name."""
    inside = {id(tensor) for network in model.networks for tensor in _tensors(network).values()}
    return {
        name: tensor
        for name, tensor in _tensors(model).items()
        if id(tensor) in inside or (isinstance(tensor, nn.Parameter) and tensor.requires_grad)
    }


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return module.state_dict(keep_vars=True)
