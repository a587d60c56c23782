"""The local search for levels, which measures the error at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_POWER = 1.5  # of the errors of samples: below 2, so that a few outliers do not rule

Errors = Callable[[Sequence[float]], Tensor]
"""Function that returns the errors at the end [samples, numbers] of a list of log-SNRs."""


def size(errors: Tensor) -> float:
    """Returns the power mean over samples of their RMS errors, which outliers do not rule."""
    return float(errors.double().square().mean(1).pow(_POWER / 2).mean() ** (1 / _POWER))


def refine(
    log_snrs: Sequence[float], ends: tuple[float, float], errors: Errors, trials: int = 8
) -> tuple[list[float], float]:
    """Returns log-SNRs with smaller errors, and their size.

    It is the method of Levenberg and Marquardt with differences for derivatives, kept up to date by
    Broyden's formula. Samples with large errors have less weight, which minimises `size`.

    Args:
        log_snrs: Rising log-SNRs to start from; they stay in order.
        ends: Log-SNRs between which they stay.
        errors: Function to minimise; it is called once for each log-SNR, and for each trial.
        trials: Number of moves of all log-SNRs to try.
    """
    best = list(log_snrs)
    found = errors(best)
    least = size(found)
    scales = _room(best, ends)
    slopes = torch.stack(
        [
            (errors([*best[:k], best[k] + 0.1 * room, *best[k + 1 :]]) - found) / 0.1
            for k, room in enumerate(scales)
        ]
    )  # [log-SNRs, samples, numbers], in units of `scales`
    damping = 0.03
    for _ in range(trials):
        move = _move(slopes, found, damping)
        limits = torch.tensor(_room(best, ends)) / torch.tensor(scales)
        move = move * (0.45 * limits / move.abs().clamp(min=1e-12)).min().clamp(max=1.0)
        if float(move.abs().max()) < 0.01:
            break
        trial = [
            value + float(m) * scale for value, m, scale in zip(best, move, scales, strict=True)
        ]
        after = errors(trial)
        expected = found + torch.tensordot(move.to(slopes), slopes, 1)
        step = (move / move.square().sum()).to(slopes)
        slopes += step[:, None, None] * (after - expected)
        if size(after) < least:
            best, found, least, damping = trial, after, size(after), damping / 3
        else:
            damping = 10 * damping
    return best, least


def _room(log_snrs: Sequence[float], ends: tuple[float, float]) -> list[float]:
    """Returns the distance of each log-SNR to the nearer neighbour, at most 4 nats."""
    values = [ends[0], *log_snrs, ends[1]]
    return [
        min(values[k] - values[k - 1], values[k + 1] - values[k], 4.0)
        for k in range(1, len(values) - 1)
    ]


def _move(slopes: Tensor, found: Tensor, damping: float) -> Tensor:
    """Returns the damped step of least squares."""
    weights = found.square().mean(1).clamp(min=1e-18).pow((_POWER - 2) / 4)
    weighted = (slopes * weights[:, None]).flatten(1)
    matrix = (weighted @ weighted.T).double().cpu()
    right = (weighted @ (found * weights[:, None]).flatten()).double().cpu()
    matrix += damping * torch.diag(matrix.diagonal().clamp(min=1e-12))
    return -torch.linalg.solve(matrix, right)
