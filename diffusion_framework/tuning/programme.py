"""The levels of a few steps by dynamic programming."""

from __future__ import annotations

import torch
from torch import Tensor


def cheapest_levels(costs: Tensor, steps: int) -> list[int]:
    """Returns the levels where the steps start that have the smallest sum of costs.

    The cost of a step depends on the levels where it and the step before it start, since a
    multistep method remembers one prediction. GITS (Chen et al. 2024) does the same for a step that
    remembers none.

    Args:
        costs: Costs [n, n, n + 1] of the step from level i to level j after one from h to i, at
            [h, i, j]; of the first step, from level 0, at [0, 0, j]. Level n is the clean end.
        steps: Number of steps, from 1 to n.

    Returns:
        Rising levels, one for each step, the first 0.
    """
    if steps == 1:
        return [0]
    n = len(costs)
    order = torch.arange(n, device=costs.device)
    rises = order[:, None] < order
    # least[h, i]: costs up to level i, with h before it
    least = torch.full((n, n), torch.inf, dtype=costs.dtype, device=costs.device)
    least[0, 1:] = costs[0, 0, 1:n]
    later = torch.where(rises[:, :, None] & rises, costs[:, :, :n], torch.inf)
    before = []
    for _ in range(steps - 2):
        least, chosen = (least[:, :, None] + later).min(dim=0)
        before.append(chosen)
    total = least + torch.where(rises, costs[:, :, n], torch.inf)
    h, i = divmod(int(total.argmin()), n)
    found = [i, h]
    for chosen in reversed(before):
        found.append(int(chosen[found[-1], found[-2]]))
    return found[::-1]
