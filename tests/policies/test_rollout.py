"""Tests of rollouts, their statistics and their command."""

from __future__ import annotations

from functools import wraps

import numpy as np
import pytest
import torch
from commands import rollout
from demonstrations import fitted
from PIL import Image
from toys import QUIET

from diffusion_framework import Controller, DiffusionPolicy, Trainer
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP
from diffusion_framework.policies import ForkDemonstrations
from diffusion_framework.policies.rollout import (
    Episode,
    plan_latency,
    run_episodes,
    summary,
    wilson_interval,
)
from diffusion_framework.storage.images import save_animation
from diffusion_framework.training.summary import Outline, ending

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")


def fork_policy(second_time: bool = False, **options) -> DiffusionPolicy:
    network = ResidualMLP(16, 2, 2, 4, dim=16, depth=1, second_time=second_time)
    torch.nn.init.normal_(network.layer_out.weight, std=0.1)
    return fitted(
        DiffusionPolicy(network, Observations({"state": 4}), plan_steps=2, **options),
        ForkDemonstrations(40),
    )


class Countdown(gymnasium.Env):
    """Environment that ends after `seed` steps, with success for even seeds.

    The rewards are 0, 1, 2, ...
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(-0.01, 0.01, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps, self.largest = seed, 0, 0.0
        return np.full(4, float(seed)), {}

    def step(self, action):
        assert action.dtype == np.float32 and np.abs(action).max() <= np.float32(0.01)
        self.steps += 1
        over = self.steps == self.seed
        return (
            np.full(4, float(self.steps)),
            self.steps - 1.0,
            over,
            False,
            {"is_success": over and self.seed % 2 == 0},
        )


@pytest.mark.parametrize("environments", [1, 2, 5])
def test_episodes_are_recorded_separately_in_any_batch(environments):
    policy = fork_policy()
    ended = []
    episodes = run_episodes(
        Controller(policy),
        [Countdown() for _ in range(environments)],
        range(3, 8),
        on_end=ended.append,
    )
    assert [e.seed for e in episodes] == [3, 4, 5, 6, 7] == [e.steps for e in episodes]
    assert [e.success for e in episodes] == [False, True, False, True, False]
    assert [e.total for e in episodes] == [n * (n - 1) / 2 for n in range(3, 8)]
    assert [e.best for e in episodes] == [n - 1 for n in range(3, 8)]
    assert sorted(e.seed for e in ended) == [3, 4, 5, 6, 7]
    text = summary(episodes)
    assert "0.400 [0.118, 0.769] (2 of 5)" in text and "best reward  4.000" in text


def test_the_wilson_interval_inverts_the_score_test():
    for successes, trials in ((0, 10), (3, 10), (199, 200)):
        for edge in wilson_interval(successes, trials):
            squared = (successes / trials - edge) ** 2
            assert squared == pytest.approx(1.96**2 * edge * (1 - edge) / trials, abs=1e-12)


def test_environments_without_success_have_no_success_rate():
    assert "success" not in summary(
        [Episode(0, total=1.0, best=1.0), Episode(1, total=2.0, best=1.0)]
    )


def test_latency_is_measured_on_single_plans():
    policy = fork_policy()
    calls = []
    policy.diffusion.model.register_forward_hook(
        lambda module, args, output: calls.append(len(output))
    )
    median, worst = plan_latency(policy, {"state": torch.zeros(1, 4)}, repeats=4, steps=3)
    assert 0 < median <= worst
    assert calls == [1] * (4 + 3) * 3


def test_animations_keep_every_frame(tmp_path):
    frames = [np.full((6, 8, 3), 40 * i, dtype=np.uint8) for i in range(5)]
    save_animation(frames, tmp_path / "new" / "a.gif")
    with Image.open(tmp_path / "new" / "a.gif") as animation:
        assert animation.n_frames == 5 and animation.size == (8, 6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.gif"]


def test_the_script(tmp_path, capsys):
    options = {**QUIET, "train_num_steps": 1, "results_folder": tmp_path / "run"}
    trainer = Trainer(fork_policy(), ForkDemonstrations(40), **options)
    trainer.train()
    # The last line of the training is a command that runs, with the defaults of the policy.
    _, program, command, *words = ending(Outline.of(trainer)).splitlines()[-1].split()
    assert (program, command) == ("diffusion", "rollout")
    rollout([*words, "--episodes=2", "--latency=1", "--progress=false"])
    assert "(1 plan)" in capsys.readouterr().out

    def run(*words):
        rollout([str(word) for word in (tmp_path / "run", "--progress", "false", *words)])
        return capsys.readouterr().out

    words = ("--env", "diffusion_framework/Fork-v0", "--episodes", 3, "--latency", 2)
    out = run(
        *words,
        "--video",
        tmp_path / "video",
        "--sampler",
        "DPMSolver",
        "--steps",
        2,
        "--warm_start",
        0.6,
    )
    assert all(
        word in out for word in ("success", "return", "best reward", "ms median", "99th percentile")
    )
    assert sorted(path.name for path in (tmp_path / "video").iterdir()) == [
        f"{100_000 + i}.gif" for i in range(3)
    ]
    for bad, message in (
        (("--env", "nowhere/Nothing-v0"), "gymnasium, got 'nowhere/Nothing-v0'"),
        (
            ("--env", "diffusion_framework/Fork-v0", "--episodes", 0),
            "--episodes: expected at least 1, got 0",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*bad)
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and message in error and error.count("\n") == 1


def test_the_command_takes_one_and_two_calls_of_a_flow_map(tmp_path, monkeypatch):
    options = {**QUIET, "train_num_steps": 1, "results_folder": tmp_path / "run"}
    policy = fork_policy(second_time=True, loss="flow_map", noise_schedule="flow")
    Trainer(policy, ForkDemonstrations(40), **options).train()
    forward, ends = ResidualMLP.forward, []

    @wraps(forward)
    def recorded(self, x, time, self_cond=None, context=None, second_time=None):
        ends.append((time[0].item(), second_time[0].item()))
        return forward(self, x, time, self_cond, context, second_time)

    monkeypatch.setattr(ResidualMLP, "forward", recorded)
    words = ["--env=diffusion_framework/Fork-v0", "--episodes=2", "--latency=1", "--progress=false"]
    for more, wanted in (
        (["--calls=1"], {(1.0, 0.0)}),
        (["--calls=2"], {(1.0, 0.5), (0.5, 0.0)}),
        (["--calls=1", "--warm_start=0.4"], {(1.0, 0.0), (0.4, 0.0)}),
    ):
        ends.clear()
        rollout([str(tmp_path / "run"), *words, *more])
        assert {tuple(round(t, 6) for t in pair) for pair in ends} == wanted
