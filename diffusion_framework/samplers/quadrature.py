"""Weights of multistep methods: the mean, over a step, of the polynomial through past predictions.

Positions are measured in steps: 0 is where the step starts, 1 where it ends, past nodes are negative. Everything is a
function of a few floats, so the weights are cached and cost a step nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch


def moments(count: int, z: float) -> list[float]:
    """E[u^k] for k = 0 .. count - 1 and u in [0, 1] with density ∝ exp(z u); z = 0 is the uniform density.

    The closed form loses digits where z is small, and the series where it is large: each is used where it is exact.
    """
    if abs(z) > 2:
        # J_k = exp(-z) ∫ u^k exp(z u) du for z > 0, by parts; mirrored (without the factor) for z < 0
        end, start = (1.0, math.exp(-z)) if z > 0 else (math.exp(z), 1.0)
        integrals = [(end - start) / z]
        for k in range(1, count):
            integrals.append((end - k * integrals[-1]) / z)
    else:
        integrals = [sum(z**j / (math.factorial(j) * (k + j + 1)) for j in range(30)) for k in range(count)]
    return [integral / integrals[0] for integral in integrals]


@lru_cache(maxsize=4096)
def mean_weights(nodes: tuple[float, ...], z: float = 0.0) -> tuple[float, ...]:
    """Weights w such that sum(w f(nodes)) is the mean of the polynomial through f, under density ∝ exp(z u) on [0, 1].

    Args:
        nodes: Positions of the predictions, all different.
        z: Steepness of the density.

    Raises:
        ValueError: two equal nodes.
    """
    if len(set(nodes)) < len(nodes):
        raise ValueError(f"predictions must lie at different levels; got {nodes}")
    powers = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64)
    return tuple(torch.linalg.solve(powers, torch.tensor(moments(len(nodes), z), dtype=torch.float64)).tolist())
