"""How batches reach the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .checks import expect

Cache = Literal["auto", "memory", "disk", "off"]


@dataclass(frozen=True)
class Loading:
    """How samples are read.

    Args:
        num_workers: Data-loading processes of each training process; 0 loads in the training process
            itself.
        cache: Place for decoded images of a folder, so that only the first epoch decodes them:
            'memory', 'disk' (below `~/.cache/diffusion_framework`, for later runs too), 'off', or
            'auto', the first of these with enough room.

    Raises:
        ValueError: a field out of range.
    """

    num_workers: int = 2
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        wanted = "loading.num_workers of at least 0"
        expect(self.num_workers >= 0, wanted, self.num_workers, "0 loads without data workers")
        known = self.cache in get_args(Cache)
        names = ", ".join(get_args(Cache))
        expect(known, f"loading.cache among {names}", self.cache, "take one of these")
