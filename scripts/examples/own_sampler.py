"""Your own sampler: DPM-Solver++(2M) (Lu et al. 2022), measured on an exact denoiser.

A sampler is a frozen dataclass with a `step`. It sees a denoiser and two noise levels, never the
network. What it remembers goes in and comes out as `state`, so one object serves any number of
trajectories. A trained model takes it as `diffusion.sample(16, sampler=TwoEstimates(), steps=20)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_framework import DDIM, Sigmoid
from diffusion_framework.denoisers import Denoiser
from diffusion_framework.process.level import Level, Noise, Prediction, move
from diffusion_framework.process.schedules import NoiseSchedule
from diffusion_framework.samplers import Sampler, trajectory
from diffusion_framework.samplers.grids import spaced_grid

State = tuple[Level, Tensor] | None  # the last level and its estimate of the clean data


@dataclass(frozen=True)
class TwoEstimates(Sampler[State]):
    """Second-order sampler, which extrapolates its last two estimates of the clean data."""

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        x0 = ahead = denoise(x, now).x0
        if state is not None and not to.is_end:  # the last step is of first order
            before, last = state
            slope = (x0 - last) / (now.log_snr - before.log_snr)
            ahead = x0 + slope * (to.log_snr - now.log_snr) / 2
        return move(Prediction.from_x0(ahead, x, now), to), (now, x0)


class NormalData:
    """The exact denoiser of normally distributed data with mean 0."""

    schedule: NoiseSchedule = Sigmoid()
    std = 0.5

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        share = at.alpha * self.std**2 / (at.alpha**2 * self.std**2 + at.sigma**2)
        return Prediction.from_x0(share * x, x, at)


def main(steps: int = 8) -> dict[str, list[float]]:
    """Returns errors at `steps`, twice and four times as many; second order divides them by 4."""
    data, x = NormalData(), torch.linspace(-2, 2, 9)
    errors: dict[str, list[float]] = {"DDIM": [], "TwoEstimates": []}
    for sampler in (DDIM(), TwoEstimates()):
        for count in (steps, 2 * steps, 4 * steps):
            grid = spaced_grid(data.schedule, count, "log_snr")
            *_, end = trajectory(sampler, data, x, grid, noise=torch.randn_like)
            error = (end.x - data.std * x).abs().max()  # the exact flow scales x by std
            errors[type(sampler).__name__].append(round(float(error), 5))
    return errors


if __name__ == "__main__":
    print(main())
