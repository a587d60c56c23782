"""Tests of the fork task: its experts, environment and metrics."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_framework.policies import ForkDemonstrations
from diffusion_framework.policies.tasks import fork


def starts(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return fork.new_states(rng, (np.arange(count) + 0.5) / count)


def test_experts_arrive_and_pass_left_with_probability_c():
    states = starts(20_000)
    success, left, _, _ = fork.run(fork.Expert(np.random.default_rng(0), states[:, 3]), states)
    assert 0.98 < success.mean() < 0.995
    # 0.016 is the sampling error with 4,000 contexts
    assert fork.binned_error(states[:, 3], left) < 3 * 0.016 / np.sqrt(5)


def test_the_mean_of_the_experts_goes_through_the_disc():
    states = starts(1000)

    def mean(states: np.ndarray) -> np.ndarray:
        experts = [
            fork.Expert(np.random.default_rng(i), np.full(len(states), i % 2)) for i in range(10)
        ]
        return np.mean([expert(states) for expert in experts], axis=0)

    success, _, _, _ = fork.run(mean, states)
    assert success.mean() < 0.1


def test_steps_are_limited_and_touching_the_disc_forfeits_success():
    before = np.array([[0.0, 0, 0, 0.5], [0.69, 0, 0, 0.5], [1.9, 0.3, 0, 0.5]])
    states, hit, arrived = fork.move(before, np.array([[2.0, 0], [1.69, 1], [2.9, 0.3]]))
    np.testing.assert_allclose(np.linalg.norm(states[0, :2]), fork.STEP)
    assert hit.tolist() == [False, True, False] and arrived.tolist() == [False, False, False]
    straight, _, all_states, _ = fork.run(lambda s: s[:, :2] + [1.0, 0.0], starts(10))
    assert not straight.any() and (all_states[-1][:, 0] > 1.5).all()


def test_demonstrations_are_reproducible_steps_of_the_experts():
    one, same, other = (fork.demonstrate(50, seed) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    state, action = one.arrays["state"], one.arrays["action"]
    for begin, end in zip(one.starts, one.ends, strict=True):
        moved, _, _ = fork.move(
            state[begin : end - 1].astype(float), action[begin : end - 1].astype(float)
        )
        np.testing.assert_allclose(moved, state[begin + 1 : end], atol=1e-6)
        assert (state[begin:end, 2:] == state[begin, 2:]).all()
        _, _, arrived = fork.move(
            state[end - 1 : end].astype(float), action[end - 1 : end].astype(float)
        )
        assert arrived[0] or end - begin == fork.MAX_STEPS
    validation = ForkDemonstrations(40, split="validation", validation_share=0.25)
    assert len(validation.windows.episodes) == 10


def test_the_binned_error_of_known_answers():
    context = (np.arange(4000) + 0.5) / 4000
    rng = np.random.default_rng(0)
    assert fork.binned_error(context, rng.uniform(size=4000) < context) == pytest.approx(
        0.016, abs=0.01
    )
    assert fork.binned_error(context, context > 0.5) == pytest.approx(0.25, abs=1e-3)
    assert fork.binned_error(context, np.full(4000, True)) == pytest.approx(0.5, abs=1e-3)


def test_the_environment_agrees_with_the_task():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from gymnasium.utils.env_checker import check_env

    from diffusion_framework.policies.rollout import make_environment

    env = make_environment("diffusion_framework/Fork-v0", render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=False)
    for context, seed in ((0.0, 3), (1.0, 4)):
        observation, _ = env.reset(seed=seed, options={"context": context})
        expert = fork.Expert(np.random.default_rng(seed), np.array([context]))
        over, total = False, 0.0
        while not over:
            action = expert(observation[None].astype(float))[0].astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            over, total = terminated or truncated, total + reward
        assert info["is_success"] and total == 1
        assert env.render().shape == (160, 230, 3)
    assert isinstance(env, gymnasium.Env)
