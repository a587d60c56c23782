"""`Trainable`: what a Trainer needs of a model."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from .storage.checkpoint import Checkpoint
from .storage.config import RecordsArguments, to_config
from .storage.writing import write_export

Batch = tuple[Tensor, Mapping[str, Any]]
"""Data [batch, ...] and what came with it, by name: conditions, and a mask."""


class Trainable(RecordsArguments, nn.Module, ABC):
    """A module whose `forward` is its training loss.

    Attributes:
        metric_names: Keys of `validation_metrics`; smaller values are better.
        prepares: Whether `prepare` changes data, so that its result may be cached and passed to
            `forward` with prepared=True.
        replaceable: Parts that `from_pretrained` can replace, and their places among the recorded
            arguments.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("validation_loss",)
    prepares: bool = False
    replaceable: ClassVar[Mapping[str, str]] = {"model": "model", "space": "space"}

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch: (channels, height, width) of images."""

    @property
    @abstractmethod
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that training spends its time in: they may be compiled and sharded."""

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
        """The training loss of a batch, a scalar.

        Args:
            data: [batch, ...], in the user's units.
            generator: For everything drawn that may differ between processes; None is torch's
                default one.
            self_condition_draw: A number in [0, 1), the same on all processes, that decides what
                all must decide alike; None draws it.
            progress: Share of training that is done, in [0, 1].
            condition: What came with the data: conditions by name, and `mask`.
        """

    def check(self, data: Tensor, **condition: Any) -> None:
        """Raises ValueError for data or conditions that `forward` would refuse, running no network.

        Args:
            data: As for `forward`, like the rest.
        """

    def fit(self, batches: Iterable[Batch]) -> None:
        """Takes statistics of the training data before the first step.

        Args:
            batches: All training data once; nothing is read if nothing is unknown.
        """

    def prepare(self, data: Tensor) -> Tensor:
        """The costly, constant part of the way from data to the network, without gradients."""
        return data

    def flip(self, condition: Mapping[str, Any], where: Tensor) -> Mapping[str, Any]:
        """What came with data of which some samples are flipped horizontally.

        Args:
            condition: Values by name.
            where: [batch], True for samples that are flipped.
        """
        return condition

    @abstractmethod
    def validation_metrics(
        self, data: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """Scalars that say how good the model is on held-out data; smaller is better.

        Args:
            data: As for `forward`, like the rest.
        """

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        """Samples to look at, [count, channels, height, width] in [0, 1].

        Args:
            count: Number of samples.
            seeds: One for each sample.
            steps: Sampler steps; None is the model's default.
            condition: Conditions by name, [count, ...].

        Returns:
            None for samples that have no picture.
        """
        return None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In evaluation mode, and afterwards as before, module by module."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder that `from_pretrained` opens: the weights, and how to build the model.

        Args:
            folder: A folder that does not exist yet.

        Raises:
            ValueError: the folder exists.
            OSError: something could not be written; then the folder does not exist.
        """
        write_export(folder, {"model": self.state_dict()}, {"diffusion": to_config(self)})

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        weights: Literal["ema", "model"] = "ema",
        model: nn.Module | None = None,
        space: nn.Module | None = None,
        trust: Collection[str] = (),
    ) -> Self:
        """Opens what a training run or `save_pretrained` wrote.

        Args:
            path_or_name: A results folder, of which the newest checkpoint is taken, one checkpoint
                folder, or a folder of `save_pretrained`.
            weights: 'ema' for the averaged weights, 'model' for those of the last step. A folder of
                `save_pretrained` holds one kind, which is taken.
            model: Network in place of the recorded one. A class that does not record its arguments
                (see `RecordsArguments`), or that stands in a script, needs it.
            space: Data space in place of the recorded one.
            trust: Packages, besides this one, whose classes the files may name. Their code runs.

        Returns:
            The model on the CPU, in evaluation mode.

        Raises:
            ValueError: no such folder, a damaged one, a model of another class, or weights that do
                not fit.
        """
        checkpoint = Checkpoint.find(path_or_name)
        given = {
            name: part
            for name, part in {"model": model, "space": space}.items()
            if part is not None
        }
        return checkpoint.build("diffusion", cls, checkpoint.choose(weights), trust, **given).eval()
