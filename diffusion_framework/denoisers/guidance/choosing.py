"""What users may give as guidance."""

from __future__ import annotations

from ...parts import resolve
from .base import Guidance
from .classifier_free import ClassifierFree

Guided = float | str | Guidance
"""Choice of guidance: a scale, a name or a `Guidance`; see `as_guidance`."""


def as_guidance(value: Guided | None) -> Guidance:
    """Returns the guidance that a user asks for.

    Args:
        value: Guidance itself, the name of a kind of guidance with its defaults, the scale of
            classifier-free guidance, or None for no guidance.

    Raises:
        ValueError: an unknown name, or a scale that is not finite.
    """
    if isinstance(value, Guidance):
        return value
    if isinstance(value, str):
        return resolve(value, Guidance, "guidance")
    try:
        return ClassifierFree(1.0 if value is None else float(value))
    except (TypeError, ValueError) as error:
        if isinstance(value, int | float):
            raise  # a number out of range
        raise ValueError(
            f"Expected guidance as a number or a Guidance, got {value!r:.60}. "
            "Fix: give the scale, such as 2.0."
        ) from error
