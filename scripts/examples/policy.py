"""A policy from demonstrations: walk to a goal in a world of your own.

A `DiffusionPolicy` plans sequences of actions from the latest observations (Chi et al. 2023). A
`Controller` executes the first actions of each plan and then plans again, here for 100 walkers at
once. Training takes less than a minute on two CPU cores.
"""

from pathlib import Path

import numpy as np

from diffusion_framework import Controller, DiffusionPolicy, Trainer
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP
from diffusion_framework.policies import Episodes, EpisodeWindows

LENGTH = 16  # steps of an episode


def new_states(count: int, seed: int) -> np.ndarray:
    """Returns the position of each walker and of its goal, [count, 4]."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4))


def walk(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Returns the states after one step; actions [count, 2] are displacements."""
    return np.concatenate([states[:, :2] + actions, states[:, 2:]], axis=1)


def demonstrations(count: int) -> Episodes:
    """Returns episodes of experts, who go a quarter of the remaining way in each step."""
    states, seen, done = new_states(count, seed=0), [], []
    for _ in range(LENGTH):
        seen.append(states)
        done.append((states[:, 2:] - states[:, :2]) / 4)
        states = walk(states, done[-1])
    arrays = {"state": np.stack(seen, axis=1), "action": np.stack(done, axis=1)}
    steps = {name: array.reshape(count * LENGTH, -1) for name, array in arrays.items()}
    return Episodes(steps, ends=LENGTH * np.arange(1, count + 1))


def main(steps: int = 3000, folder: str | Path = "results/policy") -> float:
    """Trains, walks to new goals, and returns the mean distance that is left."""
    network = ResidualMLP(8, 2, observation_steps=2, observation_dim=4, dim=128, depth=2)
    policy = DiffusionPolicy(network, Observations({"state": 4}), action_steps=4)
    data = EpisodeWindows(demonstrations(500), horizon=8, action_steps=4)
    trainer = Trainer(policy, data, train_lr=1e-3, train_num_steps=steps, results_folder=folder)
    trainer.train()

    controller = Controller(DiffusionPolicy.from_pretrained(folder), sampler="dpm_solver", steps=5)
    states = new_states(100, seed=1)
    for step in range(LENGTH):
        states = walk(states, controller.act({"state": states}, seed=step).numpy())
    left = float(np.linalg.norm(states[:, 2:] - states[:, :2], axis=1).mean())
    print(f"mean distance to the goal: {left:.3f}")
    return left


if __name__ == "__main__":
    main()
