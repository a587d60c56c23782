"""`Trainable`, the interface of models that a Trainer trains."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from .storage.checkpoint import Checkpoint
from .storage.config import RecordsArguments, to_config
from .storage.opening import warn_how_to_open
from .storage.post_hoc_ema import open_weights
from .storage.run_paths import results_folder
from .storage.writing import write_export

Batch = tuple[Tensor, Mapping[str, Any]]
"""Data [batch, ...], and the conditions and mask that belong to it, by name."""


class Trainable(RecordsArguments, nn.Module, ABC):
    """A module whose `forward` is its training loss.

    Attributes:
        metric_names: Keys of `validation_metrics`; smaller values are better.
        class_names: Names of the classes 0, 1, ... that an opened model was trained on; empty if
            unknown.
        prepares: Whether `prepare` changes data, so that its result may be cached and passed to
            `forward` with prepared=True.
        replaceable: Parts that `from_pretrained` can replace, and their places among the recorded
            arguments.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("validation_loss",)
    class_names: Sequence[str] = ()
    prepares: bool = False
    replaceable: ClassVar[Mapping[str, str]] = {"model": "model", "space": "space"}

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch: (channels, height, width) of images."""

    @property
    @abstractmethod
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks, which may be compiled and sharded."""

    @abstractmethod
    def forward(
        self,
        data: Tensor,
        *,
        generator: torch.Generator | None = None,
        self_condition_draw: float | None = None,
        progress: float = 1.0,
        **condition: Any,
    ) -> Tensor:
        """Returns the training loss of a batch, a scalar.

        Args:
            data: Data in the user's units, [batch, ...].
            generator: Generator of random numbers that may differ between processes; None for
                PyTorch's default generator.
            self_condition_draw: Uniform number in [0, 1), equal in all processes, for choices that
                all processes must share; None draws it.
            progress: Completed share of training, in [0, 1].
            condition: Conditions by name, and `mask`.
        """

    def describe(self) -> dict[str, str]:
        """Returns the parts of the model by name, for the summary of a run."""
        count = sum(parameter.numel() for parameter in self.parameters())
        names = ", ".join(type(network).__name__ for network in self.networks)
        size = f"{count:,}" if count < 100_000 else f"{count / 1e6:.3g} million"
        return {"network": f"{names}, {size} parameters"}

    def check(self, data: Tensor, **condition: Any) -> None:
        """Checks data and conditions as `forward` does, without a call of the network.

        Args:
            data: Data in the user's units, [batch, ...].
            condition: Conditions by name, and `mask`.

        Raises:
            ValueError: If `forward` would refuse them.
        """

    def fit(self, batches: Iterable[Batch]) -> None:
        """Computes missing statistics of the training data, before the first step.

        Args:
            batches: All training data once. Nothing is read if no statistics are missing.
        """

    def prepare(self, data: Tensor) -> Tensor:
        """Returns data after the costly, constant part of its encoding, without gradients."""
        return data

    def flip(self, data: Tensor, condition: Mapping[str, Any], where: Tensor) -> Batch:
        """Returns a batch of which some samples are flipped horizontally.

        Data, conditions and mask are flipped alike, or not at all if one of them cannot be.

        Args:
            data: Data in the user's units, [batch, ...], before `prepare`.
            condition: Conditions by name, and `mask`.
            where: True for flipped samples, [batch].
        """
        return data, condition

    @abstractmethod
    def validation_metrics(
        self, data: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """Returns the metrics of a batch of held-out data, by the names in `metric_names`.

        A metric is a mean over the batch, or the values [n] of the samples it is known for.

        Args:
            data: Data in the user's units, [batch, ...].
            generator: Generator of random numbers; None for PyTorch's default generator.
            condition: Conditions by name, and `mask`.
        """

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        """Returns images of samples, [count, channels, height, width] in [0, 1].

        Args:
            count: Number of samples.
            seeds: One seed for each sample.
            steps: Number of sampler steps; None for the model's default.
            condition: Conditions by name, [count, ...].

        Returns:
            The images, or None for data that cannot be shown as images.
        """
        return None

    def views(self, condition: Mapping[str, Any]) -> Mapping[str, Tensor | list[str]]:
        """Returns conditions as users see them: images in [0, 1], or one text for each sample.

        Args:
            condition: Conditions by name, [count, ...].
        """
        return {}

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context in evaluation mode; afterwards, each module has its earlier mode."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the weights and the description of the model, for `from_pretrained`.

        A warning tells how to open a model with classes of your own.

        Args:
            folder: Folder that does not exist yet.

        Raises:
            ValueError: If the folder exists.
            OSError: If it cannot be written; it then does not exist.
        """
        tensors, config = {"model": self.state_dict()}, {"diffusion": to_config(self)}
        write_export(folder, tensors, config, self.class_names)
        warn_how_to_open(config["diffusion"], {type(n).__name__ for n in self.networks}, 2)

    def use_tuned(self, folder: Path, weights: str) -> None:
        """Reads what `diffusion tune` found for the model from a folder, if there is such a file.

        Args:
            folder: Results folder, or folder of an export.
            weights: Name of the weights of the model: ema, model, or such as ema-0.08.

        Raises:
            ValueError: If the file is damaged.
        """

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        weights: Literal["ema", "model"] | float = "ema",
        model: nn.Module | None = None,
        space: nn.Module | None = None,
        trust: Collection[str] = (),
    ) -> Self:
        """Opens a training run or an export of `save_pretrained`.

        Args:
            path_or_name: Results folder, whose newest checkpoint is opened, a single checkpoint
                folder, an export, or the name of a model that comes with the package: 'drawings'.
            weights: 'ema' for averaged weights, 'model' for the weights of the last step. An export
                holds only one kind, which is opened. The width of an average, such as 0.08, makes
                it from the snapshots of a run with `ema.profiles`.
            model: Network that replaces the recorded one. Required for a class that does not record
                its arguments (see `RecordsArguments`) or was defined in a script.
            space: Data space that replaces the recorded one.
            trust: Packages, besides this one, whose classes the files may name. Their code runs.

        Returns:
            The model on the CPU, in evaluation mode.

        Raises:
            ValueError: If the folder does not exist, is damaged or holds a model of another class,
                or if the weights do not fit or cannot be made.
        """
        checkpoint = Checkpoint.find(path_or_name)
        given = {
            name: part
            for name, part in {"model": model, "space": space}.items()
            if part is not None
        }
        kind, tensors = open_weights(checkpoint, weights)
        opened = checkpoint.build("diffusion", cls, tensors, trust, **given).eval()
        opened.class_names = checkpoint.class_names
        opened.use_tuned(results_folder(checkpoint) or checkpoint.path, kind)
        return opened
