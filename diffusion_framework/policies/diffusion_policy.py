"""`DiffusionPolicy`, which plans with a diffusion model of action sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from ..conditions import Conditions, Observations
from ..denoisers import Guide, NetworkDenoiser
from ..diffusion import GaussianDiffusion
from ..samplers.arguments import whole_number
from ..spaces import ActionSpace
from ..trainable import Batch
from .policy import Policy, Streams


@final
class DiffusionPolicy(Policy, Guide):
    """Policy that samples action sequences given observations (Chi et al. 2023).

    `DiffusionPolicy(network, Observations({"state": 5}))` wraps a network of action sequences in a
    `GaussianDiffusion`; `DiffusionPolicy(diffusion)` uses an existing one. Without observations,
    `policy(data)` returns the loss of that diffusion and `policy.sample()` its samples.

    Args:
        model: `GaussianDiffusion`, or a network to wrap in one. `UNet1D`, `Transformer1D` and
            `ResidualMLP` are such networks; others are called as `model(x, time, context=...)`.
        observations: Conditioner that encodes observations for a network. A diffusion has it among
            its conditions.
        action_steps: Number of actions of each plan that are executed.
        plan_steps: Default number of sampler steps of a plan.
        options: Options of `GaussianDiffusion` for a network. With observations, the defaults are
            `space=ActionSpace()` and `timesteps=100`.

    Raises:
        ValueError: If a diffusion is given with options of its own parts, a plan has fewer than
            action_steps actions, or an option is out of range.
    """

    warm_starts = True
    replaceable: ClassVar[Mapping[str, str]] = {"model": "model.model", "space": "model.space"}

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
                    f"Expected a diffusion without options of its parts, got {', '.join(given)} as "
                    "well. Fix: pass them to GaussianDiffusion."
                )
            diffusion = model
        else:
            if observations is not None:
                conditions = {**(options.get("conditions") or {}), "observations": observations}
                defaults = {"timesteps": 100, "space": ActionSpace()}
                options = {**defaults, **options, "conditions": conditions}
            diffusion = GaussianDiffusion(model, **options)
        action_steps = whole_number(action_steps, "action_steps")
        plan_steps = whole_number(plan_steps, "plan_steps")
        if plan_steps < 1:
            raise ValueError(
                f"Expected plan_steps of at least 1, got {plan_steps}. Fix: set plan_steps=16."
            )
        self.diffusion, self.action_steps, self.plan_steps = diffusion, action_steps, plan_steps
        self._check_plans()
        # Checkpoints record this one form, whichever of the two ways built the policy.
        self._init_args = {
            "model": diffusion,
            "action_steps": action_steps,
            "plan_steps": plan_steps,
        }

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
        """Returns the training loss of the diffusion.

        Args:
            data: Unnormalised actions, [batch, horizon, action_dim].
            options: Further arguments of `GaussianDiffusion.forward`, such as `observations` and
                `mask`.
        """
        return self.diffusion(data, **options)

    def describe(self) -> dict[str, str]:
        return self.diffusion.describe()

    def check(self, data: Tensor, **condition: Any) -> None:
        self.diffusion.check(data, **condition)

    def fit(self, batches: Iterable[Batch]) -> None:
        self.diffusion.fit(batches)

    def prepare(self, data: Tensor) -> Tensor:
        return self.diffusion.prepare(data)

    def flip(self, data: Tensor, condition: Mapping[str, Any], where: Tensor) -> Batch:
        return self.diffusion.flip(data, condition, where)

    def sample(self, batch_size: int = 16, **options: Any) -> Tensor:
        """Returns unnormalised samples of the diffusion.

        Args:
            batch_size: Number of samples.
            options: Further arguments of `GaussianDiffusion.sample`.
        """
        return self.diffusion.sample(batch_size, **options)

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        if len(self.sample_shape) != 3:
            return None
        return self.diffusion.previews(count, seeds=seeds, steps=steps, **condition)

    def told(self, values: Mapping[str, Any], batch: int | None = None) -> NetworkDenoiser:
        return self.diffusion.told(values, batch)

    @torch.no_grad()
    def plan(
        self, observations: Streams, *, seed: int | Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        """Samples plans, as `Policy.plan` describes.

        Args:
            observations: Unnormalised streams by name, [batch, observation_steps, ...].
            seed: Seed of the batch, or one seed for each plan.
            options: Options of `GaussianDiffusion.walk`, such as `sampler` and `guidance`. `steps`
                defaults to plan_steps unless calls or grid is given. With `start`, plans
                [batch, horizon, action_dim], sampling begins from them noised to time `strength`.
        """
        streams = self.observations.checked(observations)
        batch = len(next(iter(streams.values())))
        if not {"steps", "calls", "grid"} & options.keys():
            options["steps"] = self.plan_steps
        return self.diffusion.sample(
            batch, observations=streams, seed=seed, show_progress=False, **options
        )

    def check_options(self, options: Collection[str]) -> None:
        self.diffusion.check_options(options)
