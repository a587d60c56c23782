"""`Policy`: what plans actions from observations, however it was trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..conditions import Conditions, Observations
from ..trainable import Trainable
from .windows import check_windows

Streams = Mapping[str, Tensor]
"""Observations by the name of their stream, as measured."""


class Policy(Trainable, ABC):
    """Plans actions from observations; `policy(actions, observations=..., mask=...)` is its loss.

    A plan begins at the oldest observation. What is executed begins at the newest one:

        observations   o o                  observation_steps = 2
        plan           a a a a a a a a      horizon = 8
        executed         a a a a            action_steps = 4

    Attributes:
        action_steps: Number of actions of a plan that are executed.
        warm_starts: Whether `plan` takes `start` and `strength`.
    """

    action_steps: int
    warm_starts: bool = False

    @property
    @abstractmethod
    def conditions(self) -> Conditions:
        """What the policy is told; "observations" are among them, if it can plan."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one plan, (horizon, action_dim)."""

    @abstractmethod
    def plan(self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any) -> Tensor:
        """Whole plans.

        Args:
            observations: By stream, [batch, observation_steps, ...], as measured.
            seed: One number, or one for each plan; None draws from torch's default generator.
            options: Further options of the kind of policy.

        Returns:
            [batch, horizon, action_dim], as measured; action observation_steps - 1 belongs to the
            newest observation.

        Raises:
            ValueError: observations of other streams or shapes, or that are not finite.
        """

    def predict(self, observations: Streams, **options: Any) -> Tensor:
        """The actions to execute next, [batch, action_steps, action_dim]; arguments as for `plan`."""
        return self.plan(observations, **options)[:, self.executed]

    def _check_plans(self) -> None:
        """Raises ValueError for plans of another shape, or with fewer actions than are executed."""
        if "observations" not in self.conditions:
            return
        if len(self.sample_shape) != 2:
            raise ValueError(
                f"Expected samples (horizon, action_dim) to plan, got {self.sample_shape}. "
                "Fix: take a network of action sequences."
            )
        check_windows(self.horizon, self.observation_steps, self.action_steps)

    @property
    def observations(self) -> Observations:
        """The conditioner that turns observations into what the network is told.

        Raises:
            ValueError: a policy without observations, which cannot plan.
        """
        if "observations" not in self.conditions:
            raise ValueError(
                "Expected a policy with observations, got one without. Fix: give it an Observations "
                "conditioner, as DiffusionPolicy(network, Observations({'state': 5}))."
            )
        conditioner = self.conditions["observations"]
        if not isinstance(conditioner, Observations):
            raise ValueError(
                f"Expected an Observations conditioner for observations, got {type(conditioner).__name__}. "
                "Fix: use Observations, or another name for this condition."
            )
        return conditioner

    @property
    def horizon(self) -> int:
        """Number of actions of a plan."""
        return self.sample_shape[0]

    @property
    def observation_steps(self) -> int:
        """Number of observations that a plan is made from."""
        return self.observations.steps

    @property
    def executed(self) -> slice:
        """The part of a plan that is executed: from the newest observation on."""
        first = self.observation_steps - 1
        return slice(first, first + self.action_steps)

    @property
    def data_options(self) -> dict[str, int]:
        """Options of `EpisodeWindows` that follow from the policy."""
        if "observations" not in self.conditions:
            return {}
        return {
            "horizon": self.horizon,
            "observation_steps": self.observation_steps,
            "action_steps": self.action_steps,
        }

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """`action_error` is there where there are observations to plan from."""
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
        """The loss, and the root mean squared error of planned actions that would be executed.

        Args:
            data: Actions [batch, horizon, action_dim].
            mask: [batch, horizon], False where actions only pad.
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
