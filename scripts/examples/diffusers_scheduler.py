"""A scheduler config of diffusers drives a network: schedule, objective, sampler and grid.

Pipelines of diffusers come with a `scheduler_config.json`. `read_scheduler_config` translates it,
without diffusers, into the parts of this library. The network may come from anywhere: it is called
as `network(x, time)`. A `UNet2DModel` of diffusers fits as well, with `sample_shape=` given.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_framework import GaussianDiffusion, UNet
from diffusion_framework.interop import read_scheduler_config

CONFIG = {
    "_class_name": "DPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "use_karras_sigmas": True,
}


def published_network() -> nn.Module:
    """Stands in for a network with published weights."""
    torch.manual_seed(0)
    return UNet(dim=16, dim_mults=(1, 2), channels=3, image_size=32, blocks=1)


def main(steps: int = 10, folder: str | Path = "results/diffusers_scheduler") -> Tensor:
    """Writes the config, samples by it, and returns images [4, 3, 32, 32] in [0, 1]."""
    path = Path(folder) / "scheduler_config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(CONFIG))

    recipe = read_scheduler_config(path)
    print(recipe.schedule, recipe.objective, recipe.sampler, sep="\n")
    diffusion = GaussianDiffusion(
        published_network(),
        timesteps=recipe.trained_steps,
        noise_schedule=recipe.schedule,
        objective=recipe.objective,
        time_input="steps",  # the network is told its process step, from 0 to 999
        train_prob_self_cond=0,
    )
    grid = recipe.grid(steps)
    print("process steps:", *(round(recipe.timestep(now), 1) for now, _ in grid))
    return diffusion.sample(
        4, sampler=recipe.sampler, grid=grid, clip_denoised=recipe.clip_denoised, seed=0
    )


if __name__ == "__main__":
    main()
