"""Let a policy act in gymnasium environments, and say how well it did and how long it thought."""

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
from ..process.noise import mix
from .controller import Controller
from .policy import Policy


@dataclass
class Episode:
    """What happened in one episode.

    Attributes:
        seed: Of the environment.
        success: Whether its `info["is_success"]` was ever true; None if it does not say.
        total: Sum of the rewards.
        best: Largest reward.
        steps: Number of steps.
        frames: Pictures [height, width, 3], uint8, if they were asked for.
    """

    seed: int
    success: bool | None = None
    total: float = 0.0
    best: float = -math.inf
    steps: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    over: bool = False


def make_environment(name: str, **options: Any) -> Any:
    """A gymnasium environment by its id; the package before the slash, which registers it, is imported first.

    Raises:
        ValueError: gymnasium, the package or the environment is not there.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ValueError("rollouts need gymnasium; pip install 'diffusion-framework[policy]'") from error
    package = name.partition("/")[0] if "/" in name else ""
    try:
        if package == __package__.partition(".")[0]:
            importlib.import_module(".tasks.fork_environment", __package__)
        elif package:
            importlib.import_module(package)
        return gymnasium.make(name, **options)
    except (ImportError, gymnasium.error.Error, TypeError) as error:
        raise ValueError(f"no environment {name!r} ({error}); install its package, or check the name") from error


def run_episodes(
    controller: Controller,
    environments: Sequence[Any],
    seeds: Sequence[int],
    *,
    frames: bool = False,
    on_end: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """One episode for each seed, as many side by side as there are environments.

    The noise of a plan depends on the seed of its episode and on the step alone, not on what goes on beside it.

    Args:
        controller: Acts.
        environments: Of gymnasium. Their actions are cut off at the ends of their action space.
        seeds: Of the environments' resets.
        frames: Whether to keep pictures.
        on_end: Called with each episode that has ended.
    """
    episodes = [Episode(seed) for seed in seeds]
    for first in range(0, len(episodes), len(environments)):
        _run_together(controller, environments, episodes[first : first + len(environments)], frames, on_end)
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
        seen = streams(controller.observations, observations)
        actions = controller.act(seen, seed=plan_seeds).cpu().numpy()
        step += 1
        for i, (env, episode) in enumerate(going):
            if episode.over:
                continue
            if frames:
                episode.frames.append(env.render())
            space = env.action_space
            action = np.clip(actions[i], space.low, space.high).astype(space.dtype)
            observations[i], reward, terminated, truncated, info = env.step(action)
            episode.total, episode.best = episode.total + float(reward), max(episode.best, float(reward))
            episode.steps += 1
            if "is_success" in info:
                episode.success = bool(episode.success or info["is_success"])
            if episode.over or terminated or truncated:
                episode.over = True
                if frames:
                    episode.frames.append(env.render())
                on_end(episode)


def streams(known: Observations, observations: Sequence[Any]) -> dict[str, Tensor]:
    """Observations of several environments, arrays or dictionaries of arrays, as streams [environments, ...].

    Args:
        known: What a policy is told. An array is its one stream; of a dictionary, its streams are taken.
        observations: One for each environment.

    Raises:
        ValueError: a stream that is missing, or an array for a policy of several streams.
    """
    names = known.names
    if not isinstance(observations[0], Mapping):
        if len(names) != 1:
            raise ValueError(
                f"Expected a dictionary of {', '.join(names)} from the environment, got one array. "
                "Fix: wrap the environment so that it gives them by name."
            )
        observations = [{names[0]: observation} for observation in observations]
    if missing := [name for name in names if name not in observations[0]]:
        raise ValueError(
            f"Expected {', '.join(missing)} from the environment, got {', '.join(observations[0])}. "
            "Fix: wrap the environment, or train a policy on these streams."
        )
    stacked = {name: torch.from_numpy(np.stack([o[name] for o in observations])) for name in names}
    for name, channels in known.images.items():
        if stacked[name].shape[-1] == channels:  # environments put channels last
            stacked[name] = stacked[name].movedim(-1, -3)
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in stacked.items()}


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927)."""
    share, factor = successes / trials, 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / factor
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / factor
    return middle - half, middle + half


def summary(episodes: Sequence[Episode]) -> str:
    """Success, return and best reward with 95 % confidence intervals, as lines."""
    count = len(episodes)
    lines = []
    if all(episode.success is not None for episode in episodes):
        successes = sum(bool(episode.success) for episode in episodes)
        low, high = wilson_interval(successes, count)
        lines.append(f"success      {successes / count:.3f} [{low:.3f}, {high:.3f}] ({successes} of {count})")
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
    """Median and 99th percentile of the seconds that one plan takes at batch 1.

    Args:
        observation: Streams of one environment, [1, ...].
        repeats: Number of plans, after three to warm up.
        options: Of the policy's `plan`.
    """
    steps = policy.observation_steps
    seen = {name: value[:, None].expand(-1, steps, *value.shape[1:]) for name, value in observation.items()}
    seconds = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        policy.plan(seen, **options).cpu()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[3:])), float(np.quantile(seconds[3:], 0.99))
