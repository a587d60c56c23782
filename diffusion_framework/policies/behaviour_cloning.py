"""`BehaviourCloning`, a baseline that predicts the mean of the demonstrated actions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..conditions import Conditions, Observations
from ..denoisers import NetworkSignature
from ..samplers.arguments import whole_number
from ..spaces import ActionSpace
from ..spaces.base import at_least_float32
from ..trainable import Batch
from .policy import Policy, Streams


@final
class BehaviourCloning(Policy):
    """Policy trained by mean squared error, which plans with one call of the network.

    The network is called with zeros in place of noised actions and with time 1.

    Args:
        model: Network of action sequences, as in `DiffusionPolicy`.
        observations: Conditioner that encodes observations for the network.
        space: Encoding of actions; None for `ActionSpace()`.
        action_steps: Number of actions of each plan that are executed.

    Raises:
        ValueError: If the network does not make plans, or a plan has fewer than action_steps
            actions.
    """

    def __init__(
        self,
        model: nn.Module,
        observations: Observations,
        *,
        space: ActionSpace | None = None,
        action_steps: int = 8,
    ) -> None:
        signature = NetworkSignature.of(model)
        conditions = Conditions({"observations": observations}, signature.sample_shape)
        signature.check_conditions({"observations": observations.keywords})
        super().__init__()
        self.model, self.signature = model, signature
        self.action_steps = whole_number(action_steps, "action_steps")
        self._conditions = conditions
        self._check_plans()
        self.space = ActionSpace() if space is None else space
        self.space.build(signature.sample_shape)

    @property
    def conditions(self) -> Conditions:
        return self._conditions

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.signature.sample_shape

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def forward(
        self,
        data: Tensor,
        *,
        generator: torch.Generator | None = None,
        self_condition_draw: float | None = None,
        progress: float = 1.0,
        mask: Tensor | None = None,
        **condition: Any,
    ) -> Tensor:
        """Returns the mean squared error of plans in encoded units.

        Args:
            data: Unnormalised actions, [batch, horizon, action_dim].
            generator: Generator for the dropout of observations.
            self_condition_draw: Unused.
            progress: Unused.
            mask: Mask [batch, horizon], False for padding.
            condition: Values of the conditions by name, here `observations`.
        """
        actions = self.space.encode(data, condition)
        error = (self._mean(len(data), condition, generator) - actions).square()
        return (error if mask is None else error * mask[:, :, None]).mean()

    def fit(self, batches: Iterable[Batch]) -> None:
        if not (self.space.needs_fit or self.observations.needs_fit):
            return
        parts = [part for part in (self.space, self.observations) if part.needs_fit]
        for data, condition in batches:
            if self.space in parts:
                self.space.observe(data, condition)
            if self.observations in parts:
                self.observations.observe(condition["observations"])
        for part in parts:
            part.finish()

    @torch.no_grad()
    def plan(
        self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        """Returns plans, as `Policy.plan` describes.

        Args:
            observations: Unnormalised streams by name, [batch, observation_steps, ...].
            seed: Unused, since planning draws no random numbers.
            options: Always empty.

        Raises:
            ValueError: If options are given, or observations do not fit.
        """
        self.check_options(options)
        streams = self.observations.checked(observations)
        condition, training = {"observations": streams}, self.training
        self.eval()
        try:
            mean = self._mean(len(next(iter(streams.values()))), condition)
        finally:
            self.train(training)
        return self.space.decode(mean, condition)

    def check_options(self, options: Collection[str]) -> None:
        if options:
            raise ValueError(
                "Expected no sampling options for BehaviourCloning, which does not sample, got "
                f"{', '.join(sorted(options))}. Fix: leave them out."
            )

    def _mean(
        self, batch: int, condition: Mapping[str, Any], generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns the network's plans in encoded units, [batch, horizon, action_dim]."""
        bound = self.conditions.bind(condition, batch, drop=self.training, generator=generator)
        dtype = next(self.model.parameters()).dtype
        zeros = torch.zeros(batch, *self.sample_shape, device=self.device, dtype=dtype)
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in bound.keywords.items()}
        if self.signature.estimate:
            given[self.signature.estimate] = zeros
        output = self.model(zeros, torch.ones(batch, device=self.device), **given)
        return at_least_float32(self.signature.check_output(output, zeros))
