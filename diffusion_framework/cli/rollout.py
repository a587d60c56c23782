"""scripts/rollout.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from ..policies import Controller, Policy
from ..policies.rollout import make_environment, plan_latency, run_episodes, streams, summary
from ..samplers import Sampler
from ..storage.images import save_animation
from .common import check_positive, device_named, run

DEFAULTS = {"sampler": {"class_path": "DDIM"}}


def rollout(argv: Sequence[str]) -> None:
    """Run scripts/rollout.py; argv is the command line, without the program."""
    run(_rollout, argv, "rollout.py", defaults=DEFAULTS)


def _rollout(
    checkpoint: str,
    *,
    env: str,
    options: dict[str, Any] | None = None,
    episodes: int = 50,
    environments: int = 25,
    sampler: Sampler | None = None,
    steps: int | None = None,
    spacing: Literal["time", "log_snr", "optimal"] | None = None,
    warm_start: float | None = None,
    seed: int = 100_000,
    video: str | None = None,
    latency: int = 100,
    weights: Literal["ema", "model"] = "ema",
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Let a trained policy act in a gymnasium environment.

    Args:
        checkpoint: A results folder, or one checkpoint in it.
        env: Id of the environment, such as gym_pusht/PushT-v0.
        options: Options of the environment, such as '{obs_type: state}'.
        episodes: Episodes to run.
        environments: Environments that run side by side.
        sampler: Sampler of plans; null is the policy's own. For policies that sample, like the next three.
        steps: Sampler steps of a plan; null is the policy's.
        spacing: Quantity in which the steps are even; null is time.
        warm_start: Time in (0, 1] at which plans start from the last ones; null: from pure noise.
        seed: Seed of the first episode; each further one has the next number.
        video: Folder for an animated GIF of each episode.
        latency: Plans to time, one environment at a time.
        weights: Averaged weights, or the last.
        device: auto, cpu, cuda, cuda:1, mps, ...
        progress: Show a progress bar.
        trust: Packages whose classes the files may name, which runs their code.
    """
    plan: Any = sampler
    asked = {"sampler": None if plan is None else plan.build(), "steps": steps, "spacing": spacing}
    check_positive(episodes=episodes, environments=environments, latency=latency)
    policy = Policy.from_pretrained(checkpoint, weights=weights, trust=trust)
    policy.to(device_named(device))
    walk = {name: value for name, value in asked.items() if value is not None}
    controller = Controller(policy, warm_start=warm_start, **walk)
    make = partial(make_environment, env, **{"render_mode": "rgb_array"} if video else {}, **(options or {}))
    made = [make() for _ in range(min(environments, episodes))]
    with tqdm(total=episodes, desc="episodes", disable=not progress) as bar:
        finished = run_episodes(
            controller,
            made,
            range(seed, seed + episodes),
            frames=video is not None,
            on_end=lambda episode: bar.update(),
        )
    print(summary(finished))
    observation = streams(policy.observations, [made[0].reset(seed=seed)[0]])
    median, worst = plan_latency(policy, observation, latency, **walk)
    print(f"one plan     {1000 * median:.1f} ms median, {1000 * worst:.1f} ms 99th percentile ({latency} plans)")
    for episode in finished if video else ():
        save_animation(episode.frames, Path(video or "") / f"{episode.seed}.gif")
