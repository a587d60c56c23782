"""One-line errors for settings that are out of range."""

from __future__ import annotations


def expect(fits: bool, wanted: str, got: object, fix: str) -> None:
    """Raises ValueError("Expected `wanted`, got `got`. Fix: `fix`.") unless `fits` is true."""
    if not fits:
        raise ValueError(f"Expected {wanted}, got {got!r}. Fix: {fix}.")
