"""A network that denoises a two-dimensional mixture of classes exactly, for tests of guidance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_framework import Cosine, GaussianDiffusion
from diffusion_framework.conditions import Labels
from diffusion_framework.process.level import Level
from diffusion_framework.spaces import Unbounded
from diffusion_framework.storage.config import RecordsArguments

CENTRES = ((-1.0, 0.2), (0.8, 0.9), (0.3, -1.1))
STDS = (0.3, 0.5, 0.2)
WEIGHTS = (0.5, 0.2, 0.3)
LOG_SNRS = (-2.5, 0.5, 3.25)  # numbers of float32, so that the network's time is exact


class ExactMixture(RecordsArguments, nn.Module):
    """Predicts E[x0 | x], or with a label of a class E[x0 | x, class], in float64.

    Args:
        blur: Standard deviation by which each class is blurred, as a weaker model would.
        by_label: Whether it takes labels.
    """

    sample_shape = (2,)

    def __init__(self, blur: float = 0.0, by_label: bool = True) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(CENTRES, dtype=torch.float64))
        self.variances = torch.tensor(STDS, dtype=torch.float64) ** 2 + blur**2
        self.num_classes = len(CENTRES) if by_label else None
        self.sizes: list[int] = []

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        self.sizes.append(len(x))
        log_snr = time.double()
        alpha, sigma = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]
        log_weights = self.class_scores(x, alpha, sigma)
        if labels is not None:  # the label after the last class stands for none
            known = (labels < len(CENTRES))[:, None]
            own = nn.functional.one_hot(labels, len(CENTRES) + 1)[:, :-1].bool()
            log_weights = torch.where(known & ~own, -torch.inf, log_weights)
        off = x[:, None] - alpha[..., None] * self.centres
        gain = (alpha * self.variances / (alpha**2 * self.variances + sigma**2))[..., None]
        return (log_weights.softmax(1)[..., None] * (self.centres + gain * off)).sum(1)

    def class_scores(self, x: Tensor, alpha, sigma) -> Tensor:
        """Returns log p(class, x) up to a constant, [batch, classes]."""
        variances = alpha**2 * self.variances + sigma**2
        centres = torch.as_tensor(alpha, dtype=x.dtype)[..., None] * self.centres
        off = (x[:, None] - centres).square().sum(2)
        weights = torch.tensor(WEIGHTS, dtype=torch.float64)
        return weights.log() - variances.log() - 0.5 * off / variances


def exact_diffusion(*, dropout=0.1, network=None, conditions=None, **options):
    """Returns a diffusion of the mixture, with the condition `labels` if its network takes it."""
    network = network or ExactMixture(**options)
    if conditions is None:
        conditions = {"labels": Labels(3, dropout=dropout)} if network.num_classes else {}
    return GaussianDiffusion(
        network,
        objective="x0",
        noise_schedule=Cosine(),
        space=Unbounded(mean=0.0, std=1.0),
        conditions=conditions,
        time_input="log_snr",
        timesteps=20,
    ).eval()


def levels() -> list[Level]:
    return [Cosine().at_log_snr(value) for value in LOG_SNRS]


def points(count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
