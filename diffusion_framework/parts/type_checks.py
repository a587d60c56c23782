"""Checks types and shapes of arguments, with errors on one line."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

_LIBRARIES = re.compile(r"[/\\\\](jaxtyping|beartype)[/\\\\]|^<(@beartype|string)")
P, R = ParamSpec("P"), TypeVar("R")
_CAUSE = re.compile(r"parameter '(\w+)'\.\nActual value: (.*?)\nExpected type: (.*?)\.\n", re.S)
_HINT = re.compile(r"<class '(\w+\[.*\])'>")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the arguments and the result of a function by its jaxtyping annotations.

    jaxtyping itself reports all arguments of the call, over a page. Its frames and those of
    beartype are left out of tracebacks.

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
            got = _shown(function, name, args, kwargs) or got
            wanted = hint_match[1] if (hint_match := _HINT.fullmatch(hint)) else hint
            raise TypeCheckError(
                f"Expected {name} as {wanted:.200}, got {got:.200}. Fix: pass {name} in this form, "
                "such as torch.as_tensor(array) for an array."
            ) from None
        except Exception as error:
            raise error.with_traceback(_without_checks(error.__traceback__))  # noqa: B904
        return result

    return call


def _shown(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """Returns the type and the shape of a tensor or array among the arguments, else ''."""
    try:
        value = inspect.signature(function).bind(*args, **kwargs).arguments.get(name)
    except TypeError:
        return ""
    if not isinstance(value, Tensor | np.ndarray):
        return ""
    kind = "Tensor" if isinstance(value, Tensor) else "array"
    return f"{kind} of {str(value.dtype).removeprefix('torch.')} {[*value.shape]}"


def _without_checks(traceback: TracebackType | None) -> TracebackType | None:
    """Returns a traceback without the frames of jaxtyping and beartype."""
    if traceback is None:
        return None
    rest, frame = _without_checks(traceback.tb_next), traceback.tb_frame
    if frame.f_code.co_name == "call" and frame.f_code.co_filename == __file__:
        return rest  # is added again by the raise
    if _LIBRARIES.search(frame.f_code.co_filename):
        return rest
    return TracebackType(rest, frame, traceback.tb_lasti, traceback.tb_lineno)
