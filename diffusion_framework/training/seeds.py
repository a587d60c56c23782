"""What is random in a run, and of what it is a function: never of a global generator's state."""

from __future__ import annotations

from enum import IntEnum


class Purpose(IntEnum):
    """What a key of the run's seed is for, so that no two uses share their numbers."""

    ORDER = 0
    FLIP = 1
    SELF_CONDITION = 2
    NOISE = 3
    SAMPLE = 4
    DROPOUT = 5
