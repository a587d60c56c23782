"""Reads Google-style docstrings."""

from __future__ import annotations

import inspect
import re


def head(text: str | None) -> str:
    """Returns a docstring up to its first section."""
    return re.split(r"^(?:Args|Returns|Raises|Attributes|Yields):$", _clean(text), flags=re.M)[
        0
    ].strip()


def summary(text: str | None) -> str:
    """Returns the first paragraph of a docstring on one line."""
    return " ".join(_clean(text).split("\n\n")[0].split())


def arguments(text: str | None) -> dict[str, str]:
    """Returns the descriptions in the section 'Args:' of a docstring."""
    body = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", _clean(text), re.S | re.M)
    found = re.findall(r"^ {4}([\w.]+): (.*?)(?=^ {4}\S|\Z)", body[1] if body else "", re.S | re.M)
    return {name: " ".join(doc.split()) for name, doc in found}


def _clean(text: str | None) -> str:
    return inspect.cleandoc(text or "")
