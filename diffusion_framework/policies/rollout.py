"""Rollouts of policies in gymnasium environments, with their success and planning latency."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditions import Observations
from ..conditions.image_features import channels_first
from ..parts.extras import require
from ..process.noise import mix
from .controller import Controller
from .policy import Policy


@dataclass
class Episode:
    """Record of one episode.

    Attributes:
        seed: Seed of the environment.
        success: Whether `info["is_success"]` was ever true; None if the environment lacks it.
        total: Sum of the rewards.
        best: Largest reward.
        steps: Number of episode steps.
        frames: Rendered frames [height, width, 3], uint8; empty unless requested.
        over: Whether the episode has ended.
    """

    seed: int
    success: bool | None = None
    total: float = 0.0
    best: float = -math.inf
    steps: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    over: bool = False


def make_environment(name: str, **options: Any) -> Any:
    """Makes a gymnasium environment.

    Args:
        name: Environment id. The package before a slash is imported first, so that it registers
            the environment.
        options: Further arguments of `gymnasium.make`.

    Raises:
        ValueError: If gymnasium or the package is not installed, or the environment cannot be
            made.
    """
    gymnasium = require("gymnasium", "rollouts")
    package = name.partition("/")[0] if "/" in name else ""
    try:
        if package == __package__.partition(".")[0]:
            importlib.import_module(".tasks.fork_environment", __package__)
        elif package:
            importlib.import_module(package)
        return gymnasium.make(name, **options)
    except (ImportError, gymnasium.error.Error, TypeError) as error:
        raise ValueError(
            f"Expected an environment of gymnasium, got {name!r} "
            f"({' '.join(str(error).split()):.200}). Fix: install its package, or check the name."
        ) from error


def run_episodes(
    controller: Controller,
    environments: Sequence[Any],
    seeds: Sequence[int],
    *,
    frames: bool = False,
    on_end: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """Runs one episode for each seed, in batches of the number of environments.

    The noise of a plan depends only on its episode's seed and step, not on the rest of the batch.

    Args:
        controller: Controller that acts.
        environments: Environments of gymnasium. Actions are clipped to their action space.
        seeds: Seeds for the environments' resets.
        frames: Whether to keep rendered frames.
        on_end: Callback for each episode that has ended.
    """
    episodes = [Episode(seed) for seed in seeds]
    for first in range(0, len(episodes), len(environments)):
        _run_together(
            controller, environments, episodes[first : first + len(environments)], frames, on_end
        )
    return episodes


def _run_together(
    controller: Controller,
    environments: Sequence[Any],
    episodes: Sequence[Episode],
    frames: bool,
    on_end: Callable[[Episode], None],
) -> None:
    controller.reset()
    going = list(zip(environments, episodes, strict=False))
    observations = [env.reset(seed=episode.seed)[0] for env, episode in going]
    step = 0
    while not all(episode.over for _, episode in going):
        plan_seeds = [mix(episode.seed, step) for _, episode in going]
        newest = streams(controller.observations, observations)
        actions = controller.act(newest, seed=plan_seeds).cpu().numpy()
        step += 1
        for i, (env, episode) in enumerate(going):
            if episode.over:
                continue
            if frames:
                episode.frames.append(env.render())
            space = env.action_space
            action = np.clip(actions[i], space.low, space.high).astype(space.dtype)
            observations[i], reward, terminated, truncated, info = env.step(action)
            episode.total, episode.best = (
                episode.total + float(reward),
                max(episode.best, float(reward)),
            )
            episode.steps += 1
            if "is_success" in info:
                episode.success = bool(episode.success or info["is_success"])
            if episode.over or terminated or truncated:
                episode.over = True
                if frames:
                    episode.frames.append(env.render())
                on_end(episode)


def streams(known: Observations, observations: Sequence[Any]) -> dict[str, Tensor]:
    """Stacks the observations of several environments to streams [environments, ...].

    Args:
        known: Observations conditioner of the policy, which names the streams to keep.
        observations: Observation of each environment: a dictionary of streams, or an array for a
            policy with a single stream.

    Raises:
        ValueError: If a stream is missing, or an array is given for several streams.
    """
    names = known.names
    if not isinstance(observations[0], Mapping):
        if len(names) != 1:
            raise ValueError(
                f"Expected a dictionary of {', '.join(names)} from the environment, got an array. "
                "Fix: wrap the environment so that it returns these streams by name."
            )
        observations = [{names[0]: observation} for observation in observations]
    if missing := [name for name in names if name not in observations[0]]:
        raise ValueError(
            f"Expected {', '.join(missing)} from the environment, got "
            f"{', '.join(observations[0])}. "
            "Fix: wrap the environment, or train a policy on the streams that it returns."
        )
    stacked = {name: torch.from_numpy(np.stack([o[name] for o in observations])) for name in names}
    for name, channels in known.images.items():
        stacked[name] = channels_first(stacked[name], channels)
    return {
        name: value.float() if value.dtype == torch.float64 else value
        for name, value in stacked.items()
    }


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the confidence interval of a proportion, 95 % by default (Wilson 1927)."""
    share, factor = successes / trials, 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / factor
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / factor
    return middle - half, middle + half


def summary(episodes: Sequence[Episode]) -> str:
    """Formats success, return, best reward and steps with 95 % confidence intervals."""
    count = len(episodes)
    lines = []
    if all(episode.success is not None for episode in episodes):
        successes = sum(bool(episode.success) for episode in episodes)
        low, high = wilson_interval(successes, count)
        lines.append(
            f"success      {successes / count:.3f} [{low:.3f}, {high:.3f}] ({successes} of {count})"
        )
    for name, values in (
        ("return", [episode.total for episode in episodes]),
        ("best reward", [episode.best for episode in episodes]),
        ("steps", [float(episode.steps) for episode in episodes]),
    ):
        half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        lines.append(f"{name:12} {np.mean(values):.3f} ± {half:.3f}")
    return "\n".join(lines)


def plan_latency(
    policy: Policy, observation: Mapping[str, Tensor], repeats: int = 100, **options: Any
) -> tuple[float, float]:
    """Measures the latency of plans at batch size 1.

    Args:
        policy: Policy that plans.
        observation: Streams of one environment, [1, ...].
        repeats: Number of measured plans, which three warm-up plans precede.
        options: Options of the policy's `plan`.

    Returns:
        Median and 99th percentile, in seconds.
    """
    steps = policy.observation_steps
    observations = {
        name: value[:, None].expand(-1, steps, *value.shape[1:])
        for name, value in observation.items()
    }
    seconds = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        policy.plan(observations, **options).cpu()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[3:])), float(np.quantile(seconds[3:], 0.99))
