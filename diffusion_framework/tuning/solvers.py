"""The samplers among which tuning chooses."""

from __future__ import annotations

from collections.abc import Sequence

from ..samplers import Sampler, UniPC


def solvers(sigma_data: float) -> Sequence[Sampler]:
    """Returns the samplers to try: without fresh noise, with one network call a step.

    They are linear in the predictions, as the search for levels assumes.

    Args:
        sigma_data: Approximate standard deviation of the data.
    """
    return (
        UniPC(2, predict="v", sigma_data=sigma_data),
        UniPC(3, predict="v", sigma_data=sigma_data),
        UniPC(2),
        UniPC(3),
    )
