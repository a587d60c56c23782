"""The loss of a training batch: levels and noise are drawn, and the network is called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import BoundConditions
from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.noise import generator_noise, uniform_number
from .base import Loss, NoisedBatch
from .levels import SampledLevels
from .times import TimeSampler
from .weights import LossWeight


@dataclass(frozen=True)
class TrainingLoss:
    """Losses of clean samples at levels and with noise that are drawn for them.

    Args:
        parts: The network and the parts that give it a meaning.
        loss: Loss of a noised batch.
        times: Time sampler.
        weight: Weight on the squared error of x0; None for weight 1 on that of the output.
        self_conditioning: Probability that the network sees its own estimate of x0.
        memory: Memory of the time sampler, or None.
    """

    parts: NetworkParts
    loss: Loss
    times: TimeSampler
    weight: LossWeight | None
    self_conditioning: float
    memory: Tensor | None

    def __call__(
        self,
        x0: Tensor,
        bound: BoundConditions,
        *,
        generator: torch.Generator | None,
        self_condition_draw: float | None,
        mask: Tensor | None,
        progress: float,
    ) -> tuple[Tensor, SampledLevels]:
        """Returns the loss of each sample, [batch], and its noise level.

        Args:
            x0: Clean samples, [batch, ...].
            bound: Conditions of the batch.
            generator: Generator of levels and noise; None for PyTorch's default.
            self_condition_draw: Uniform number that decides on self-conditioning; None draws it.
            mask: Mask over the leading dimensions of x0; or None.
            progress: Completed share of training, in [0, 1].
        """
        schedule, parts = self.parts.schedule, self.parts
        uniform = self.times.uniform(len(x0), x0.device, generator)
        sampled = self.times.draw(schedule, uniform, self.memory)
        level, eps = sampled.at.expand_to(x0), generator_noise(generator)(x0)
        x, steps = level.alpha * x0 + level.sigma * eps, self.times.fixed_steps
        batch = NoisedBatch(x0, eps, x, sampled.at, mask, self.weight, steps, progress, generator)
        denoise = NetworkDenoiser(parts, bound)
        if self_condition_draw is None:
            self_condition_draw = uniform_number(generator)
        if self_condition_draw < self.self_conditioning and (parts.estimate or parts.latents):
            with torch.no_grad():
                denoise(x, sampled.at)  # it remembers its estimate, which the loss's call then sees
        return self.loss(denoise, batch), sampled
