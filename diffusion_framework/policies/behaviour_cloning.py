"""`BehaviourCloning`: a network trained to give the mean of the demonstrations, to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..conditions import Conditions, Observations
from ..denoisers import NetworkSignature
from ..spaces import ActionSpace
from ..spaces.base import at_least_float32
from ..trainable import Batch
from .policy import Policy, Streams


@final
class BehaviourCloning(Policy):
    """Mean squared behaviour cloning: the network makes a plan of zeros and observations in one call.

    Args:
        model: The network, as for `DiffusionPolicy`. It sees zeros in place of noised actions, at
            time 1.
        observations: How observations are told to it.
        space: How actions are encoded; None is `ActionSpace()`.
        action_steps: Number of actions of a plan that are executed.

    Raises:
        ValueError: a network that makes no plans, or more action_steps than a plan has.
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
        self.model, self.signature, self.action_steps = model, signature, action_steps
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
        """The mean squared error of plans.

        Args:
            data: Actions [batch, horizon, action_dim], as measured.
            generator: For the dropout of observations.
            self_condition_draw: Has no effect.
            progress: Has no effect.
            mask: [batch, horizon], False where actions only pad.
            condition: `observations`.
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
    def plan(self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any) -> Tensor:
        """Whole plans; see `Policy.plan`.

        Args:
            observations: By stream, [batch, observation_steps, ...], as measured.
            seed: Has no effect, as nothing is drawn.
            options: There are none.
        """
        if options:
            raise ValueError(
                f"Expected no sampling options for behaviour cloning, which does not sample, got "
                f"{', '.join(sorted(options))}. Fix: leave them out."
            )
        condition, training = {"observations": observations}, self.training
        self.eval()
        try:
            mean = self._mean(self.observations.count(observations), condition)
        finally:
            self.train(training)
        return self.space.decode(mean, condition)

    def _mean(self, batch: int, condition: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """The plans that the network makes, [batch, horizon, action_dim], encoded."""
        bound = self.conditions.bind(condition, batch, drop=self.training, generator=generator)
        dtype = next(self.model.parameters()).dtype
        nothing = torch.zeros(batch, *self.sample_shape, device=self.device, dtype=dtype)
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in bound.keywords.items()}
        if self.signature.estimate:
            given[self.signature.estimate] = nothing
        output = self.model(nothing, torch.ones(batch, device=self.device), **given)
        return at_least_float32(self.signature.check_output(output, nothing))
