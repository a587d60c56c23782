"""The local search, on errors whose minimum is known."""

import pytest
import torch

from diffusion_framework.tuning.refine import refine, size

GOAL = torch.tensor([-3.0, -1.0, 0.5, 4.0])


def bent(log_snrs):
    """Errors that vanish at the goal, not linear in the levels, with a scale for each sample."""
    off = torch.tensor(log_snrs) - GOAL
    return torch.linspace(0.5, 2.0, 6)[:, None] * torch.sinh(off + 0.3 * off.flip(0))


def test_it_finds_the_minimum():
    found, least = refine([-4.0, -1.5, 1.0, 3.0], (-9.0, 9.0), bent, trials=30)
    assert torch.tensor(found) == pytest.approx(GOAL, abs=0.02)
    assert least == pytest.approx(size(bent(found)))


def test_levels_stay_in_order_and_between_the_ends():
    def pulled(log_snrs):
        """Errors that ask for levels in the opposite order, beyond the ends."""
        return torch.tensor([log_snrs]) - torch.tensor([[9.0, 3.0, -3.0, -9.0]])

    start = [-2.0, -1.0, 1.0, 2.0]
    found, least = refine(start, (-3.0, 3.0), pulled, trials=30)
    assert [-3.0, *found, 3.0] == sorted({-3.0, *found, 3.0})
    assert least < size(pulled(start))
