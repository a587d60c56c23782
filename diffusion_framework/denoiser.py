"""From a network to a `Denoiser`, which is all that samplers and guidance see."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .network_input import InputScaling, TimeInput
from .process.level import Level, Prediction
from .process.objectives import Objective
from .process.schedules import NoiseSchedule


class Denoiser(Protocol):
    """`denoise(x, at) -> Prediction` for x [batch, ...] at one level, of floats or of one tensor entry a sample."""

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, at: Level) -> Prediction: ...


class Mapped:
    """A denoiser whose clean data goes through a function; the noise is read off again so that both still make up x.

    Args:
        denoise: Any denoiser.
        change: From clean data [batch, ...] to clean data, such as `Clip()` or `Threshold()`.
    """

    def __init__(self, denoise: Denoiser, change: Callable[[Tensor], Tensor]) -> None:
        self.denoise, self.change = denoise, change
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        prediction = self.denoise(x, at)
        return Prediction.from_x0(self.change(prediction.x0), x, at, prediction.variance)


@dataclass(frozen=True)
class Clip:
    """Cuts clean data off at -limit and limit, which is above 0."""

    limit: float = 1.0

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"Clip needs a limit above 0; got {self.limit}")

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class Threshold:
    """Dynamic thresholding: each sample is clipped at a percentile of its sizes, and divided by it, if that is above 1.

    It keeps strongly guided samples from saturating (Saharia et al. 2022, sec. 2.3).

    Args:
        ratio: Share of the sizes below the percentile, in [0, 1].
        maximum: The percentile is taken as this at most; at least 1.

    Raises:
        ValueError: an option out of range.
    """

    ratio: float = 0.995
    maximum: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.ratio <= 1 <= self.maximum):
            raise ValueError(f"Threshold needs a ratio in [0, 1] and a maximum of at least 1; got {self}")

    def __call__(self, x0: Tensor) -> Tensor:
        sizes = x0.abs().flatten(1)
        below, part = divmod(self.ratio * (sizes.shape[1] - 1), 1)
        # much faster than torch.quantile, and without its limit
        top = sizes.topk(sizes.shape[1] - int(below), dim=1).values
        limit = torch.lerp(top[:, -1:], top[:, -2:-1], part) if part else top[:, -1:]
        limit = limit.clamp(1.0, self.maximum).reshape(-1, *(1,) * (x0.ndim - 1))
        return x0.clamp(-limit, limit) / limit


class Memoryless:
    """A denoiser made anew for each call, so that it is a function of x and the level alone, without self-conditioning.

    Args:
        make: Gives a fresh denoiser.
    """

    def __init__(self, make: Callable[[], Denoiser]) -> None:
        self.make = make
        self.schedule = make().schedule

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        return self.make()(x, at)


class NetworkDenoiser:
    """A network, its conditions bound, as a denoiser that feeds its last estimates back to it.

    Self-conditioning (Chen et al. 2023, "Analog bits") gives the network its own last estimate of the clean data,
    clipped to [-1, 1]; latent self-conditioning (Jabri et al. 2022) gives it its last latents. Both are remembered
    here, without gradient: use a fresh one for each trajectory. They come from the call before, whatever its level: a
    sampler that looks at several levels in one step carries them from look to look, and from the last to the next step.

    Args:
        network: `network(x, time, self_cond=..., latents=..., return_latents=True, **condition)`, where those three
            are passed only to a network that takes them (see `feeds_back`). time is float32 [batch].
        schedule: Gives the meaning of levels.
        objective: Gives the meaning of the network's output.
        condition: Further keyword arguments of every call.
        time_input: How the network is told the level.
        input_scaling: How x is scaled before the network sees it, or None; the objective still reads the output
            against x itself.
        feed_back: Whether to feed anything back: not to a network that was trained without.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        objective: Objective,
        condition: Mapping[str, Any],
        time_input: TimeInput,
        input_scaling: InputScaling | None,
        feed_back: bool = True,
    ) -> None:
        self.network, self.schedule, self.objective = network, schedule, objective
        self.condition, self.time_input, self.input_scaling = condition, time_input, input_scaling
        self.feeds_back_x0, self.feeds_back_latents = feeds_back(network) if feed_back else (False, False)
        self.last_x0: Tensor | None = None
        self.last_latents: Tensor | None = None

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        output, variance = self.output(x, at)
        prediction = self.objective.prediction(output, x, at, variance)
        if self.feeds_back_x0:
            self.last_x0 = prediction.x0.detach().clamp(-1, 1)
        return prediction

    def output(self, x: Tensor, at: Level) -> tuple[Tensor, Tensor | None]:
        """The network's output before the objective gives it a meaning, and the variance if that is learned."""
        time = self.time_input.time(at)
        if isinstance(time, Tensor):
            time = time.float().expand(len(x))
        else:  # filled on the device: a copy from the host would wait for it
            time = torch.full((len(x),), time, device=x.device)
        fed_back: dict[str, Any] = {}
        if self.feeds_back_x0:
            fed_back["self_cond"] = self.last_x0
        if self.feeds_back_latents:
            fed_back.update(latents=self.last_latents, return_latents=True)
        seen = x if self.input_scaling is None else self.input_scaling.scaled(x, at)
        output = self.network(seen, time, **fed_back, **self.condition)
        if self.feeds_back_latents:
            output, latents = output
            self.last_latents = latents.detach()
        output = output.to(x.dtype)
        if output.shape[1] == 2 * x.shape[1]:
            output, raw = output.chunk(2, dim=1)
            return output, (raw + 1) / 2
        return output, None


def feeds_back(network: nn.Module) -> tuple[bool, bool]:
    """Whether a network takes its own last estimate of the clean data, and its own last latents.

    It takes the first if `forward` names `self_cond`, unless its attribute `self_condition` is False; the second if
    `forward` names both `latents` and `return_latents`.
    """
    names = inspect.signature(network.forward).parameters
    takes_x0 = "self_cond" in names and getattr(network, "self_condition", True)
    return takes_x0, "latents" in names and "return_latents" in names
