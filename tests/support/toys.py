"""Small networks and data for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_framework import RIN, DiT, GaussianDiffusion, UNet
from diffusion_framework.storage.config import RecordsArguments
from diffusion_framework.training import Loading, Logging

QUIET = {"loading": Loading(num_workers=0), "logging": Logging(progress=False)}  # for a Trainer


def tiny_unet(**options) -> UNet:
    defaults = {
        "dim": 8,
        "dim_mults": (1, 2),
        "channels": 1,
        "image_size": 8,
        "blocks": 1,
        "heads": 1,
        "dim_head": 8,
    }
    return UNet(**{**defaults, **options})


def tiny_rin(**options) -> RIN:
    defaults = {
        "dim": 8,
        "latent_dim": 12,
        "num_latents": 3,
        "blocks": 2,
        "depth": 1,
        "heads": 2,
        "patch_size": 2,
        "channels": 1,
        "image_size": 8,
    }
    return RIN(**{**defaults, **options})


def tiny_dit(**options) -> DiT:
    defaults = {"dim": 8, "depth": 2, "heads": 2, "patch_size": 2, "channels": 1, "image_size": 8}
    return DiT(**{**defaults, **options})


def randomised(network: nn.Module) -> nn.Module:
    """Draws all weights at random, so that no zero initialisation hides an effect."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def tiny_diffusion(**options) -> GaussianDiffusion:
    return GaussianDiffusion(tiny_unet(), **{"timesteps": 4, **options})


class Plain(RecordsArguments, nn.Module):
    """A network that takes only x and time."""

    def __init__(self, channels: int = 1, image_size: int = 4) -> None:
        super().__init__()
        self.channels, self.image_size = channels, image_size
        self.conv = nn.Conv2d(channels, channels, 1)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.seen.append((x, time))
        return self.conv(x)


class SelfConditioned(Plain):
    """A network that takes its last estimate and records its inputs."""

    def forward(self, x: Tensor, time: Tensor, self_cond: Tensor | None = None) -> Tensor:
        self.seen.append((x, self_cond))
        return self.conv(x) + (0 if self_cond is None else 0.1 * self_cond)


class Latent(Plain):
    """A network that carries latents, in which it counts its calls."""

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        latents: Tensor | None = None,
        return_latents=False,
    ):
        self.seen.append((self_cond, latents))
        count = torch.zeros(len(x), 3) if latents is None else latents
        # its gradient must not reach the next call
        count = count + self.conv.weight.mean() * 0 + 1
        out = self.conv(x)
        return (out, count) if return_latents else out
