"""Log-SNRs that minimise an error bound of multistep solvers, for any network.

After Xue et al. 2024. The bound grows without limit towards pure noise, so choose a first level
where signal and noise mix. The spacing 'optimal' of `spaced_grid` needs no such choice.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...process.schedules import NoiseSchedule
from .sigmas import log_snr_range, uniform_log_snrs
from .times import check_steps


def optimal_log_snrs(
    schedule: NoiseSchedule,
    steps: int,
    order: int = 3,
    strength: float = 1.0,
    last_time: float = 1e-3,
) -> list[float]:
    """Returns `steps` log-SNRs that minimise `error_bound` for a solver, and +inf.

    The first and last are the log-SNRs at two times of the schedule. L-BFGS starts from even
    spacing and takes well under a second. The result is deterministic and cached.

    Args:
        schedule: Noise schedule that gives log-SNR at the two times.
        steps: Number of sampler steps, from 1 to 100,000, including the step to the clean end.
        order: Order of a multistep solver that predicts clean data, 1 (DDIM) to 4; a corrector adds
            one. For higher orders, and for solvers that predict noise or velocity, use 3.
        strength: Time of the first level, in (0, 1], where the schedule has some signal.
        last_time: Time at which the last step starts, in [0, strength), where the schedule has some
            noise.

    Raises:
        ValueError: If an option is out of range, or log-SNR is infinite at one of the times.
    """
    check_steps(steps)
    if order not in (1, 2, 3, 4):
        raise ValueError(f"Expected order from 1 to 4, got {order}. Fix: use the default 3.")
    if steps < 3:  # No level lies between the two ends.
        return uniform_log_snrs(schedule, steps, strength, last_time)
    return [*_optimal(*log_snr_range(schedule, strength, last_time), steps - 1, order), math.inf]


def error_bound(log_snrs: Tensor, order: int) -> Tensor:
    """Bounds the effect of prediction errors on the solution.

    With l = log-SNR / 2, the exact step is `x'/sigma' = x/sigma + ∫ exp(l) x0(l) dl`. The solver
    replaces x0 by the polynomial through its last predictions, which gives each prediction a weight
    (Lu et al. 2022b). The bound is the sum over all steps of |weight| times the error of the
    prediction. That error is taken as sigma² / alpha (Xue et al. 2024).

    Xue et al. add up the weights of a prediction over all steps before taking the absolute value.
    Large weights of opposite signs then seem harmless.

    Args:
        log_snrs: Rising log-SNRs in nats, float64 [steps + 1], all finite.
        order: Number of predictions in each step. The first steps use as many as are available.

    Returns:
        A scalar: the bound on x / sigma at the last level, up to constants.
    """
    halves = log_snrs / 2
    size = torch.sigmoid(-log_snrs) * torch.exp(
        -0.5 * torch.nn.functional.logsigmoid(log_snrs)
    )  # sigma² / alpha
    exact: Any = {"dtype": torch.float64, "device": log_snrs.device}
    nodes, weights = (torch.tensor(v, **exact) for v in np.polynomial.legendre.leggauss(16))
    total = torch.zeros((), **exact)
    count = len(halves) - 1
    for past in range(1, min(order, count) + 1):
        # Indices of the steps with `past` predictions.
        now = torch.arange(past - 1, count if past == order else past, device=log_snrs.device)
        start, width = halves[now, None], (halves[now + 1] - halves[now])[:, None]
        at = start + width * (nodes + 1) / 2
        density = width * weights / 2 * torch.exp(at - halves[-1])
        for i in range(past):
            basis = density
            for j in range(past):
                if j != i:
                    basis = (
                        basis
                        * (at - halves[now - j, None])
                        / (halves[now - i, None] - halves[now - j, None])
                    )
            total = total + (basis.sum(dim=1).abs() * size[now - i]).sum()
    return total


@lru_cache(maxsize=256)
def _optimal(low: float, high: float, steps: int, order: int) -> tuple[float, ...]:
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        logits = torch.zeros(steps, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

        def levels() -> Tensor:
            # Each step has at least a tenth of the average length, so that none vanishes.
            inner = (
                low
                + (high - low) * (0.1 / steps + 0.9 * torch.softmax(logits, dim=0)).cumsum(0)[:-1]
            )
            ends = torch.tensor([low, high], dtype=torch.float64)
            return torch.cat([ends[:1], inner, ends[1:]])

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = error_bound(levels(), order).log()
            loss.backward()
            return loss

        optimizer.step(closure)
        return tuple(levels().tolist())
