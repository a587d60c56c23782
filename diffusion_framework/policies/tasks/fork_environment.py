"""The fork (see `fork`) as a gymnasium environment, `diffusion_framework/Fork-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from . import fork


class ForkEnv(gymnasium.Env):
    """One agent at the fork. The reward is 1 on arrival if it never touched the disc, else 0.

    `reset(options={"context": c})` sets the context; else it is drawn.
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
        """A new start; see `gymnasium.Env`."""
        super().reset(seed=seed)
        context = self.np_random.uniform() if not options else options["context"]
        self.states = fork.new_states(self.np_random, np.array([context]))
        self.path, self.touched = [self.states[0]], False
        return self.states[0].astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; see `gymnasium.Env`. It ends on arrival, or (truncated) after 20 steps."""
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
        """[160, 230, 3] uint8: the disc, the goal and the path so far."""
        y, x = np.mgrid[0.8:-0.8:160j, -0.1:2.2:230j]
        picture = np.full((160, 230, 3), 255, dtype=np.uint8)
        picture[np.hypot(x - 1, y - self.states[0, 2]) < fork.RADIUS] = 200
        picture[(np.abs(x - fork.LENGTH) < 0.01) & (np.abs(y) <= fork.TOLERANCE)] = 0
        for state in self.path:
            picture[np.hypot(x - state[0], y - state[1]) < 0.02] = (200, 60, 40)
        return picture


gymnasium.register("diffusion_framework/Fork-v0", entry_point=f"{__name__}:ForkEnv")
