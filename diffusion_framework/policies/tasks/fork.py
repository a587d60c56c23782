"""The fork, a task with a known answer: pass a disc on the left as often as the experts do.

The agent starts near (0, 0) in a plane. Its goal is x >= 2 with |y| <= 0.25, and a disc of radius
0.3 lies in its way near (1, 0). An action is a target point, towards which the agent moves by at
most 0.2 per step. Touching the disc makes the episode a failure but does not end it.

The agent observes its position, the y of the disc, and a context c in [0, 1]. Experts pass on the
left (the larger y) with probability c. A policy that averages the experts hits the disc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from ...data import TrainingDataset
from ...process.noise import mix
from ..episodes import Episodes
from ..windows import EpisodeWindows, Split

RADIUS, LENGTH, TOLERANCE, STEP, MAX_STEPS = 0.3, 2.0, 0.25, 0.2, 20

_MOST_EPISODES = 1_000_000  # 1 GB


def new_states(rng: np.random.Generator, context: np.ndarray) -> np.ndarray:
    """Draws initial states [n, 4]: x, y, y of the disc, and the given contexts [n]."""
    n = len(context)
    x, y, disc = rng.normal(0, 0.02, n), rng.uniform(-0.1, 0.1, n), rng.uniform(-0.1, 0.1, n)
    return np.stack([x, y, disc, context], axis=1)


def move(states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves all agents by one step.

    Args:
        states: States before the step, [n, 4].
        actions: Target points, [n, 2].

    Returns:
        States after the step [n, 4], whether each agent hit the disc [n], and whether it reached
        the goal [n].
    """
    displacement = actions - states[:, :2]
    distance = np.linalg.norm(displacement, axis=1, keepdims=True)
    states = states.copy()
    states[:, :2] += displacement * np.minimum(1, STEP / np.maximum(distance, 1e-12))
    hit = np.hypot(states[:, 0] - 1, states[:, 1] - states[:, 2]) < RADIUS
    arrived = (states[:, 0] >= LENGTH) & (np.abs(states[:, 1]) <= TOLERANCE)
    return states, hit, arrived


class Expert:
    """Experts that go around the disc with noisy actions, on the left with probability c.

    Args:
        rng: Random generator for the side, the clearance and the action noise.
        context: Probabilities c of passing on the left, [n].
    """

    def __init__(self, rng: np.random.Generator, context: np.ndarray) -> None:
        self.rng = rng
        self.side = np.where(rng.uniform(size=len(context)) < context, 1.0, -1.0)
        self.clearance = rng.normal(0.48, 0.05, len(context))

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """Returns actions [n, 2] for states [n, 4]."""
        waypoint = np.stack(
            [np.ones(len(states)), states[:, 2] + self.side * self.clearance], axis=1
        )
        goal = np.broadcast_to([LENGTH + STEP, 0.0], waypoint.shape)
        aim = np.where(states[:, :1] < 1 - STEP / 2, waypoint, goal) - states[:, :2]
        aim *= STEP / np.maximum(np.linalg.norm(aim, axis=1, keepdims=True), STEP)
        return states[:, :2] + aim + self.rng.normal(0, 0.02, aim.shape)


def run(
    act: Callable[[np.ndarray], np.ndarray], states: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Runs all agents until they reach the goal, for at most 20 steps.

    Args:
        act: Function from states [n, 4] to actions [n, 2].
        states: Initial states, [n, 4].

    Returns:
        Success [n], whether each agent passed on the left of the disc's centre [n], the states
        before each step [n, 4], and the actions of each step [n, 2].
    """
    n = len(states)
    going, touched, left = np.full(n, True), np.full(n, False), np.full(n, False)
    all_states, all_actions = [], []
    for _ in range(MAX_STEPS):
        actions = np.asarray(act(states), dtype=np.float64)
        all_states.append(states)
        all_actions.append(actions)
        moved, hit, arrived = move(states, actions)
        states = np.where(going[:, None], moved, states)
        left = np.where(going & (states[:, 0] < 1 + STEP / 2), states[:, 1] > states[:, 2], left)
        touched |= going & hit
        going &= ~arrived
        if not going.any():
            break
    return ~going & ~touched, left, all_states, all_actions


def demonstrate(count: int, seed: int = 0) -> Episodes:
    """Generates demonstrations with contexts uniform in [0, 1]; some of them fail.

    Args:
        count: Number of demonstrations.
        seed: Seed for all randomness.

    Returns:
        Episodes with the arrays `state` [steps, 4] and `action` [steps, 2].
    """
    rng = np.random.default_rng(mix(seed))
    context = rng.uniform(size=count)
    states, expert = new_states(rng, context), Expert(rng, context)
    _, _, all_states, all_actions = run(expert, states)
    state, action = np.stack(all_states, axis=1), np.stack(all_actions, axis=1)
    # An agent no longer moves after its episode has ended.
    still = (state[:, 1:, :2] == state[:, :-1, :2]).all(axis=2)
    lengths = np.where(still.any(axis=1), still.argmax(axis=1) + 1, state.shape[1])
    kept = np.arange(state.shape[1]) < lengths[:, None]
    arrays = {"state": state[kept].astype(np.float32), "action": action[kept].astype(np.float32)}
    return Episodes(arrays, np.cumsum(lengths))


class ForkDemonstrations(TrainingDataset):
    """Windows of expert demonstrations of the fork task, generated when built.

    Args:
        episodes: Number of demonstrations.
        seed: Seed of the demonstrations.
        horizon: Number of actions of a window. `diffusion train` takes it from the policy.
        observation_steps: Number of observations of a window. `diffusion train` takes it from the
            policy.
        action_steps: Number of actions of a plan that are executed. `diffusion train` takes it from
            the policy.
        split: Episodes to use: 'all', 'train' or 'validation'.
        validation_share: Share of the episodes to hold out for validation, in [0, 1).

    Raises:
        ValueError: If an option is out of range.
    """

    environment = "diffusion_framework/Fork-v0"

    def __init__(
        self,
        episodes: int = 10_000,
        *,
        seed: int = 0,
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
        split: Split = "all",
        validation_share: float = 0.05,
    ) -> None:
        if not 1 <= episodes <= _MOST_EPISODES:
            raise ValueError(
                f"Expected episodes from 1 to {_MOST_EPISODES}, got {episodes}. "
                "Fix: choose a number in range."
            )
        self.windows = EpisodeWindows(
            demonstrate(episodes, seed),
            horizon=horizon,
            observation_steps=observation_steps,
            action_steps=action_steps,
            split=split,
            validation_share=validation_share,
        )

    def subset(self, indices: np.ndarray) -> NoReturn:
        """Raises ValueError, because windows of one episode are not independent."""
        raise ValueError(
            "Expected whole episodes as the validation data, got a share of their windows. "
            "Fix: give a folder of other episodes as the validation data."
        )

    def __len__(self) -> int:
        return len(self.windows)

    def draw(self, index: int, epoch: int) -> tuple[Tensor, dict[str, Any]]:
        return self.windows.draw(index, epoch)

    def take(
        self, indices: np.ndarray, epochs: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        return self.windows.take(indices, epochs)

    def fingerprint(self) -> str:
        return self.windows.fingerprint()


def binned_error(context: np.ndarray, left: np.ndarray, bins: int = 10) -> float:
    """Returns the error of the left share, |share of left - mean c|, averaged over bins of c.

    Args:
        context: Contexts c, [n].
        left: Whether each agent passed on the left, [n].
        bins: Number of equal bins of [0, 1]; empty ones are ignored.
    """
    index = np.minimum((context * bins).astype(int), bins - 1)
    return float(
        np.mean(
            [abs(left[index == i].mean() - context[index == i].mean()) for i in np.unique(index)]
        )
    )
