"""Schedulers of diffusers as samplers of a `Problem`, called at their exact noise levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import diffusers
import numpy as np
import torch
from solver_problems import Problem
from torch import Tensor

from diffusion_framework.process.schedules import NoiseSchedule

diffusers.utils.logging.set_verbosity_error()

SPACINGS: dict[str, dict[str, Any]] = {
    "linspace": {},
    "leading": {"timestep_spacing": "leading", "steps_offset": 1},
    "trailing": {"timestep_spacing": "trailing"},
    "Karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
STRIDES = {"leading": {}, "trailing": SPACINGS["trailing"]}
# Name, class, options, spacings.
_CLASSES: list[tuple[str, str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    ("DDIM", "DDIMScheduler", {"clip_sample": False}, STRIDES),
    ("PNDM", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, STRIDES),
    ("Euler", "EulerDiscreteScheduler", {}, SPACINGS),
    ("Heun", "HeunDiscreteScheduler", {}, SPACINGS),
    ("LMS", "LMSDiscreteScheduler", {}, SPACINGS),
    ("DPM++ 2M", "DPMSolverMultistepScheduler", {}, SPACINGS),
    ("DPM++ 2M heun", "DPMSolverMultistepScheduler", {"solver_type": "heun"}, SPACINGS),
    ("DPM++ 3M", "DPMSolverMultistepScheduler", {"solver_order": 3}, SPACINGS),
    ("UniPC 2", "UniPCMultistepScheduler", {}, SPACINGS),
    ("UniPC 3", "UniPCMultistepScheduler", {"solver_order": 3}, SPACINGS),
    ("DEIS 2", "DEISMultistepScheduler", {}, SPACINGS),
    ("DEIS 3", "DEISMultistepScheduler", {"solver_order": 3}, SPACINGS),
]
DEFAULTS = ("DDIM, leading", "DPM++ 2M, linspace", "UniPC 2, linspace", "Euler, linspace")
"""Settings that pipelines take if their users choose none."""


@dataclass(frozen=True)
class Peer:
    """A scheduler with its options; `run(problem, calls)` returns its samples at sigma = 0."""

    name: str
    kind: str
    options: dict[str, Any] = field(hash=False)

    @torch.no_grad()
    def run(self, problem: Problem, calls: int) -> Tensor:
        betas = np.array(trained_betas(problem.schedule))
        scheduler = getattr(diffusers, self.kind)(trained_betas=betas, **self.options)
        steps = {"HeunDiscreteScheduler": (calls + 1) // 2, "PNDMScheduler": calls - 1}
        scheduler.set_timesteps(steps.get(self.kind, calls))
        sigmas, exploding = self._sigmas(scheduler), "Discrete" in self.kind

        def alpha(s: float) -> float:
            return 1.0 if exploding else 1 / math.sqrt(1 + s * s)

        denoise, schedule, z = problem.denoiser(), problem.schedule, problem.z
        x = z * sigmas[0] * alpha(sigmas[0])
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # equal first timesteps would start it at the second
        ends = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
        for s, timestep in zip(sigmas, scheduler.timesteps, strict=False):
            if exploding:
                scheduler.scale_model_input(x, timestep)  # these schedulers require it
            at = schedule.at_log_snr(min(max(-2 * math.log(s), ends[0]), ends[1]))
            eps = denoise(x.to(z.dtype) / alpha(s) * at.alpha, at).eps
            x = scheduler.step(eps, timestep, x, return_dict=False)[0]
        # a scheduler that stops above sigma = 0 goes there with its last noise, at no call
        return x.to(z.dtype) / alpha(sigmas[-1]) - sigmas[-1] * eps

    def _sigmas(self, scheduler: Any) -> list[float]:
        if self.kind in ("DDIMScheduler", "PNDMScheduler"):
            kept = scheduler.alphas_cumprod.double()[scheduler.timesteps.long()]
            return [*((1 - kept) / kept).sqrt().tolist(), 0.0]
        return scheduler.sigmas.double().tolist()


def peers() -> Iterator[Peer]:
    """Yields all schedulers with all of their spacings."""
    for name, kind, options, spacings in _CLASSES:
        for spacing, chosen in spacings.items():
            yield Peer(f"{name}, {spacing}", kind, {**options, **chosen})


@lru_cache(maxsize=64)
def trained_betas(schedule: NoiseSchedule, count: int = 1000) -> tuple[float, ...]:
    """Returns the betas of the schedule in discrete steps, with some signal in the last."""
    start = 1.0 if schedule.at(1.0).log_snr > -25 else 0.999
    log_snr = schedule.at(start * torch.arange(1, count + 1, dtype=torch.float64) / count).log_snr
    kept = torch.sigmoid(log_snr)
    return tuple(torch.cat([torch.sigmoid(-log_snr[:1]), 1 - kept[1:] / kept[:-1]]).tolist())
