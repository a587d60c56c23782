"""Small demonstrations, and policies with random weights."""

from __future__ import annotations

import numpy as np
import torch

from diffusion_framework import DiffusionPolicy
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP
from diffusion_framework.policies import BehaviourCloning, Episodes, EpisodeWindows
from diffusion_framework.spaces import ActionSpace


def episodes(count: int = 6, length: int = 12) -> Episodes:
    rng = np.random.default_rng(0)
    state = rng.normal(50, 20, (count * length, 3)).astype(np.float32)
    return Episodes({"state": state, "action": state[:, :2] + 3}, np.arange(1, count + 1) * length)


def windows(**options) -> EpisodeWindows:
    return EpisodeWindows(episodes(), **{"horizon": 8, "action_steps": 4, **options})


def batch(size: int = 5):
    return windows().take(np.arange(size))


def all_batches(data: EpisodeWindows, size: int = 7):
    """Yields all windows once, for `fit`."""
    return (data.take(part) for part in np.array_split(np.arange(len(data)), len(data) // size + 1))


def fitted(policy, data: EpisodeWindows | None = None):
    policy.fit(all_batches(data or windows()))
    return policy


def network(**options) -> ResidualMLP:
    made = ResidualMLP(8, 2, 2, 3, **{"dim": 16, "depth": 1, **options})
    torch.nn.init.normal_(made.layer_out.weight, std=0.1)  # its initialisation is zero
    return made


def observations(**options) -> Observations:
    return Observations({"state": 3}, **options)


def diffusion_policy(
    fit: bool = True, relative_to: str | None = None, **options
) -> DiffusionPolicy:
    options = {"action_steps": 4, "plan_steps": 4, "space": ActionSpace(relative_to), **options}
    jumps = options.get("loss") == "flow_map"
    made = DiffusionPolicy(network(second_time=jumps), observations(), **options)
    return fitted(made) if fit else made


def behaviour_cloning(fit: bool = True, **options) -> BehaviourCloning:
    made = BehaviourCloning(network(), observations(), **{"action_steps": 4, **options})
    return fitted(made) if fit else made
