"""The command that evaluates a policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..denoisers import Guidance
from ..parts.counting import counted
from ..policies import Controller, Policy
from ..policies.rollout import (
    Episode,
    make_environment,
    plan_latency,
    run_episodes,
    streams,
    summary,
)
from ..progress import ProgressBar
from ..samplers import Sampler
from ..storage.images import save_animation
from .common import built, check_positive, device_named


def rollout(
    run: str,
    *,
    env: str,
    options: dict[str, Any] | None = None,
    episodes: int = 50,
    environments: int = 25,
    sampler: Sampler | None = None,
    steps: int | None = None,
    calls: int | None = None,
    spacing: Literal["time", "log_snr", "optimal"] | None = None,
    first: float | str | None = None,
    last: float | str | None = None,
    guidance: float | Guidance | None = None,
    warm_start: float | None = None,
    seed: int = 100_000,
    video: str | None = None,
    latency: int = 100,
    weights: Literal["ema", "model"] | float = "ema",
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Evaluates a trained policy in a gymnasium environment.

    Examples:
      diffusion rollout results/policy_fork --env diffusion_framework/Fork-v0 --video videos
      diffusion rollout results/policy_pusht --env gym_pusht/PushT-v0 --calls 8

    Args:
        run: Results folder of a run, or one of its checkpoints.
        env: Id of the gymnasium environment, such as gym_pusht/PushT-v0.
        options: Options of the environment, such as '{obs_type: state}'.
        episodes: Number of episodes to run.
        environments: Number of environments that run side by side.
        sampler: Sampler for the action plans of a diffusion policy; null selects the policy's own.
        steps: Number of sampler steps of a diffusion policy's plan; null uses the policy's own.
        calls: Largest number of network calls for a diffusion policy's plan, in place of steps.
        spacing: Spacing of a diffusion policy's sampler steps: even in time or log_snr, or optimal
            for few steps; null is time.
        first: Noise level where the first step of a plan starts, as sigma / alpha, such as 80, or
            in another unit: log_snr=-9, time=0.9; null starts from pure noise.
        last: Noise level where the last step of a plan starts, given like first; null is the
            default of the spacing.
        guidance: Scale of classifier-free guidance of a diffusion policy's plans, or a kind of
            guidance; null switches it off.
        warm_start: Time in (0, 1] to which the last plan of a diffusion policy is noised to start
            the next one; null starts from pure noise.
        seed: Seed of the first episode; each further episode has the next number.
        video: Folder for an animated GIF of each episode; null writes none.
        latency: Number of plans to time, for one environment at a time.
        weights: Weights to use: ema (their moving average), model (the last ones), or the width of
            an average, such as 0.08 (see trainer.ema.profiles).
        device: Device to run on: auto, cpu, cuda, cuda:1 or mps.
        progress: Whether to show a progress bar.
        trust: Packages whose classes the files may name; their code then runs.
    """
    asked = {"sampler": built(sampler), "guidance": built(guidance), "steps": steps, "calls": calls}
    asked |= {"spacing": spacing, "first": first, "last": last}
    check_positive(episodes=episodes, environments=environments, latency=latency)
    policy = Policy.from_pretrained(run, weights=weights, trust=trust)
    policy.to(device_named(device))
    walk = {name: value for name, value in asked.items() if value is not None}
    controller = Controller(policy, warm_start=warm_start, **walk)
    options = {**({"render_mode": "rgb_array"} if video else {}), **(options or {})}
    made = [make_environment(env, **options) for _ in range(min(environments, episodes))]
    seeds, frames = range(seed, seed + episodes), video is not None
    bar = ProgressBar(episodes, "episodes", progress)
    finished = run_episodes(controller, made, seeds, frames=frames, on_end=lambda _: bar.update())
    print(summary(finished))
    _print_latency(policy, made[0].reset(seed=seed)[0], latency, walk)
    _save_videos(finished if video else [], video or "")


def _save_videos(episodes: Sequence[Episode], folder: str) -> None:
    for episode in episodes:
        save_animation(episode.frames, Path(folder) / f"{episode.seed}.gif")


def _print_latency(policy: Policy, observation: Any, count: int, walk: dict[str, Any]) -> None:
    observations = streams(policy.observations, [observation])
    median, worst = plan_latency(policy, observations, count, **walk)
    print(
        f"one plan     {1000 * median:.1f} ms median, {1000 * worst:.1f} ms 99th percentile "
        f"({counted(count, 'plan')})"
    )
