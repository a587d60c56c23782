"""`DiffusionPolicy`: a policy that has a diffusion model of action sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..conditions import Conditions, Observations
from ..diffusion import GaussianDiffusion
from ..spaces import ActionSpace
from ..trainable import Batch
from .policy import Policy, Streams


@final
class DiffusionPolicy(Policy):
    """Plans by sampling action sequences given observations (Chi et al. 2023).

    `DiffusionPolicy(network, Observations({"state": 5}))` wraps a network of action sequences in a
    `GaussianDiffusion`; `DiffusionPolicy(diffusion)` takes one as it is. Without observations
    `policy(data)` is the loss of that diffusion and `policy.sample()` its samples.

    Args:
        model: A `GaussianDiffusion`; or a network for one: `UNet1D`, `Transformer1D`,
            `ResidualMLP`, or one of your own, called as `model(x, time, context=...)`.
        observations: How observations are told to a network. A diffusion has them among its
            conditions.
        action_steps: Number of actions of a plan that are executed.
        plan_steps: Sampler steps for a plan, unless told otherwise.
        options: Options of `GaussianDiffusion` for a network. With observations, `space` is
            `ActionSpace()` and `timesteps` 100 unless they are given.

    Raises:
        ValueError: options for a diffusion, which has its parts; more action_steps than a plan
            has; or options out of range.
    """

    warm_starts = True

    def __init__(
        self,
        model: nn.Module,
        observations: Observations | None = None,
        *,
        action_steps: int = 8,
        plan_steps: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(model, GaussianDiffusion):
            if observations is not None or options:
                given = [*options, *(["observations"] if observations is not None else [])]
                raise ValueError(
                    f"Expected a diffusion alone, since it has its parts, got {', '.join(given)} as well. "
                    "Fix: give them to GaussianDiffusion."
                )
            diffusion = model
        else:
            if observations is not None:
                told = {**(options.get("conditions") or {}), "observations": observations}
                options = {"timesteps": 100, "space": ActionSpace(), **options, "conditions": told}
            diffusion = GaussianDiffusion(model, **options)
        if plan_steps < 1:
            raise ValueError(f"Expected at least 1 of plan_steps, got {plan_steps}. Fix: 16 is usual.")
        self.diffusion, self.action_steps, self.plan_steps = diffusion, action_steps, plan_steps
        self._check_plans()
        # one form for both ways to build it, from which a checkpoint builds it again
        self._init_args = {"model": diffusion, "action_steps": action_steps, "plan_steps": plan_steps}

    @property
    def conditions(self) -> Conditions:
        return self.diffusion.conditions

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.diffusion.model

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.diffusion.sample_shape

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.diffusion.networks

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        return self.diffusion.prepares

    def forward(self, data: Tensor, **options: Any) -> Tensor:
        """The training loss of the diffusion; arguments as for `GaussianDiffusion.forward`.

        Args:
            data: Actions [batch, horizon, action_dim], as measured.
            options: `observations`, `mask` and the like.
        """
        return self.diffusion(data, **options)

    def check(self, data: Tensor, **condition: Any) -> None:
        self.diffusion.check(data, **condition)

    def fit(self, batches: Iterable[Batch]) -> None:
        self.diffusion.fit(batches)

    def prepare(self, data: Tensor) -> Tensor:
        return self.diffusion.prepare(data)

    def flip(self, condition: Mapping[str, Any], where: Tensor) -> Mapping[str, Any]:
        return self.diffusion.flip(condition, where)

    def sample(self, batch_size: int = 16, **options: Any) -> Tensor:
        """Samples of the diffusion, as measured; arguments as for `GaussianDiffusion.sample`."""
        return self.diffusion.sample(batch_size, **options)

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        if len(self.sample_shape) != 3:
            return None
        return self.diffusion.previews(count, seeds=seeds, steps=steps, **condition)

    @torch.no_grad()
    def plan(self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any) -> Tensor:
        """Whole plans; see `Policy.plan`.

        Args:
            observations: By stream, [batch, observation_steps, ...], as measured.
            seed: One number, or one for each plan.
            options: Options of `GaussianDiffusion.walk`: `sampler`, `steps` (plan_steps if
                neither steps, calls nor grid is given), `guidance`; or `start`, plans
                [batch, horizon, action_dim] to begin from as noisy as at time `strength`.
        """
        batch = self.observations.count(observations)
        if not {"steps", "calls", "grid"} & options.keys():
            options["steps"] = self.plan_steps
        return self.diffusion.sample(batch, observations=observations, seed=seed, show_progress=False, **options)
