"""Denoiser of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from ..conditions import BoundConditions
from ..process.level import Level, Prediction
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule
from ..spaces import DataSpace
from .memory import Feedback, Memory, Recalled
from .preconditioning import Preconditioning
from .signature import NetworkSignature


@final
@dataclass(frozen=True)
class NetworkParts:
    """Parts that all denoisers of one diffusion share.

    Attributes:
        network: Network, called as `NetworkSignature` describes.
        signature: Inputs and outputs of the network.
        schedule: Noise schedule, which defines the levels.
        objective: Objective, which defines the meaning of the network's output.
        space: Data space, which defines the meaning of clean data.
        preconditioning: Time input and input scaling of the network.
        feedback: What the network sees of its earlier estimates; factor 0 for one trained without
            self-conditioning.
    """

    network: nn.Module
    signature: NetworkSignature
    schedule: NoiseSchedule
    objective: Objective
    space: DataSpace
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    feedback: Feedback = field(default_factory=Feedback)

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the network's weights."""
        dtypes = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return next(dtypes, torch.float32)

    @property
    def exact_dtype(self) -> torch.dtype:
        """Dtype of noise, x and losses: that of the weights, but at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def estimate(self) -> str | None:
        """Keyword argument for the last estimate of the clean data; None if not fed back."""
        return self.signature.estimate if self.feedback.factor else None

    @property
    def latents(self) -> str | None:
        """Keyword argument for the last latents; None if not fed back."""
        return self.signature.latents if self.feedback.factor else None

    def call(
        self, x: Tensor, at: Level, to: Level | None, condition: dict[str, Tensor], seen: Recalled
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Calls the network; no other code does.

        Floating-point inputs are cast to the dtype of the weights; times are float32.

        Returns:
            The output, in the shape and dtype of x; the learned variance, or None; and the next
            latents, or None.
        """
        dtype = self.dtype
        given: dict[str, Any] = dict(condition)
        told = self.estimate or (self.signature.needs_estimate and self.signature.estimate)
        if told:  # zeros for an empty memory, so that torch.compile needs one graph
            given[told] = torch.zeros_like(x) if seen.x0 is None else seen.x0
        if self.latents:
            given |= {self.latents: seen.latents, "return_latents": True}
        given = {name: _cast(value, dtype) for name, value in given.items()}
        if self.signature.second_time:
            given["second_time"] = self.preconditioning.time(at if to is None else to, x)
        scaled = self.preconditioning.seen(x, at).to(dtype)
        with self.signature.unchanged(x, *condition.values()):
            output = self.network(scaled, self.preconditioning.time(at, x), **given)
        latents = None
        if self.latents:
            output, latents = self.signature.check_latents(output)
        output = self.signature.check_output(output, x).to(x.dtype)
        if self.signature.learned_variance:
            output, raw = output.chunk(2, dim=1)
            return output, (raw + 1) / 2, latents
        return output, None, latents


@final
class NetworkDenoiser:
    """Denoiser of a network with conditions, which remembers its last call.

    With self-conditioning (Chen et al. 2023, "Analog bits"), the network sees its previous estimate
    of the clean data. With latent self-conditioning (Jabri et al. 2022), it sees its previous
    latent tokens. Calling the denoiser updates this memory; `output` does not. The previous call
    counts, even if a sampler makes several calls in one step. Each sampling run needs a new
    denoiser, whose memory is empty.

    Args:
        parts: The network and the parts that give it a meaning.
        conditions: Encoded conditions of the batch.
    """

    def __init__(self, parts: NetworkParts, conditions: BoundConditions) -> None:
        self.parts, self.conditions = parts, conditions
        self.schedule, self.objective = parts.schedule, parts.objective
        self.memory = Memory(parts.feedback, parts.space.bounds)

    def fresh(self) -> NetworkDenoiser:
        """Returns a denoiser under the same conditions, with an empty memory."""
        return NetworkDenoiser(self.parts, self.conditions)

    def fed(self, feedback: Feedback) -> NetworkDenoiser:
        """Returns a denoiser whose network sees its earlier estimates so, with an empty memory.

        Args:
            feedback: What the network sees; its factor multiplies that of training.
        """
        factor = self.parts.feedback.factor * feedback.factor
        parts = replace(self.parts, feedback=replace(feedback, factor=factor))
        return NetworkDenoiser(parts, self.conditions)

    def without(self, names: Collection[str] | None = None) -> NetworkDenoiser:
        """Returns a denoiser of the same network without some conditions, with its own memory.

        Args:
            names: Names of the conditions to leave out; None for all that training dropped.

        Raises:
            ValueError: If training never dropped one of them.
        """
        return NetworkDenoiser(self.parts, self.conditions.without(names))

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        """Returns the prediction for x at its level, and remembers it; see `Denoiser`."""
        (prediction,) = predict_together((self,), x, at, to)
        return prediction

    def output(self, x: Tensor, at: Level, to: Level | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns the network's raw output, and the learned variance or None.

        The memory does not change.
        """
        seen = self.memory.recalled(at)
        output, variance, _ = self.parts.call(x, at, to, self.conditions.keywords, seen)
        return output, variance

    def remember(self, x0: Tensor, at: Level, latents: Tensor | None) -> None:
        """Stores the estimate at a level and the latents, if the network takes them."""
        if self.parts.estimate:
            self.memory.remember(x0, at)
        if self.parts.latents:
            self.memory.latents = latents


class Guide(ABC):
    """Interface of models that predict clean data with one network, and so can guide others."""

    @abstractmethod
    def told(self, values: Mapping[str, Any], batch: int | None = None) -> NetworkDenoiser:
        """Returns the denoiser under these conditions, without guidance and with an empty memory.

        Args:
            values: Values of conditions by name; those that the model does not have are ignored.
            batch: Number of samples; None takes it from the values.

        Raises:
            ValueError: If a value does not fit.
        """


def predict_together(
    denoisers: Sequence[NetworkDenoiser], x: Tensor, at: Level, to: Level | None = None
) -> list[Prediction]:
    """Returns the predictions of several denoisers, with one call of each network.

    Denoisers of the same network share one call on a batch that repeats x. The results equal
    separate calls up to rounding, and each denoiser keeps its own memory.

    Args:
        denoisers: Denoisers of one or more networks, under different conditions.
        x: Samples [batch, ...] at level `at`.
        at: Level of floats, or of tensors [batch].
        to: Level at the end of the step; None stands for `at`.

    Returns:
        Predictions in the order of the denoisers.
    """
    if len(denoisers) == 1:
        return _predict(denoisers, x, at, to)
    found: dict[int, Prediction] = {}
    for network in {id(denoiser.parts.network): None for denoiser in denoisers}:
        positions = [i for i, d in enumerate(denoisers) if id(d.parts.network) == network]
        group = [denoisers[i] for i in positions]
        for position, prediction in zip(positions, _predict(group, x, at, to), strict=True):
            found[position] = prediction
    return [found[position] for position in range(len(denoisers))]


def _predict(
    group: Sequence[NetworkDenoiser], x: Tensor, at: Level, to: Level | None
) -> list[Prediction]:
    """Returns the predictions of denoisers of the same network."""
    parts, count = group[0].parts, len(group)
    recalled, told = group[0].memory.recalled(at), group[0].conditions.keywords
    many, many_at, many_to = x, at, to
    if count > 1:
        keywords = [denoiser.conditions.keywords for denoiser in group]
        told = {name: torch.cat([k[name] for k in keywords]) for name in told}
        each = [denoiser.memory.recalled(at) for denoiser in group]
        recalled = Recalled(*(_concatenated(values) for values in zip(*each, strict=True)))
        many = x.repeat(count, *(1,) * (x.ndim - 1))
        many_at, many_to = _repeated(at, count), to and _repeated(to, count)
    output, variance, latents = parts.call(many, many_at, many_to, told, recalled)
    predictions = []
    chunks = (_chunks(value, count) for value in (output, variance, latents))
    for denoiser, own, own_variance, own_latents in zip(group, *chunks, strict=True):
        assert own is not None
        prediction = parts.objective.prediction(own, x, at, own_variance)
        denoiser.remember(prediction.x0, at, own_latents)
        predictions.append(prediction)
    return predictions


def _concatenated(values: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenates memories along the batch, with zeros for empty ones; None if all are empty."""
    known = next((value for value in values if value is not None), None)
    if known is None:
        return None
    return torch.cat([torch.zeros_like(known) if value is None else value for value in values])


def _chunks(value: Tensor | None, count: int) -> Sequence[Tensor | None]:
    return [value] * count if value is None or count == 1 else value.chunk(count)


def _repeated(at: Level, count: int) -> Level:
    if not isinstance(at.sigma, Tensor):
        return at
    return Level(*(value.repeat(count) for value in (at.t, at.alpha, at.sigma, at.log_snr)))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Casts a floating-point tensor; returns any other value unchanged."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
