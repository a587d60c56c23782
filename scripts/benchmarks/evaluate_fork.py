"""Measures how often a policy passes the disc, and whether it chooses sides as experts do.

    python scripts/benchmarks/evaluate_fork.py RUN [RUN ...]
    python scripts/benchmarks/evaluate_fork.py results/policy_flow_map --samplers own --calls 1 2 4

Prints the share of episodes that arrive with its 95 % interval, and the mean of |P(left | c) - c|
over ten bins, for each run of configs/policy_fork.yaml and number of network calls. Measures on
4,000 held-out contexts, and draws trajectories into a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import Controller
from diffusion_framework.policies import BehaviourCloning, Policy
from diffusion_framework.policies.rollout import wilson_interval
from diffusion_framework.policies.tasks import fork
from diffusion_framework.process.noise import mix

CONTEXTS = 4000


class Actor:
    """A policy in many environments, with noise seeded by environment and step."""

    def __init__(self, policy: Policy, **options) -> None:
        self.controller, self.step = Controller(policy, **options), 0

    def __call__(self, states: np.ndarray) -> np.ndarray:
        self.step += 1
        seeds = [mix(self.step, i) for i in range(len(states))]
        return self.controller.act({"state": states.astype(np.float32)}, seed=seeds).numpy()


def held_out(seed: int = 1_000_000) -> np.ndarray:
    """Returns initial states [4000, 4] with contexts evenly spread over [0, 1]."""
    rng = np.random.default_rng(seed)
    return fork.new_states(rng, rng.permutation((np.arange(CONTEXTS) + 0.5) / CONTEXTS))


def report(name: str, act, picture: plt.Axes | None = None) -> None:
    states = held_out()
    success, left, all_states, _ = fork.run(act, states)
    error = fork.binned_error(states[:, 3], left)
    low, high = wilson_interval(int(success.sum()), len(success))
    print(
        f"{name:34} success {success.mean():.3f} [{low:.3f}, {high:.3f}]   "
        f"|P(left|c) - c| {error:.3f}",
        flush=True,
    )
    if picture is not None:
        draw(
            picture, f"{name}: {success.mean():.3f}, {error:.3f}", np.stack(all_states, axis=1)[:60]
        )


def draw(axes: plt.Axes, title: str, states: np.ndarray) -> None:
    axes.add_patch(plt.Circle((1, 0), fork.RADIUS, color="0.85"))
    for path in states:
        axes.plot(
            path[:, 0],
            path[:, 1] - path[:, 2],
            color=matplotlib.colormaps["coolwarm"](path[0, 3]),
            lw=0.7,
        )
    axes.plot([fork.LENGTH] * 2, [-fork.TOLERANCE, fork.TOLERANCE], "k", lw=2)
    axes.set(title=title, xlim=(-0.1, 2.2), ylim=(-0.8, 0.8), aspect="equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="results folders of runs")
    parser.add_argument("--samplers", nargs="+", default=["ddim", "dpm_solver"], metavar="NAME")
    parser.add_argument("--calls", nargs="+", type=int, default=[2, 5, 10, 50])
    parser.add_argument("--spacing", choices=["time", "log_snr", "optimal"], default="time")
    parser.add_argument("--picture", type=Path, help="PNG file for the trajectories")
    args = parser.parse_args()
    figure, axes = plt.subplots(3, 2, figsize=(11, 10))
    places = iter(axes.flat)
    rng = np.random.default_rng(7)
    report("expert", fork.Expert(rng, held_out()[:, 3]), next(places))
    for run in args.runs:
        policy = Policy.from_pretrained(run)
        if isinstance(policy, BehaviourCloning):
            report("behaviour cloning", Actor(policy), next(places, None))
            continue
        for sampler in args.samplers:
            chosen = {} if sampler == "own" else {"sampler": sampler}
            for calls in args.calls:
                place = next(places, None) if sampler == args.samplers[-1] else None
                actor = Actor(policy, calls=calls, spacing=args.spacing, **chosen)
                report(f"{sampler}, {calls} calls", actor, place)
    if args.picture:
        figure.tight_layout()
        figure.savefig(args.picture, dpi=80)


if __name__ == "__main__":
    main()
