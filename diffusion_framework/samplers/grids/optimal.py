"""The log-SNRs that make a multistep solver's error small, whatever the network (after Xue et al. 2024)."""

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
    schedule: NoiseSchedule, steps: int, order: int = 3, strength: float = 1.0, last_time: float = 1e-3
) -> list[float]:
    """`steps` log-SNRs that minimise `error_bound` for a solver, between two times of the schedule, and +inf.

    Found by L-BFGS from evenly spaced ones, in well under a second, always the same, and remembered.

    Args:
        schedule: Gives log-SNR at the two times.
        steps: Number of steps, at least 1; the last is the one to the clean end.
        order: Of the multistep solver that predicts clean data, 1 (DDIM) to 4; a corrector counts as one more. Solvers
            of other orders, and those that predict noise or velocity, do well with 3.
        strength: Time to start from, in (0, 1], where the schedule has some signal.
        last_time: Time at which the last step starts, below strength and where the schedule has some noise.

    Raises:
        ValueError: an option out of range, or an infinite log-SNR at one of the times.
    """
    check_steps(steps)
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1 to 4; got {order}")
    if steps < 3:  # nothing lies between the two ends
        return uniform_log_snrs(schedule, steps, strength, last_time)
    return [*_optimal(*log_snr_range(schedule, strength, last_time), steps - 1, order), math.inf]


def error_bound(log_snrs: Tensor, order: int) -> Tensor:
    """How far errors of the predictions move the solution, at most: the sum of their weights' sizes times their sizes.

    With l = log-SNR / 2, the exact step is `x'/sigma' = x/sigma + ∫ exp(l) x0(l) dl`; the solver puts a polynomial
    through its last predictions in the place of x0, and so weighs each (Lu et al. 2022b). The error of a prediction is
    taken to grow with noise like sigma² / alpha (Xue et al. 2024; they add up the weights that a prediction has in all
    steps before taking their size, but then large weights of opposite signs seem harmless).

    Args:
        log_snrs: float64 [steps + 1], rising, all finite.
        order: Number of predictions in each step; the first steps have as many as there are.

    Returns:
        A scalar: the bound on x / sigma at the last level, up to constants.
    """
    halves = log_snrs / 2
    size = torch.sigmoid(-log_snrs) * torch.exp(-0.5 * torch.nn.functional.logsigmoid(log_snrs))  # sigma² / alpha
    exact: Any = {"dtype": torch.float64, "device": log_snrs.device}
    nodes, weights = (torch.tensor(v, **exact) for v in np.polynomial.legendre.leggauss(16))
    total = torch.zeros((), **exact)
    count = len(halves) - 1
    for past in range(1, min(order, count) + 1):  # steps that see this many predictions
        now = torch.arange(past - 1, count if past == order else past, device=log_snrs.device)
        start, width = halves[now, None], (halves[now + 1] - halves[now])[:, None]
        at = start + width * (nodes + 1) / 2
        density = width * weights / 2 * torch.exp(at - halves[-1])
        for i in range(past):
            basis = density
            for j in range(past):
                if j != i:
                    basis = basis * (at - halves[now - j, None]) / (halves[now - i, None] - halves[now - j, None])
            total = total + (basis.sum(dim=1).abs() * size[now - i]).sum()
    return total


@lru_cache(maxsize=256)
def _optimal(low: float, high: float, steps: int, order: int) -> tuple[float, ...]:
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        logits = torch.zeros(steps, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

        def levels() -> Tensor:
            # each step is at least a tenth as long as on average, so that none vanishes
            inner = low + (high - low) * (0.1 / steps + 0.9 * torch.softmax(logits, dim=0)).cumsum(0)[:-1]
            ends = torch.tensor([low, high], dtype=torch.float64)
            return torch.cat([ends[:1], inner, ends[1:]])

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = error_bound(levels(), order).log()
            loss.backward()
            return loss

        optimizer.step(closure)
        return tuple(levels().tolist())
