"""Errors of names, options and values; each message is one line with a remedy."""

from __future__ import annotations


class BadPart(ValueError):
    """A name, an option or a value that the user can correct."""


class NotTrusted(BadPart):
    """A class of a package that the user has not trusted, named in a file.

    Attributes:
        package: Top-level package of the class.
    """

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message)
        self.package = package


def expected(where: str, wanted: str, got: object, fix: str) -> str:
    """Returns '`where`: expected `wanted`, got `got`. Fix: `fix`.'"""
    return (
        f"{where}: expected {wanted}, got {got}. Fix: {fix}."
        if where
        else (f"Expected {wanted}, got {got}. Fix: {fix}.")
    )


def one_line(error: Exception, length: int = 200) -> str:
    """Returns the message of an error on one line, cut to a length."""
    return " ".join(str(error).split())[:length]
