"""The samplers among which tuning chooses."""

from __future__ import annotations

from collections.abc import Sequence

from ..samplers import IPNDM, LowerOrderFinal, Sampler, UniPC


def solvers(sigma_data: float) -> Sequence[Sampler]:
    """Returns the samplers to try: without fresh noise, with one network call a step.

    They are linear in the predictions, as the search for levels assumes.

    Args:
        sigma_data: Approximate standard deviation of the data.
    """
    second, third = (UniPC(n, predict="v", sigma_data=sigma_data) for n in (2, 3))
    return (
        second,
        third,
        LowerOrderFinal(second),
        LowerOrderFinal(third),
        UniPC(2),
        IPNDM(3),
    )
