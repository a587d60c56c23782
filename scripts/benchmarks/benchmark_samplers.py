"""Measures accuracy and time of the samplers in comparison with diffusers and k-diffusion.

    python scripts/benchmarks/benchmark_samplers.py

Accuracy: the data are Gaussian mixtures, so that the denoiser is exact and only the solver's error
remains. The error is the RMS distance between its result and the exact solution of the probability
flow ODE at sigma = 0, from the same noise. Every method starts at the same noise level, ends at
sigma = 0 and has the same budget of denoiser calls.

Time: one step without the network on one thread, measured in turns for two libraries.

`pip install diffusers k-diffusion` installs the other libraries; a missing one is skipped. Takes
about four minutes on one core, or half a minute with --quick. Writes errors.csv (every run),
benchmark.json and errors.png to --output.

The comparison treats the other libraries fairly:

- diffusers gets schedules that it does not have as 1000 trained betas at the same levels;
- the denoiser is called at the exact sigma of the method, not at a rounded timestep;
- a scheduler that stops above sigma = 0 is extended to 0 with its last noise, at no call.

Grids of diffusers run from training step 1000 to step 1. Our last step starts at time 1/1000, or at
1e-4 (as in k-diffusion) where the name of the grid says so. An error in a table is the geometric
mean over mixtures. The best method is chosen after measuring, for all libraries.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import DDIM, DDPM, EDM, LMS, Cosine, DPMSolver, Flow, Heun, Sigmoid, UniPC
from diffusion_framework.process.level import Level, Prediction
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.objectives import Eps
from diffusion_framework.process.schedules import LinearBeta, NoiseSchedule, ScaledLinearBeta
from diffusion_framework.samplers import DPM2, Euler, Sampler, SinglestepDPM
from diffusion_framework.samplers.grids import (
    Grid,
    grid_of_log_snrs,
    grid_of_sigmas,
    grid_of_times,
    karras_sigmas,
    optimal_log_snrs,
    spaced_times,
    uniform_log_snrs,
    uniform_times,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GRIDS = ("time", "log-SNR", "log-SNR to 1e-4", "Karras", "optimal")
LAST_TIME = 1e-3  # start of the last step, unless the name of the grid says 1e-4
# Each schedule with its first time, at which some signal is left.
SCHEDULES: dict[str, tuple[NoiseSchedule, float]] = {
    "LinearBeta": (LinearBeta(), 1.0),
    "Sigmoid": (Sigmoid(), 0.999),
    "ScaledLinearBeta": (ScaledLinearBeta(), 1.0),
    "Cosine": (Cosine(), 0.999),
    "EDM": (EDM(), 1.0),
    "Flow": (Flow(), 0.999),
}
# Name, sampler, network calls per step, order of its optimal grid.
OURS: list[tuple[str, Sampler, int, int]] = [
    ("DDIM = Euler", DDIM(), 1, 1),
    ("Heun", Heun(), 2, 0),
    ("DPM2", DPM2(), 2, 0),
    *((f"LMS {order}", LMS(order), 1, order) for order in (2, 3, 4)),
    *((f"DPM-Solver++ {order}", DPMSolver(order), 1, order) for order in (2, 3)),
    *((f"DPM-Solver {order}", DPMSolver(order, "eps"), 1, order) for order in (2, 3)),
    *((f"UniPC {order}", UniPC(order), 1, order + 1) for order in (1, 2, 3)),
    *((f"UniPC {order} of v", UniPC(order, predict="v"), 1, order + 1) for order in (1, 2, 3)),
    *((f"Singlestep++ {order}", SinglestepDPM(order), order, 0) for order in (2, 3)),
    *((f"Singlestep {order}", SinglestepDPM(order, "eps"), order, 0) for order in (2, 3)),
]
TRAILING = {"trailing": {"timestep_spacing": "trailing"}}
SPACINGS: dict[str, dict[str, Any]] = {
    "time": {},
    **TRAILING,
    "Karras": {"use_karras_sigmas": True},
    "log-SNR": {"use_exponential_sigmas": True},
}
# Name, class, options, grids.
DIFFUSERS: list[tuple[str, str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    ("DDIM", "DDIMScheduler", {"clip_sample": False}, TRAILING),
    ("PNDM", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, TRAILING),
    ("Euler", "EulerDiscreteScheduler", {}, SPACINGS),
    ("Heun", "HeunDiscreteScheduler", {}, SPACINGS),
    ("LMS", "LMSDiscreteScheduler", {}, SPACINGS),
    ("DPM++ 2M", "DPMSolverMultistepScheduler", {"solver_order": 2}, SPACINGS),
    (
        "DPM++ 2M heun",
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, "solver_type": "heun"},
        SPACINGS,
    ),
    ("DPM++ 3M", "DPMSolverMultistepScheduler", {"solver_order": 3}, SPACINGS),
    ("UniPC 2", "UniPCMultistepScheduler", {"solver_order": 2}, SPACINGS),
    ("UniPC 3", "UniPCMultistepScheduler", {"solver_order": 3}, SPACINGS),
    ("DEIS 2", "DEISMultistepScheduler", {"solver_order": 2}, SPACINGS),
    ("DEIS 3", "DEISMultistepScheduler", {"solver_order": 3}, SPACINGS),
]
# Name and network calls per step.
K_DIFFUSION = [("euler", 1), ("heun", 2), ("dpm_2", 2), ("lms", 1), ("dpmpp_2m", 1)]
TIMED: list[tuple[str, Sampler, str, dict[str, Any]]] = [
    ("DDPM", DDPM(), "DDPMScheduler", {"clip_sample": False}),
    ("DDIM", DDIM(), "DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}),
    ("Euler", Euler(), "EulerDiscreteScheduler", {}),
    ("Heun", Heun(), "HeunDiscreteScheduler", {}),
    ("LMS", LMS(), "LMSDiscreteScheduler", {}),
    ("DPM-Solver++ 2", DPMSolver(2), "DPMSolverMultistepScheduler", {"solver_order": 2}),
    ("DPM-Solver++ 3", DPMSolver(3), "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("UniPC 2", UniPC(2), "UniPCMultistepScheduler", {"solver_order": 2}),
]


@dataclass(frozen=True)
class Mixture:
    """A mixture of equally likely Gaussians, whose means and stds are [modes, dimensions]."""

    name: str
    means: Tensor
    stds: Tensor

    def predict(self, y: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """Returns the exact posterior means of clean data and noise.

        Args:
            y: Noised data x / alpha [batch, dimensions].
            s: Noise level sigma / alpha, at least 0.
        """
        variance = self.stds**2 + s**2
        off = y[:, None] - self.means
        pull = off / variance
        share = torch.softmax(-0.5 * ((off * pull).sum(-1) + variance.log().sum(-1)), dim=-1)[
            ..., None
        ]
        return (share * (self.means + self.stds**2 * pull)).sum(1), s * (share * pull).sum(1)


@dataclass
class Problem:
    """One mixture and schedule, with a counting denoiser, initial noise and the exact solution."""

    mixture: Mixture
    name: str
    schedule: NoiseSchedule
    start_time: float
    z: Tensor
    end: Tensor = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        first = self.schedule.at(self.start_time)
        self.s_max = first.sigma / first.alpha

        def slope(s: float, y: np.ndarray) -> np.ndarray:
            return self.mixture.predict(torch.from_numpy(y).view_as(self.z), s)[1].flatten().numpy()

        start = (self.z * self.s_max).flatten().numpy()
        solution = solve_ivp(
            slope, (self.s_max, 0.0), start, method="DOP853", rtol=1e-11, atol=1e-11, t_eval=[0.0]
        )
        self.end = torch.from_numpy(solution.y[:, -1]).view_as(self.z)

    def predict(self, y: Tensor, s: float) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.mixture.predict(y, s)

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        return Prediction(*self.predict(x / at.alpha, at.sigma / at.alpha))


@dataclass(frozen=True)
class Method:
    """A method; `run(problem, calls)` returns its result at sigma = 0 within a budget of calls."""

    library: str
    sampler: str
    grid: str
    run: Callable[[Problem, int], Tensor]


@dataclass(frozen=True)
class Run:
    schedule: str
    mixture: str
    calls: int
    calls_made: int
    library: str
    sampler: str
    grid: str
    error: float


def mixtures(seed: int) -> list[Mixture]:
    """Returns mixtures in 1, 2 and 16 dimensions with two to twelve modes, narrow to wide.

    Their values are of about the size of images in [-1, 1].
    """
    generator = torch.Generator().manual_seed(seed)

    def rand(modes: int, dimensions: int) -> Tensor:
        return torch.rand(modes, dimensions, generator=generator, dtype=torch.float64)

    angles = torch.arange(5, dtype=torch.float64)[:, None] * (2 * math.pi / 5)
    ring = 0.7 * torch.cat([angles.cos(), angles.sin()], dim=1)
    spectrum = torch.logspace(0, -2, 16, dtype=torch.float64).expand(3, 16) * 0.6
    one = torch.ones(1, dtype=torch.float64)
    return [
        Mixture("16-D, 8 modes, width 0.2", rand(8, 16) * 2 - 1, 0.2 * one.expand(8, 16)),
        Mixture(
            "1-D, 2 modes, widths 0.1 and 0.25",
            one[:, None] * one.new_tensor([[-0.7], [0.6]]),
            one.new_tensor([[0.1], [0.25]]),
        ),
        Mixture("2-D, ring of 5, width 0.05", ring, 0.05 * one.expand(5, 2)),
        Mixture(
            "1-D, 2 wide modes", one.new_tensor([[-0.4], [0.5]]), one.new_tensor([[0.4], [0.3]])
        ),
        Mixture("2-D, 3 modes, widths 0.1 to 0.4", rand(3, 2) * 2 - 1, 0.1 + 0.3 * rand(3, 2)),
        Mixture("16-D, 12 modes, width 0.05", rand(12, 16) * 2 - 1, 0.05 * one.expand(12, 16)),
        Mixture("16-D, 3 modes, widths 0.6 to 0.006", (rand(3, 16) * 2 - 1) * spectrum, spectrum),
    ]


def grid_named(name: str, problem: Problem, steps: int, order: int) -> Grid:
    """Returns the grid of a name, with `steps` steps from the first time to sigma = 0."""
    schedule, start = problem.schedule, problem.start_time
    last = 1e-4 if name.endswith("1e-4") else LAST_TIME
    if name == "time":
        extra = not schedule.at(0.0).is_end  # the step from time 0 to the clean end
        return grid_of_times(schedule, uniform_times(steps - extra, start))
    if name.startswith("log-SNR"):
        return grid_of_log_snrs(schedule, uniform_log_snrs(schedule, steps, start, last))
    if name.startswith("optimal"):
        return grid_of_log_snrs(schedule, optimal_log_snrs(schedule, steps, order, start, last))
    return grid_of_sigmas(schedule, our_karras(problem, steps))


def our_karras(problem: Problem, steps: int) -> list[float]:
    last = problem.schedule.at(LAST_TIME)
    return karras_sigmas(steps, last.sigma / last.alpha, problem.s_max)


def our_methods() -> list[Method]:
    def method(
        name: str, sampler: Sampler, calls_a_step: int, order: int, grid_name: str
    ) -> Method:
        def run(problem: Problem, calls: int) -> Tensor:
            grid = grid_named(grid_name, problem, (calls - 1) // calls_a_step + 1, order)
            state, noise = sampler.init(len(grid)), generator_noise()
            x = problem.z * problem.s_max * grid.start.alpha
            for now, to in grid:
                x, state = sampler.step(problem, x, now, to, state, noise)
            return x / grid.end.alpha

        return Method("ours", name, grid_name, run)

    return [
        method(*row, grid)
        for row in OURS
        for grid in GRIDS
        if row[3] or not grid.startswith("optimal")
    ]


@lru_cache(maxsize=64)
def trained_betas(schedule: NoiseSchedule, start: float, count: int = 1000) -> tuple[float, ...]:
    """Returns the betas of the schedule in discrete steps at times start (i + 1) / count."""
    log_snr = schedule.at(start * torch.arange(1, count + 1, dtype=torch.float64) / count).log_snr
    kept = torch.sigmoid(log_snr)
    return tuple(torch.cat([torch.sigmoid(-log_snr[:1]), 1 - kept[1:] / kept[:-1]]).tolist())


def diffusers_methods() -> list[Method]:
    try:
        import diffusers
    except ImportError:
        print("diffusers is not installed: left out")
        return []
    diffusers.utils.logging.set_verbosity_error()

    def method(
        name: str, kind: str, options: dict[str, Any], grid_name: str, spacing: dict[str, Any]
    ) -> Method:
        def run(problem: Problem, calls: int) -> Tensor:
            betas = np.array(trained_betas(problem.schedule, problem.start_time))
            scheduler = getattr(diffusers, kind)(trained_betas=betas, **options, **spacing)
            scheduler.set_timesteps({"Heun": (calls + 1) // 2, "PNDM": calls - 1}.get(name, calls))
            return walk(scheduler, problem)

        return Method("diffusers", name, grid_name, run)

    return [
        method(name, kind, options, *grid)
        for name, kind, options, grids in DIFFUSERS
        for grid in grids.items()
    ]


def walk(scheduler: Any, problem: Problem) -> Tensor:
    """Runs a scheduler of diffusers from the noise to sigma = 0."""
    kind = type(scheduler).__name__
    exploding = "Discrete" in kind  # x is not scaled by alpha
    if kind in ("DDIMScheduler", "PNDMScheduler"):
        kept = scheduler.alphas_cumprod.double()[scheduler.timesteps.long()]
        sigmas = [*((1 - kept) / kept).sqrt().tolist(), 0.0]
    else:
        sigmas = scheduler.sigmas.double().tolist()

    def alpha(s: float) -> float:
        return 1.0 if exploding else 1 / math.sqrt(1 + s * s)

    x = problem.z * sigmas[0] * alpha(sigmas[0])
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise a scheduler whose first timesteps round to the same starts at the second.
        scheduler.set_begin_index(0)
    for s, timestep in zip(sigmas, scheduler.timesteps, strict=False):
        if exploding:
            scheduler.scale_model_input(x, timestep)  # required by these schedulers
        _, eps = problem.predict(x.double() / alpha(s), s)
        x = scheduler.step(eps, timestep, x, return_dict=False)[0]
    return x.double() / alpha(sigmas[-1]) - sigmas[-1] * eps


def k_diffusion_methods() -> list[Method]:
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        print("k-diffusion is not installed: left out")
        return []
    # Only its samplers are imported; the package would load networks and their requirements.
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["k_diffusion"] = package
    try:
        sampling = importlib.import_module("k_diffusion.sampling")
    except ImportError as error:
        print(f"k-diffusion lacks one of its requirements ({error}): left out")
        return []

    def method(name: str, calls_a_step: int, grid_name: str) -> Method:
        def run(problem: Problem, calls: int) -> Tensor:
            steps = (calls - 1) // calls_a_step + 1
            if grid_name == "Karras":
                sigmas = our_karras(problem, steps)
            else:
                grid = grid_named(grid_name, problem, steps, 1)
                sigmas = [
                    grid.start.sigma / grid.start.alpha,
                    *(to.sigma / to.alpha for _, to in grid),
                ]
            levels = torch.tensor(sigmas, dtype=torch.float64)

            def denoised(x: Tensor, sigma: Tensor) -> Tensor:
                return problem.predict(x, sigma[0].item())[0]

            return getattr(sampling, f"sample_{name}")(
                denoised, problem.z * levels[0], levels, disable=True
            )

        return Method("k-diffusion", name, grid_name, run)

    return [method(*row, grid) for row in K_DIFFUSION for grid in GRIDS[:4]]


def measure_errors(
    methods: list[Method], problems: Iterable[Problem], calls: list[int]
) -> list[Run]:
    runs = []
    for problem in problems:
        began = time.perf_counter()
        for method, budget in itertools.product(methods, calls):
            problem.calls = 0
            error = (method.run(problem, budget) - problem.end).square().mean().sqrt().item()
            if problem.calls > budget:
                raise RuntimeError(
                    f"Expected at most {budget} calls of {method}, got {problem.calls}"
                )
            names = (method.library, method.sampler, method.grid)
            runs.append(
                Run(problem.name, problem.mixture.name, budget, problem.calls, *names, error)
            )
        print(
            f"{problem.name}, {problem.mixture.name}: {time.perf_counter() - began:.1f} s",
            flush=True,
        )
    return runs


def mean_errors(runs: Iterable[Run]) -> dict[tuple[str, str, str], float]:
    """Returns the geometric mean error of each (library, sampler, grid)."""
    logs: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        error = run.error if math.isfinite(run.error) else 1e9
        logs.setdefault((run.library, run.sampler, run.grid), []).append(
            math.log(max(error, 1e-300))
        )
    return {key: math.exp(statistics.fmean(values)) for key, values in logs.items()}


def summarise(runs: list[Run]) -> list[dict[str, Any]]:
    """Returns the best of our and the other methods, by schedule (or all) and number of calls."""
    rows = []
    for schedule in ["all", *dict.fromkeys(run.schedule for run in runs)]:
        for calls in sorted({run.calls for run in runs}):
            chosen = [
                run for run in runs if run.calls == calls and schedule in ("all", run.schedule)
            ]
            errors = mean_errors(chosen)
            row: dict[str, Any] = {"schedule": schedule, "calls": calls}
            for side in ("ours", "peers"):
                of_side = {
                    key: error
                    for key, error in errors.items()
                    if (key[0] == "ours") == (side == "ours")
                }
                if of_side:
                    best = min(of_side, key=of_side.__getitem__)
                    row[side] = f"{best[1]}, {best[2]}" if side == "ours" else ", ".join(best)
                    row[f"{side}_error"] = of_side[best]
            if "peers" in row:
                row["ratio"] = row["ours_error"] / row["peers_error"]
            rows.append(row)
    return rows


def print_errors(rows: list[dict[str, Any]]) -> None:
    print(
        f"\n{'schedule':17}{'calls':>5}  {'our best':31}{'error':>9}  {'best peer':33}{'error':>9} "
        " ratio"
    )
    for row in rows:
        peer = (
            f"{row['peers']:33}{row['peers_error']:9.2e}  {row['ratio']:.3f}"
            if "peers" in row
            else "none"
        )
        print(
            f"{row['schedule']:17}{row['calls']:5}  {row['ours']:31}{row['ours_error']:9.2e}  "
            f"{peer}"
        )


def plot_errors(runs: list[Run], rows: list[dict[str, Any]], path: Path) -> None:
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    columns = min(len(schedules), 4)
    lines = math.ceil(len(schedules) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.6 * columns, 4.4 * lines), squeeze=False, sharey=True
    )
    for axis in axes.flat[len(schedules) :]:
        axis.set_axis_off()
    for axis, schedule in zip(axes.flat, schedules, strict=False):
        plot_schedule(axis, [run for run in runs if schedule in ("all", run.schedule)])
        own = [row for row in rows if row["schedule"] == schedule]
        for side, colour in (("ours", "tab:blue"), ("peers", "tab:red")):
            points = [(row["calls"], row[f"{side}_error"]) for row in own if side in row]
            if points:
                label = "best of ours" if side == "ours" else "best of diffusers and k-diffusion"
                axis.plot(
                    *zip(*points, strict=True), "o-", color=colour, linewidth=2.5, label=label
                )
        axis.set(
            xscale="log", yscale="log", title="all schedules" if schedule == "all" else schedule
        )
        axis.set_xticks([row["calls"] for row in own], [str(row["calls"]) for row in own])
        axis.minorticks_off()
        axis.set_xlabel("network calls")
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS error (geometric mean over mixtures)")
    axes[0, 0].set_ylim(top=1)  # shared by all axes
    axes[0, 0].legend(fontsize=10, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_schedule(axis: Any, runs: list[Run]) -> None:
    """Draws a thin line for each sampler, on its best grid at each number of calls."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for calls in sorted({run.calls for run in runs}):
        best: dict[tuple[str, str], float] = {}
        for (library, sampler, _), error in mean_errors(
            run for run in runs if run.calls == calls
        ).items():
            best[library, sampler] = min(error, best.get((library, sampler), math.inf))
        for key, error in best.items():
            curves.setdefault(key, []).append((calls, error))
    labels = {True: "each of our samplers, best grid", False: "each of theirs, best grid"}
    for (library, _), points in curves.items():
        ours = library == "ours"
        axis.plot(
            *zip(*points, strict=True),
            "-" if ours else "--",
            linewidth=0.8,
            alpha=0.5,
            color="tab:blue" if ours else "tab:red",
            label=labels.pop(ours, None),
        )


def time_steps(shape: tuple[int, ...], repetitions: int, steps: int = 20) -> list[dict[str, Any]]:
    """Returns microseconds per network call, for our step and for `scheduler.step`.

    Whole trajectories of the two libraries take turns.
    """
    import diffusers

    x, output = torch.randn(2, *shape).unbind()
    grid = grid_of_times(LinearBeta(), spaced_times(steps, "trailing"))
    known = Prediction(x * 0.5, output)

    def ready(x: Tensor, at: Level) -> Prediction:
        return known

    def reading(x: Tensor, at: Level) -> Prediction:
        return Eps().prediction(output, x, at)

    rows = []
    for name, sampler, kind, options in TIMED:
        scheduler = getattr(diffusers, kind)(**options)
        contenders: dict[str, Callable[[], float]] = {
            "ours": partial(our_time, sampler, ready, x, grid),
            "ours_with_reading": partial(our_time, sampler, reading, x, grid),
            "diffusers": partial(diffusers_time, scheduler, output, x, steps),
        }
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for repetition in range(repetitions + 2):
            for key, measure in contenders.items():
                value = measure()
                if repetition >= 2:  # the first ones fill caches
                    times[key].append(value * 1e6)
        row: dict[str, Any] = {"sampler": name, "shape": list(shape)}
        row |= {key: statistics.median(values) for key, values in times.items()}
        rows.append(
            row
            | {
                "ratio": row["ours"] / row["diffusers"],
                "ratio_with_reading": row["ours_with_reading"] / row["diffusers"],
            }
        )
    return rows


class Counted:
    """A denoiser for timing that counts its calls."""

    def __init__(self, answer: Callable[[Tensor, Level], Prediction]) -> None:
        self.schedule: NoiseSchedule = LinearBeta()
        self.answer, self.calls = answer, 0

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        self.calls += 1
        return self.answer(x, at)


def our_time(
    sampler: Sampler, answer: Callable[[Tensor, Level], Prediction], x: Tensor, grid: Grid
) -> float:
    denoise, noise, state = Counted(answer), generator_noise(), sampler.init(len(grid))
    began = time.perf_counter()
    for now, to in grid:
        _, state = sampler.step(denoise, x, now, to, state, noise)
    return (time.perf_counter() - began) / denoise.calls


def diffusers_time(scheduler: Any, output: Tensor, x: Tensor, steps: int) -> float:
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.scale_model_input(x, timesteps[0])
    began = time.perf_counter()
    for timestep in timesteps:
        scheduler.step(output, timestep, x, return_dict=False)
    return (time.perf_counter() - began) / len(timesteps)


def print_times(rows: list[dict[str, Any]]) -> None:
    print(
        "\nMicroseconds a network call, without the network. 'Reading' makes clean data of the "
        "network's eps,"
    )
    print("as diffusers does in its step; without it the denoiser hands out both.")
    print(
        f"{'shape':15}{'sampler':16}{'ours':>8}{'+ reading':>11}{'diffusers':>11}{'ratio':>8}"
        f"{'+ reading':>11}"
    )
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        print(
            f"{shape:15}{row['sampler']:16}{row['ours']:8.0f}{row['ours_with_reading']:11.0f}",
            end="",
        )
        print(f"{row['diffusers']:11.0f}{row['ratio']:8.3f}{row['ratio_with_reading']:11.3f}")


def setting() -> dict[str, Any]:
    """Returns the date, the machine and the versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if "model name" in line
    ]
    processor = (
        names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    )
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "diffusers", "k-diffusion"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    machine = f"{os.cpu_count()} cores, {processor}; {torch.get_num_threads()} thread used"
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "machine": machine, "versions": versions}


def make_problems(args: argparse.Namespace) -> Iterable[Problem]:
    chosen = mixtures(args.seed)[: 3 if args.quick else None]
    for name, (schedule, start) in list(SCHEDULES.items())[: 2 if args.quick else None]:
        for mixture in chosen:
            generator = torch.Generator().manual_seed(args.seed + 1)
            shape = (args.samples, mixture.means.shape[1])
            z = torch.randn(shape, generator=generator, dtype=torch.float64)
            yield Problem(mixture, name, schedule, start, z)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("results/benchmark_samplers"), help="folder to write to"
    )
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[5, 10, 20, 50], help="budgets of network calls"
    )
    parser.add_argument(
        "--samples", type=int, default=256, help="number of starting points for each mixture"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use two schedules, three mixtures and fewer repetitions",
    )
    args = parser.parse_args()
    if min(args.calls) < 4 or max(args.calls) > 500:
        parser.error(
            f"--calls: expected numbers from 4 to 500, got {args.calls}. Fix: choose others."
        )
    if args.samples < 1:
        parser.error(f"--samples: expected at least 1, got {args.samples}. Fix: choose more.")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"--output: expected a writable folder, got {args.output} ({error.strerror}). "
            "Fix: choose another."
        )
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    others = diffusers_methods()
    timed: list[dict[str, Any]] = []
    if others:
        for shape in [(16, 3, 32, 32), (16, 4, 64, 64)]:
            timed += time_steps(shape, 10 if args.quick else 40)
        print_times(timed)
    methods = [*our_methods(), *others, *k_diffusion_methods()]
    runs = measure_errors(methods, make_problems(args), sorted(set(args.calls)))
    rows = summarise(runs)
    print_errors(rows)

    with open(args.output / "errors.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(runs[0])))
        writer.writeheader()
        writer.writerows(map(asdict, runs))
    (args.output / "benchmark.json").write_text(
        json.dumps({**setting(), "errors": rows, "times": timed}, indent=1)
    )
    plot_errors(runs, rows, args.output / "errors.png")
    print(f"\nwritten to {args.output}: errors.csv, benchmark.json, errors.png")


if __name__ == "__main__":
    main()
