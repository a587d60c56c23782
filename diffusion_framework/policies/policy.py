"""`Policy`, the interface of models that plan actions from observations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..conditions import Conditions, Observations
from ..trainable import Trainable
from .windows import check_windows

Streams = Mapping[str, Tensor]
"""Unnormalised observations, by the name of their stream."""


class Policy(Trainable, ABC):
    """Base of policies, which plan actions from observations.

    `policy(actions, observations=..., mask=...)` returns the training loss.

    A plan begins at the oldest observation. Its executed part begins at the newest one:

        observations   o o                  observation_steps = 2
        plan           a a a a a a a a      horizon = 8
        executed         a a a a            action_steps = 4

    Attributes:
        action_steps: Number of actions of each plan that are executed.
        warm_starts: Whether `plan` accepts `start` and `strength`.
    """

    action_steps: int
    warm_starts: bool = False

    @property
    @abstractmethod
    def conditions(self) -> Conditions:
        """Conditioners by name; a policy that can plan has "observations" among them."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one plan, (horizon, action_dim)."""

    @abstractmethod
    def plan(
        self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        """Returns complete plans.

        Args:
            observations: Unnormalised streams by name, [batch, observation_steps, ...].
            seed: Seed of the batch, or one seed for each plan; None for PyTorch's default
                generator.
            options: Further options of the policy class.

        Returns:
            Unnormalised actions, [batch, horizon, action_dim]. The action at index
            observation_steps - 1 belongs to the newest observation.

        Raises:
            ValueError: If a stream is missing, has another shape, or is not finite.
        """

    @abstractmethod
    def check_options(self, options: Collection[str]) -> None:
        """Raises ValueError if `plan` has no options of these names."""

    def predict(self, observations: Streams, **options: Any) -> Tensor:
        """Returns the actions to execute next, [batch, action_steps, action_dim].

        Args:
            observations: Streams by name, as in `plan`.
            options: Further arguments of `plan`.
        """
        return self.plan(observations, **options)[:, self.executed]

    def _check_plans(self) -> None:
        """Checks that plans have two dimensions and enough actions to execute."""
        if "observations" not in self.conditions:
            return
        if len(self.sample_shape) != 2:
            raise ValueError(
                f"Expected plans of shape (horizon, action_dim), got {self.sample_shape}. "
                "Fix: use a network of action sequences, such as UNet1D."
            )
        check_windows(self.horizon, self.observation_steps, self.action_steps)

    @property
    def observations(self) -> Observations:
        """Conditioner that encodes observations for the network.

        Raises:
            ValueError: If the policy has no observations and therefore cannot plan.
        """
        if "observations" not in self.conditions:
            raise ValueError(
                "Expected a policy with observations, got one without. Fix: build it with them, "
                "as DiffusionPolicy(network, Observations({'state': 5}))."
            )
        conditioner = self.conditions["observations"]
        if not isinstance(conditioner, Observations):
            raise ValueError(
                "Expected an Observations conditioner for observations, got "
                f"{type(conditioner).__name__}. "
                "Fix: use Observations, or give this condition another name."
            )
        return conditioner

    @property
    def horizon(self) -> int:
        """Number of actions of a plan."""
        return self.sample_shape[0]

    @property
    def observation_steps(self) -> int:
        """Number of observations from which a plan is made."""
        return self.observations.steps

    @property
    def executed(self) -> slice:
        """Executed part of a plan, which begins at the newest observation."""
        first = self.observation_steps - 1
        return slice(first, first + self.action_steps)

    @property
    def data_options(self) -> dict[str, int]:
        """Options of `EpisodeWindows` that the policy determines."""
        if "observations" not in self.conditions:
            return {}
        return {
            "horizon": self.horizon,
            "observation_steps": self.observation_steps,
            "action_steps": self.action_steps,
        }

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the validation metrics; "action_error" requires observations."""
        error = ("action_error",) if "observations" in self.conditions else ()
        return ("validation_loss", *error)

    @torch.no_grad()
    def validation_metrics(
        self,
        data: Tensor,
        *,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
        **condition: Any,
    ) -> dict[str, Tensor]:
        """Returns the loss and the root mean squared error of the actions to execute.

        Args:
            data: Unnormalised actions, [batch, horizon, action_dim].
            generator: Generator for the random draws of the loss and of planning.
            mask: Mask [batch, horizon], False for padding.
            condition: Values of the conditions by name.
        """
        loss = self(data, generator=generator, self_condition_draw=0.0, mask=mask, **condition)
        if "observations" not in self.conditions:
            return {"validation_loss": loss}
        seeds = torch.randint(2**62, (len(data),), generator=generator, device=self.device).tolist()
        planned = self.predict(seed=seeds, **condition)
        error = (planned - data[:, self.executed]).square().mean(dim=2)
        counted = torch.ones_like(error) if mask is None else mask[:, self.executed].to(error)
        error = ((error * counted).sum() / counted.sum()).sqrt()
        return {"validation_loss": loss, "action_error": error}
