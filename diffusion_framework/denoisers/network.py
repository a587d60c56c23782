"""From a network to a denoiser that remembers what it feeds back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from ..conditions import BoundConditions
from ..process.level import Level, Prediction
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule
from .preconditioning import Preconditioning
from .signature import NetworkSignature


@final
@dataclass(frozen=True)
class NetworkParts:
    """What all denoisers of one diffusion share.

    Attributes:
        network: The network; see `NetworkSignature` for how it is called.
        signature: What it takes and gives.
        schedule: Gives the meaning of levels.
        objective: Gives the meaning of the network's output.
        preconditioning: What the network sees of x and of its level.
        bounds: Range that estimates fed back are clipped to, or None.
        feeds_back: Whether the network gets its last estimate and latents; False for a network
            that was trained without.
    """

    network: nn.Module
    signature: NetworkSignature
    schedule: NoiseSchedule
    objective: Objective
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    bounds: tuple[float, float] | None = (-1.0, 1.0)
    feeds_back: bool = True

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
        dtypes = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return next(dtypes, torch.float32)

    @property
    def exact_dtype(self) -> torch.dtype:
        """The dtype of noise, x and losses: the network's, and at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def estimate(self) -> str | None:
        """Keyword for the network's last estimate of the clean data, if it is fed back."""
        return self.signature.estimate if self.feeds_back else None

    @property
    def latents(self) -> str | None:
        """Keyword for the network's last latents, if they are fed back."""
        return self.signature.latents if self.feeds_back else None

    def call(
        self, x: Tensor, at: Level, to: Level | None, condition: dict[str, Tensor], memory: Memory
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Calls the network: the only place where that happens.

        Floats go to it in the dtype of its weights, times in float32.

        Returns:
            The output, shaped like x and of its dtype; the learned variance, or None; and the next
            latents, or None.
        """
        dtype = self.dtype
        given: dict[str, Any] = dict(condition)
        if self.estimate:  # absent memory is zeros, so that compiling makes one graph
            given[self.estimate] = torch.zeros_like(x) if memory.x0 is None else memory.x0
        if self.latents:
            given |= {self.latents: memory.latents, "return_latents": True}
        given = {name: _cast(value, dtype) for name, value in given.items()}
        if self.signature.second_time:
            given["second_time"] = self.preconditioning.time(at if to is None else to, x)
        seen = self.preconditioning.seen(x, at).to(dtype)
        output = self.network(seen, self.preconditioning.time(at, x), **given)
        latents = None
        if self.latents:
            output, latents = self.signature.check_latents(output)
        output = self.signature.check_output(output, x).to(x.dtype)
        if self.signature.learned_variance:
            output, raw = output.chunk(2, dim=1)
            return output, (raw + 1) / 2, latents
        return output, None, latents


@final
@dataclass
class Memory:
    """What one trajectory feeds back to the network, without gradient.

    Attributes:
        x0: The last estimate of the clean data, clipped to its bounds; None before the first call.
        latents: The last latents; None before the first call.
    """

    x0: Tensor | None = None
    latents: Tensor | None = None


@final
class NetworkDenoiser:
    """A network told its conditions, with the memory of one trajectory.

    Self-conditioning (Chen et al. 2023, "Analog bits") gives the network its own last estimate of
    the clean data; latent self-conditioning (Jabri et al. 2022) gives it its last latents. Both
    come from the call before, whatever its level: a sampler that looks at several levels in one
    step carries them from look to look. Use a fresh denoiser for each trajectory.

    Args:
        parts: What all denoisers of one diffusion share.
        conditions: What the network is told, encoded.
    """

    def __init__(self, parts: NetworkParts, conditions: BoundConditions) -> None:
        self.parts, self.conditions = parts, conditions
        self.schedule, self.objective = parts.schedule, parts.objective
        self.memory = Memory()

    def without(self, names: Collection[str] | None = None) -> NetworkDenoiser:
        """A denoiser of the same network that is not told these conditions.

        It has a memory of its own.

        Args:
            names: Names of the conditions; None is all that training drops.

        Raises:
            ValueError: a condition that training never drops.
        """
        return NetworkDenoiser(self.parts, self.conditions.without(names))

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        (prediction,) = predict_together((self,), x, at, to)
        return prediction

    def output(self, x: Tensor, at: Level, to: Level | None = None) -> tuple[Tensor, Tensor | None]:
        """The network's output before the objective gives it a meaning, and the learned variance.

        Leaves the memory as it is.
        """
        output, variance, _ = self.parts.call(x, at, to, self.conditions.keywords, self.memory)
        return output, variance

    def remember(self, x0: Tensor, latents: Tensor | None) -> None:
        """Keeps what the next call is fed, as far as the network takes it."""
        if self.parts.estimate:
            x0, bounds = x0.detach(), self.parts.bounds
            self.memory.x0 = x0 if bounds is None else x0.clamp(*bounds)
        if self.parts.latents:
            self.memory.latents = latents


def predict_together(
    denoisers: Sequence[NetworkDenoiser], x: Tensor, at: Level, to: Level | None = None
) -> list[Prediction]:
    """The predictions of several denoisers, by one call of each network.

    Denoisers of one network share a call: its batch holds x once for each of them. The results are
    those of separate calls, up to rounding, and memories stay apart.

    Args:
        denoisers: Told different things, or of different networks.
        x: Samples [batch, ...] at level `at`.
        at: A level of floats, or of tensors [batch].
        to: The level that the step goes to.

    Returns:
        One prediction for each denoiser, in their order.
    """
    if len(denoisers) == 1:
        return _predict(denoisers, x, at, to)
    found: dict[int, Prediction] = {}
    for network in {id(denoiser.parts.network): None for denoiser in denoisers}:
        places = [i for i, d in enumerate(denoisers) if id(d.parts.network) == network]
        group = [denoisers[i] for i in places]
        for place, prediction in zip(places, _predict(group, x, at, to), strict=True):
            found[place] = prediction
    return [found[place] for place in range(len(denoisers))]


def _predict(
    group: Sequence[NetworkDenoiser], x: Tensor, at: Level, to: Level | None
) -> list[Prediction]:
    """The predictions of denoisers of one network."""
    parts, count = group[0].parts, len(group)
    memory, told = group[0].memory, group[0].conditions.keywords
    many, many_at, many_to = x, at, to
    if count > 1:
        keywords = [denoiser.conditions.keywords for denoiser in group]
        told = {name: torch.cat([k[name] for k in keywords]) for name in told}
        memory = Memory(
            _side_by_side([denoiser.memory.x0 for denoiser in group]),
            _side_by_side([denoiser.memory.latents for denoiser in group]),
        )
        many = x.repeat(count, *(1,) * (x.ndim - 1))
        many_at, many_to = _repeated(at, count), to and _repeated(to, count)
    output, variance, latents = parts.call(many, many_at, many_to, told, memory)
    predictions = []
    shares = (_shares(value, count) for value in (output, variance, latents))
    for denoiser, own, own_variance, own_latents in zip(group, *shares, strict=True):
        assert own is not None
        prediction = parts.objective.prediction(own, x, at, own_variance)
        denoiser.remember(prediction.x0, own_latents)
        predictions.append(prediction)
    return predictions


def _side_by_side(values: Sequence[Tensor | None]) -> Tensor | None:
    """One batch of all memories; zeros for those that are still empty."""
    known = next((value for value in values if value is not None), None)
    if known is None:
        return None
    return torch.cat([torch.zeros_like(known) if value is None else value for value in values])


def _shares(value: Tensor | None, count: int) -> Sequence[Tensor | None]:
    return [value] * count if value is None or count == 1 else value.chunk(count)


def _repeated(at: Level, count: int) -> Level:
    if not isinstance(at.sigma, Tensor):
        return at
    return Level(*(value.repeat(count) for value in (at.t, at.alpha, at.sigma, at.log_snr)))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floats in another dtype; everything else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
