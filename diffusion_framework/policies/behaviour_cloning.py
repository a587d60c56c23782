"""The yardstick of a policy: its network, trained to give the mean of the demonstrations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..denoisers import NetworkDenoiser
from .diffusion_policy import DiffusionPolicy, Observations


class BehaviourCloning(DiffusionPolicy):
    """Mean-squared behaviour cloning: the network sees zeros in place of noisy actions, and gives a plan in one call.

    Args:
        model: As for `DiffusionPolicy`, like all the rest; what concerns noise has no effect.
    """

    def forward(
        self,
        data: Tensor,
        *,
        generator: torch.Generator | None = None,
        self_condition_draw: float | None = None,
        progress: float = 1.0,
        mask: Tensor | None = None,
        prepared: bool = False,
        **condition: Any,
    ) -> Tensor:
        """The mean squared error of the plans; arguments as for `DiffusionPolicy`."""
        actions = self.encode(data, condition)
        error = (self._mean(len(actions), **condition) - actions).square()
        return (error if mask is None else error * mask[:, :, None]).mean()

    @torch.no_grad()
    def plan(self, observations: Observations, **options: Any) -> Tensor:
        """Whole plans [batch, horizon, action_dim]; the options of `DiffusionPolicy.plan` have no effect."""
        self._ready(observations)
        with self.evaluating():
            plans = self._mean(len(next(iter(observations.values()))), observations=observations)
        return self.to_actions(plans, observations=observations)

    def _mean(self, batch: int, **condition: Any) -> Tensor:
        nothing = torch.zeros(batch, *self.sample_shape, device=self.device)
        denoise = NetworkDenoiser(self.parts, self.conditions.bind(condition, batch))
        output, _ = denoise.output(nothing, self.schedule.at(1.0))
        return output
