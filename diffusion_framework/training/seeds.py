"""Keys of the run's random numbers, which never depend on a global generator."""

from __future__ import annotations

from enum import IntEnum


class Purpose(IntEnum):
    """Purpose of random numbers; each purpose derives its own seeds from the run's seed."""

    ORDER = 0
    FLIP = 1
    SELF_CONDITION = 2
    NOISE = 3
    SAMPLE = 4
    DROPOUT = 5
    HELD_OUT = 6
