"""The dynamic programme finds the levels that trying all of them finds."""

import itertools

import pytest
import torch

from diffusion_framework.tuning.programme import cheapest_levels


def cost_of(costs, levels):
    """The sum of the costs of all steps, the last of which leads to the clean end."""
    stops = [*levels, len(costs)]
    first = costs[0, 0, stops[1]]
    return first + sum(costs[h, i, j] for h, i, j in zip(stops, stops[1:], stops[2:], strict=False))


@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_trying_all_levels(steps, seed):
    costs = torch.rand(7, 7, 8, generator=torch.Generator().manual_seed(seed)).double()
    every = [(0, *chosen) for chosen in itertools.combinations(range(1, 7), steps - 1)]
    best = min(every, key=lambda levels: float(cost_of(costs, levels)))
    assert cheapest_levels(costs, steps) == list(best)
