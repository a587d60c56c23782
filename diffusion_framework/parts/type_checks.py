"""Checks types and shapes of arguments, with errors on one line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

P, R = ParamSpec("P"), TypeVar("R")
_CAUSE = re.compile(r"parameter '(\w+)'\.\nActual value: (.*?)\nExpected type: (.*?)\.\n", re.S)
_HINT = re.compile(r"<class '(\w+\[.*\])'>")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the arguments and the result of a function by its jaxtyping annotations.

    jaxtyping itself reports all arguments of the call, over a page.

    Raises:
        TypeCheckError: If one does not fit, on one line with expected, got and fix.
    """
    checked = jaxtyped(typechecker=beartype)(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result: R = checked(*args, **kwargs)
        except TypeCheckError as error:
            cause = _CAUSE.search(str(error))
            if cause is None:
                raise
            name, got, hint = (" ".join(group.split()) for group in cause.groups())
            wanted = hint_match[1] if (hint_match := _HINT.fullmatch(hint)) else hint
            raise TypeCheckError(
                f"Expected {name} as {wanted:.200}, got {got:.200}. Fix: pass {name} in this form, "
                "such as torch.as_tensor(array) for an array."
            ) from None
        return result

    return call
