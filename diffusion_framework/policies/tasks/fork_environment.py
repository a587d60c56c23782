"""The task of `fork` as a gymnasium environment, `diffusion_framework/Fork-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from . import fork


class ForkEnv(gymnasium.Env):
    """Environment of one agent, with reward 1 for reaching the goal without touching the disc.

    All other rewards are 0. `reset(options={"context": c})` sets the context; otherwise it is drawn
    uniformly from [0, 1].
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-5, 5, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-5, 5, (2,), np.float32)
        self.states = np.zeros((1, 4))
        self.path: list[np.ndarray] = []
        self.touched = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode, as `gymnasium.Env` describes."""
        super().reset(seed=seed)
        context = self.np_random.uniform() if not options else options["context"]
        self.states = fork.new_states(self.np_random, np.array([context]))
        self.path, self.touched = [self.states[0]], False
        return self.states[0].astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one step, as `gymnasium.Env` describes; truncates the episode after 20 steps."""
        self.states, hit, arrived = fork.move(
            self.states, np.asarray(action, dtype=np.float64)[None]
        )
        self.path.append(self.states[0])
        self.touched |= bool(hit[0])
        over = bool(arrived[0])
        success = over and not self.touched
        truncated = not over and len(self.path) > fork.MAX_STEPS
        return (
            self.states[0].astype(np.float32),
            float(success),
            over,
            truncated,
            {"is_success": success},
        )

    def render(self) -> np.ndarray:
        """Renders the disc, the goal and the path so far, [160, 230, 3] uint8."""
        y, x = np.mgrid[0.8:-0.8:160j, -0.1:2.2:230j]
        picture = np.full((160, 230, 3), 255, dtype=np.uint8)
        picture[np.hypot(x - 1, y - self.states[0, 2]) < fork.RADIUS] = 200
        picture[(np.abs(x - fork.LENGTH) < 0.01) & (np.abs(y) <= fork.TOLERANCE)] = 0
        for state in self.path:
            picture[np.hypot(x - state[0], y - state[1]) < 0.02] = (200, 60, 40)
        return picture


gymnasium.register("diffusion_framework/Fork-v0", entry_point=f"{__name__}:ForkEnv")
