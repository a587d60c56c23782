"""`DiffusionPolicy`: a diffusion model of action sequences, given observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..conditions import Conditioner, Keywords, ObservationEncoder
from ..diffusion import GaussianDiffusion
from ..process.level import check_step_count
from ..samplers import Sampler
from ..samplers.grids import Grid
from ..spaces import DataSpace, Normalizer
from .controller import RecedingHorizon
from .windows import EpisodeWindows, check_windows

Observations = Mapping[str, Tensor]


class DiffusionPolicy(GaussianDiffusion):
    """A robot's policy: plans of actions, drawn given the last observations (Chi et al. 2023).

    It is a `GaussianDiffusion` whose samples are what its network makes: with a network of action sequences
    [batch, horizon, action_dim], `policy(actions, observations=..., mask=...)` is the training loss,
    `policy.predict(observations)` the next actions, and `policy.act(observation)` the next one. Actions and
    observations are given and returned as they were measured. Without a normalizer they lie in [0, 1] as images do.

    Args:
        model: The network: `UNet1D`, `Transformer1D`, `ResidualMLP`, or one of your own with `sample_shape`
            (horizon, action_dim) that takes `context` [batch, observation_steps, numbers].
        horizon: Actions of a plan; None is the network's.
        observation_steps: Observations that a plan is made from, the newest last.
        action_steps: Actions of a plan that are executed, from the step of the newest observation on.
        normalizer: Of actions and observations; the Trainer fits it to the training data, and it is saved with the
            weights. Only acting needs it.
        encoder: From observations to the network's context; None puts streams of numbers side by side.
        relative_to: Name of the observation stream whose first numbers, in the newest observation, actions are counted
            from; None takes them as they are.
        plan_steps: Steps of the sampler for a plan, unless told otherwise.
        timesteps: As for `GaussianDiffusion`, like all further options.

    Raises:
        ValueError: options out of range, more action_steps than a plan has, or those of `GaussianDiffusion`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        horizon: int | None = None,
        observation_steps: int = 2,
        action_steps: int = 8,
        normalizer: Normalizer | None = None,
        encoder: ObservationEncoder | None = None,
        relative_to: str | None = None,
        plan_steps: int = 16,
        timesteps: int = 100,
        **options: Any,
    ) -> None:
        if normalizer is not None:
            options["space"] = _Actions(self)
        if 0 not in getattr(model, "context_shape", (0,)):
            options["conditions"] = {"observations": _Observations(self)}
        super().__init__(model, timesteps=timesteps, **options)
        self.observation_steps, self.action_steps, self.plan_steps = observation_steps, action_steps, plan_steps
        self.normalizer, self.relative_to = normalizer, relative_to
        self.encoder = encoder or ObservationEncoder()
        self.acting = RecedingHorizon()
        if normalizer is None:
            return
        check_step_count(plan_steps, "plan_steps")
        if len(self.sample_shape) != 2 or horizon not in (None, self.horizon):
            raise ValueError(
                f"the network makes samples of shape {self.sample_shape}; a policy wants ({horizon or 'horizon'}, "
                "action_dim): take a network of action sequences, or leave horizon to it"
            )
        check_windows(self.horizon, observation_steps, action_steps)

    @property
    def horizon(self) -> int:
        """Actions of a plan."""
        return self.sample_shape[0]

    @property
    def executed(self) -> slice:
        """The part of a plan that is executed: from the newest observation on."""
        return slice(self.observation_steps - 1, self.observation_steps - 1 + self.action_steps)

    def fit(self, dataset: Any) -> None:
        """Fit the normalizer to the training data, unless it was fitted before.

        Raises:
            ValueError: data that does not fit the policy, or holds NaN.
        """
        if self.normalizer is None or self.normalizer.streams:
            return
        if not isinstance(dataset, EpisodeWindows):
            raise ValueError(
                "the normalizer fits itself to EpisodeWindows only; call policy.normalizer.fit({'action': ..., ...}) "
                f"before training on {type(dataset).__name__}"
            )
        if (theirs := (dataset.horizon, dataset.action_dim)) != self.sample_shape:
            raise ValueError(
                f"the data has actions [{theirs[0]}, {theirs[1]}], the network makes "
                f"[{', '.join(map(str, self.sample_shape))}]: set its horizon and action_dim to match"
            )
        streams, actions = dataset.numbers(self.relative_to)
        self.normalizer.fit({**streams, "action": actions})

    def to_network(self, images: Tensor, *, observations: Observations | None = None, **condition: Any) -> Tensor:
        """Actions as measured, to the range of the network."""
        assert self.normalizer is not None
        if not torch.isfinite(images).all():
            raise ValueError("actions hold NaN or infinity; clean the data")
        return self.normalizer.normalize("action", images - self._origin(observations))

    def to_actions(self, x: Tensor, *, observations: Observations | None = None, **condition: Any) -> Tensor:
        """Undo `to_network`."""
        assert self.normalizer is not None
        return self.normalizer.unnormalize("action", x) + self._origin(observations)

    def _context(self, observations: Observations) -> Tensor:
        """What the network is told of the observations."""
        return self.encoder(self._normalized(observations))

    def _normalized(self, observations: Observations) -> dict[str, Tensor]:
        if self.normalizer is None:
            return dict(observations)
        numbers = {name for name in observations if name not in self.encoder.images}
        for name in numbers:
            if not torch.isfinite(observations[name]).all():
                raise ValueError(f"observation {name!r} holds NaN or infinity; clean the data, or mend the sensor")
        normalize = self.normalizer.normalize
        return {name: normalize(name, v).float() if name in numbers else v for name, v in observations.items()}

    def _origin(self, observations: Observations | None) -> Tensor | float:
        """What actions are counted from, [batch, 1, action_dim]."""
        if self.relative_to is None:
            return 0.0
        if observations is None or self.relative_to not in observations:
            raise ValueError(f"actions are relative to the observation {self.relative_to!r}; give it")
        origin = observations[self.relative_to][:, self.observation_steps - 1, None, : self.sample_shape[1]]
        return origin.float()

    @torch.no_grad()
    def plan(
        self,
        observations: Observations,
        *,
        sampler: Sampler | None = None,
        steps: int | str | None = None,
        grid: Grid | None = None,
        seed: Sequence[int] | None = None,
        last: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Whole plans.

        Args:
            observations: By stream, [batch, observation_steps, ...], as measured.
            sampler: The sampler; None is the policy's own.
            steps: Its steps; None is plan_steps.
            grid: Other levels to walk, in place of steps.
            seed: One seed for each plan; None draws from torch's default generator.
            last: Plans [batch, horizon, action_dim] to start from, as noisy as at time `strength`.
            strength: See last; in (0, 1]. Below 1 only the steps that start there or later are made.

        Returns:
            [batch, horizon, action_dim]; action observation_steps - 1 belongs to the newest observation.

        Raises:
            ValueError: observations of another shape, not finite, or of an unfitted normalizer.
            FloatingPointError: the network gave NaN or infinity.
        """
        normalizer = self._ready(observations)
        return self.sample(
            len(next(iter(observations.values()))),
            sampler=sampler,
            steps=self.plan_steps if steps is None and grid is None else steps,
            grid=grid,
            seed=seed,
            start=last,
            strength=strength,
            clip_denoised=normalizer.is_bounded("action"),
            show_progress=False,
            observations=observations,
        )

    def predict(self, observations: Observations, **options: Any) -> Tensor:
        """The actions to execute next, [batch, action_steps, action_dim]; arguments as for `plan`."""
        return self.plan(observations, **options)[:, self.executed]

    def _ready(self, observations: Observations) -> Normalizer:
        if self.normalizer is None:
            raise ValueError("acting needs a normalizer; build the policy with normalizer=Normalizer() and train it")
        for name, values in observations.items():
            if values.ndim < 3 or values.shape[1] != self.observation_steps:
                raise ValueError(
                    f"observation {name!r} must be [batch, {self.observation_steps}, ...]; got {[*values.shape]}"
                )
        return self.normalizer

    def act(self, observation: Mapping[str, Any], **options: Any) -> Tensor:
        """The next action of one environment, or of each of several that go side by side.

        Plans are made as they are needed, and their first action_steps actions handed out one by one.

        Args:
            observation: By stream, the newest [...], or [environments, ...].
            options: As for `plan`; and `warm_start` in (0, 1): start plans from the end of the last ones, as noisy as
                at that time.

        Returns:
            [action_dim], or [environments, action_dim].
        """
        return self.acting.act(self, observation, **options)

    def reset(self, which: Sequence[bool] | Tensor | None = None) -> None:
        """Forget the past of all environments, or of those where `which` is true: a new episode begins."""
        self.acting.reset(which)

    @torch.no_grad()
    def validation_metrics(
        self, data: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """The loss, and `action_error`: root mean squared error of sampled actions that would be executed."""
        metrics = super().validation_metrics(data, generator=generator, **condition)
        if self.normalizer is None:
            return metrics
        observations, mask = condition["observations"], condition.get("mask")
        seeds = torch.randint(2**62, (len(data),), generator=generator, device=self.device).tolist()
        off = (self.predict(observations, seed=seeds) - data[:, self.executed]).square().mean(dim=2)
        counted = torch.ones_like(off) if mask is None else mask[:, self.executed].to(off)
        return {**metrics, "action_error": ((off * counted).sum() / counted.sum()).sqrt()}


class _Actions(DataSpace):
    """Actions as measured, through the policy's normalizer."""

    bounds = (-1.0, 1.0)
    sigma_data = 0.5

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = (policy,)  # in a tuple, so that it is not a part of its own part

    def encode(self, data: Tensor, condition: Mapping[str, Any]) -> Tensor:
        return self.policy[0].to_network(data, **condition)

    def decode(self, x0: Tensor, condition: Mapping[str, Any]) -> Tensor:
        return self.policy[0].to_actions(x0, **condition)


class _Observations(Conditioner):
    """Observations as measured, through the policy's normalizer and encoder."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__(("context",))
        self.policy = (policy,)

    def encode(self, value: Observations) -> Keywords:
        return {"context": self.policy[0]._context(value)}

    def none(self, like: Keywords) -> Keywords:
        raise NotImplementedError("policies know no guidance")
