"""`Controller`, which acts with a policy by receding-horizon control."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..process.noise import sample_seeds
from ..samplers.arguments import plain_seed
from .policy import Policy


@final
class Controller:
    """Receding-horizon controller of one or several environments.

    It stores the latest observations, plans from them, returns a plan's first actions one by one,
    and then plans again. Environments may need plans at different steps; those that need one at the
    same step are planned for in one batch.

    The first number that lies far outside of the demonstrations causes a warning.

    Args:
        policy: Policy that makes the plans.
        warm_start: Time in (0, 1] to which the rest of the last plan is noised as the start of the
            next plan; None starts from pure noise.
        options: Further options of the policy's `plan`.

    Raises:
        ValueError: If the policy has no observations or does not support warm_start or an option,
            or warm_start is out of range.
    """

    def __init__(self, policy: Policy, *, warm_start: float | None = None, **options: Any) -> None:
        if warm_start is not None and not (policy.warm_starts and 0 < warm_start <= 1):
            raise ValueError(
                f"Expected warm_start in (0, 1] for a policy that samples, got {warm_start} for "
                f"{type(policy).__name__}. Fix: leave it out."
            )
        policy.check_options(options)
        self.policy, self.warm_start, self.options = policy, warm_start, options
        self.observations, self._warned = policy.observations, False
        self.reset()

    def reset(self, which: Sequence[bool] | Tensor | None = None) -> None:
        """Begins new episodes.

        Args:
            which: Environments that begin a new episode, as booleans. None resets all of them and
                allows another number of environments.
        """
        if which is None:
            self._observed: dict[str, Tensor] = {}  # [environments, observation_steps, ...]
            self._plans = torch.empty(0)  # [environments, horizon, action_dim]
            self._executed_steps = torch.empty(0)  # [environments], executed steps of the plan
            self._new_episode = torch.empty(0)  # [environments], whether no step was taken yet
        elif len(self._new_episode):
            self._new_episode |= torch.as_tensor(which, device=self._new_episode.device)

    def act(
        self, observation: Mapping[str, Any], *, seed: int | Sequence[int] | None = None
    ) -> Tensor:
        """Returns the next action of each environment.

        Args:
            observation: Newest observation of each stream, [...] for a single environment or
                [environments, ...]. Channels of images may come last. Streams that the policy does
                not use are ignored.
            seed: Seed for plans made in this step, or one for each environment.

        Returns:
            Actions [action_dim], or [environments, action_dim].

        Raises:
            ValueError: If the number of environments has changed, or `Policy.plan` refuses the
                observations.
        """
        newest, single = self.observations.newest(observation)
        self._warn_far_outside(newest)
        self._remember(newest)
        needs_plan = self._new_episode | (self._executed_steps >= self.policy.action_steps)
        if len(chosen := torch.nonzero(needs_plan)[:, 0]):
            self._plan(chosen, self._seeds(seed))
        self._new_episode[:] = False
        index = torch.arange(len(self._plans), device=self._plans.device)
        actions = self._plans[index, self.policy.executed.start + self._executed_steps]
        self._executed_steps += 1
        return actions[0] if single else actions

    def _warn_far_outside(self, newest: Mapping[str, Tensor]) -> None:
        """Warns once if a number lies far outside of the demonstrations."""
        if self._warned:
            return
        for name in self.observations.streams:
            far = self.observations.normalizer.far_outside(name, newest[name])
            if bool(far.any()):
                self._warned = True
                index, value = int(far.nonzero()[0, -1]), float(newest[name][far][0])
                warnings.warn(
                    f"Expected observations like the demonstrations, got {value:g} in number "
                    f"{index} of {name!r}, far outside of their range. Fix: check its units; the "
                    "policy has not seen such values.",
                    stacklevel=3,
                )
                return

    def _seeds(self, seed: int | Sequence[int] | None) -> list[int] | None:
        """Returns one seed for each environment."""
        seeds, count = plain_seed(seed), len(self._new_episode)
        if isinstance(seeds, int):
            return sample_seeds(seeds, range(count))
        if seeds is not None and len(seeds) != count:
            raise ValueError(
                f"Expected one seed for each of {count} environments, got {len(seeds)}. "
                "Fix: give one number, or as many seeds as environments."
            )
        return seeds

    def _remember(self, newest: Mapping[str, Tensor]) -> None:
        count = len(next(iter(newest.values())))
        known = len(self._new_episode)
        if known and known != count:
            raise ValueError(
                f"Expected observations of {known} environments, as before, got {count}. "
                "Fix: call reset() first."
            )
        if not known:
            device = self.policy.device
            self._plans = torch.zeros(count, *self.policy.sample_shape, device=device)
            self._executed_steps = torch.zeros(count, dtype=torch.long, device=device)
            self._new_episode = torch.ones(count, dtype=torch.bool, device=device)
        for name, value in newest.items():
            repeated = value[:, None].expand(-1, self.policy.observation_steps, *value.shape[1:])
            if name not in self._observed:
                self._observed[name] = repeated.clone()
                continue
            _check_alike(name, value, self._observed[name])
            last = value[:, None].to(self._observed[name])
            shifted = torch.cat([self._observed[name][:, 1:], last], dim=1)
            new = self._new_episode.reshape(-1, *(1,) * (shifted.ndim - 1))
            self._observed[name] = torch.where(new, repeated.to(shifted), shifted)

    def _plan(self, chosen: Tensor, seed: list[int] | None) -> None:
        """Plans for the environments with these indices."""
        warm = torch.full_like(chosen, self.warm_start is not None, dtype=torch.bool)
        warm &= ~self._new_episode[chosen]
        for group, options in ((chosen[~warm], {}), (chosen[warm], self._start(chosen[warm]))):
            if not len(group):
                continue
            observations = {name: values[group] for name, values in self._observed.items()}
            seeds = None if seed is None else [seed[i] for i in group.tolist()]
            plans = self.policy.plan(observations, seed=seeds, **self.options, **options)
            self._plans[group] = plans.to(self._plans)
        self._executed_steps[chosen] = 0

    def _start(self, group: Tensor) -> dict[str, Any]:
        """Returns the last plans without their executed actions, padded with the last action."""
        plans, executed = self._plans[group], self.policy.action_steps
        tail = plans[:, -1:].expand(-1, executed, -1)
        return {"start": torch.cat([plans[:, executed:], tail], dim=1), "strength": self.warm_start}


def _check_alike(name: str, newest: Tensor, before: Tensor) -> None:
    """Raises ValueError if a stream has another shape or kind of dtype than before."""
    kinds = [v.dtype.is_floating_point or v.dtype for v in (newest, before)]
    if newest.shape[1:] != before.shape[2:] or kinds[0] != kinds[1]:
        raise ValueError(
            f"Expected {name!r} as before, {[*before.shape[2:]]} of {before.dtype}, got "
            f"{[*newest.shape[1:]]} of {newest.dtype}. Fix: pass the same form at each step, or "
            "call reset() first."
        )
