"""Series in an `Unbounded` space: a year of temperature and rain, in their own units.

A data space maps the user's units to the range of the network and back. `Unbounded` fits a mean and
a standard deviation to the training data, here for each variable, and never clips. Latents of an
autoencoder and physical fields work alike. Training takes two minutes on two CPU cores.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.models import UNet1D
from diffusion_framework.spaces import Unbounded


def years(count: int) -> Tensor:
    """Returns weekly temperature (°C) and rain (mm) at many places, [count, 48, 2]."""
    generator = torch.Generator().manual_seed(0)
    mean, swing, wet, shift = (torch.rand(count, 1, generator=generator) for _ in range(4))
    season = torch.cos(2 * math.pi * (torch.arange(48) / 48 + 0.1 * shift))
    weather = torch.randn(2, count, 48, generator=generator)
    temperature = 20 * mean - (3 + 9 * swing) * season + 1.5 * weather[0]
    rain = 400 * wet + 90 * season + 20 * weather[1]
    return torch.stack([temperature, rain], dim=-1)


def main(steps: int = 1500, folder: str | Path = "results/series") -> Tensor:
    """Trains, compares statistics of data and samples, and returns the samples [256, 48, 2]."""
    data = years(4000)
    network = UNet1D(horizon=48, action_dim=2, observation_steps=0, down_dims=(32, 64))
    diffusion = GaussianDiffusion(network, space=Unbounded(axis=-1))  # variables come last
    trainer = Trainer(diffusion, data, train_lr=1e-3, train_num_steps=steps, results_folder=folder)
    trainer.train()  # fits the statistics first

    trained = GaussianDiffusion.from_pretrained(folder)
    samples = trained.sample(256, steps=min(steps, 50), seed=0)
    for name, values in {"data": data, "samples": samples}.items():
        for variable, unit in enumerate(("°C", "mm")):
            mean, weekly = values[..., variable].mean(), values[..., variable].diff(dim=1).std()
            print(f"{name}: mean {mean:.1f} {unit}, change from week to week {weekly:.1f} {unit}")
    return samples


if __name__ == "__main__":
    main()
