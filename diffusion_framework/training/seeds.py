"""Keys of the run's random numbers, which never depend on the state of a global generator."""

from __future__ import annotations

from enum import IntEnum


class Purpose(IntEnum):
    """Use of a key derived from the run's seed; no two uses share their numbers."""

    ORDER = 0
    FLIP = 1
    SELF_CONDITION = 2
    NOISE = 3
    SAMPLE = 4
    DROPOUT = 5
