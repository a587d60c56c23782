"""Receding-horizon control: remember the last observations, plan, hand out the plan's first actions, plan again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .diffusion_policy import DiffusionPolicy


class RecedingHorizon:
    """What acting remembers of each environment: its last observations, its plan, and how much of that is done.

    Environments need not be in step: each is planned for when it needs it, together with the others that do.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}  # [environments, observation_steps, ...]
        self.plans = torch.empty(0)  # [environments, horizon, action_dim]
        self.executed_steps = torch.empty(0)  # [environments] actions handed out of the plan
        self.new_episode = torch.empty(0)  # [environments] whether the next observation is an episode's first

    def reset(self, which: Sequence[bool] | Tensor | None = None) -> None:
        """Forget all environments, or those where `which` is true."""
        if which is None:
            self.__init__()  # type: ignore[misc]
        elif len(self.new_episode):
            self.new_episode |= torch.as_tensor(which, device=self.new_episode.device)

    def act(
        self,
        policy: DiffusionPolicy,
        observation: Mapping[str, Any],
        *,
        seed: Sequence[int] | None = None,
        warm_start: float | None = None,
        **options: Any,
    ) -> Tensor:
        """See `DiffusionPolicy.act`."""
        tensors = {name: torch.as_tensor(value, device=policy.device) for name, value in observation.items()}
        single = all(v.ndim == (3 if name in policy.encoder.images else 1) for name, v in tensors.items())
        if single:
            tensors = {name: value[None] for name, value in tensors.items()}
        self._remember(policy, tensors)
        needs_plan = torch.nonzero(self.new_episode | (self.executed_steps >= policy.action_steps))[:, 0]
        if len(needs_plan):
            if seed is not None:
                options["seed"] = [seed[i] for i in needs_plan.tolist()]
            self._plan(policy, needs_plan, warm_start, options)
        self.new_episode[:] = False
        index = torch.arange(len(self.plans), device=self.plans.device)
        actions = self.plans[index, policy.observation_steps - 1 + self.executed_steps]
        self.executed_steps += 1
        return actions[0] if single else actions

    def _remember(self, policy: DiffusionPolicy, observation: Mapping[str, Tensor]) -> None:
        count = len(next(iter(observation.values())))
        if len(self.new_episode) != count:
            if len(self.new_episode):
                raise ValueError(
                    f"{len(self.new_episode)} environments were acted for, now {count}; call reset() in between"
                )
            self.plans = torch.zeros(count, *policy.sample_shape, device=policy.device)
            self.executed_steps = torch.zeros(count, dtype=torch.long, device=policy.device)
            self.new_episode = torch.ones(count, dtype=torch.bool, device=policy.device)
        for name, value in observation.items():
            repeated = value[:, None].expand(-1, policy.observation_steps, *value.shape[1:])
            if name not in self.seen:
                self.seen[name] = repeated.clone()
                continue
            shifted = torch.cat([self.seen[name][:, 1:], value[:, None].to(self.seen[name])], dim=1)
            new_episode = self.new_episode.reshape(-1, *(1,) * (shifted.ndim - 1))
            self.seen[name] = torch.where(new_episode, repeated.to(shifted), shifted)

    def _plan(
        self, policy: DiffusionPolicy, needs_plan: Tensor, warm_start: float | None, options: dict[str, Any]
    ) -> None:
        warm = (
            ~self.new_episode[needs_plan] if warm_start is not None else torch.zeros_like(self.new_episode[needs_plan])
        )
        for group, going_on in ((needs_plan[~warm], False), (needs_plan[warm], True)):
            if not len(group):
                continue
            chosen = dict(options)
            if options.get("seed") is not None:
                of = dict(zip(needs_plan.tolist(), options["seed"], strict=True))
                chosen["seed"] = [of[i] for i in group.tolist()]
            if going_on:  # the last plan, moved on by what was executed, its last action repeated
                old = self.plans[group]
                tail = old[:, policy.action_steps :]
                chosen["last"] = torch.cat([tail, old[:, -1:].expand(-1, policy.action_steps, -1)], dim=1)
                chosen["strength"] = warm_start
            self.plans[group] = policy.plan({name: seen[group] for name, seen in self.seen.items()}, **chosen)
        self.executed_steps[needs_plan] = 0
