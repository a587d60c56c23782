"""Converts objects to plain data and back.

An object is described as `{class_path: ..., init_args: {...}}`, the form of configs and
checkpoints.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..parts import BadPart, plan, unknown_name
from ..parts.search import name_in_table
from ..parts.table import PACKAGE
from .printing import one_line_repr
from .reading import read_file
from .replacing import replacing

T = TypeVar("T")
_MAX_BYTES = 4_000_000


class RecordsArguments:
    """Records the arguments of the constructor, so that a checkpoint can rebuild the object.

    List it first among the base classes of your own network. Dataclasses do not need this mixin;
    their fields record the arguments.
    """

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
        check_keywords(cls, kwargs)
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(None, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                passed_on = arguments.pop(name, {})
                arguments = {**_inherited_defaults(cls), **arguments, **passed_on}
        object.__setattr__(self, "_init_args", arguments)
        return self

    def __repr__(self) -> str:
        """Returns one line: the class, the arguments that are not defaults, and the size."""
        return one_line_repr(self, self._init_args)


def check_keywords(cls: type, keywords: Collection[str]) -> None:
    """Raises TypeError with the nearest known name for a keyword that a constructor lacks."""
    known: dict[str, None] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())
            known |= {parameter.name: None for parameter in parameters[1:]}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    else:
        return  # the constructor takes any keyword
    if unknown := [name for name in keywords if name not in known]:
        raise TypeError(str(unknown_name(cls.__name__, "one of its options", unknown[0], known)))


def _inherited_defaults(cls: type) -> dict[str, Any]:
    """Returns the defaults of the arguments that a class passes on to its parent's `__init__`."""
    parent = next(base for base in cls.__mro__[1:] if "__init__" in vars(base))
    parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def to_config(value: Any) -> Any:
    """Describes an object as plain data, from which `from_config` builds an equal object.

    Plain data are numbers, strings, lists and dictionaries. The arguments of an object are recorded
    if it is a `RecordsArguments` or a dataclass, and none of them is or holds a class, a function
    or a dictionary with other keys than strings. Otherwise `init_args` is None.
    """
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: to_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    arguments: Mapping[str, Any] | None = None
    if isinstance(value, RecordsArguments):
        arguments = value._init_args
    elif dataclasses.is_dataclass(value):
        arguments = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if arguments is not None and not all(map(_can_be_recorded, arguments.values())):
        arguments = None
    return {"class_path": class_path(type(value)), "init_args": to_config(arguments)}


def _can_be_recorded(value: Any) -> bool:
    """Returns whether plain data can describe an argument: no class, function, or other key."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _can_be_recorded(v) for key, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_can_be_recorded, value))
    return not (inspect.isclass(value) or inspect.isroutine(value))


def class_path(cls: type) -> str:
    """Returns the import path of a class, or a short one for a part of the table."""
    if name_in_table(cls) is not None:
        return f"{PACKAGE}.{cls.__name__}"
    return f"{module_of(cls)}.{cls.__qualname__}"


def import_path(value: Any) -> str:
    """Returns the import path of a function or class, or that of the class of another object."""
    if inspect.isroutine(value):
        return f"{module_of(value)}.{value.__qualname__}"
    return class_path(value if inspect.isclass(value) else type(value))


def module_of(cls: Any) -> str:
    """Returns the name by which other programs import the module of a class or function.

    What the running script defines has the name of the script's file, where it has one.
    """
    return script_name() if cls.__module__ == "__main__" else str(cls.__module__)


def script_name() -> str:
    """Returns the name by which other programs import the running script, or '__main__'."""
    main = vars(sys.modules["__main__"])
    if main.get("__spec__") is not None:  # started by python -m
        return str(main["__spec__"].name)
    stem = Path(main.get("__file__") or "").stem
    return stem if stem.isidentifier() else "__main__"


def from_config(
    config: Mapping[str, Any], kind: type[T], *, trust: Collection[str] = (), where: str = "config"
) -> T:
    """Builds the object that `to_config` described.

    Args:
        config: Plain data `{class_path: ..., init_args: {...}}`.
        kind: Class that the object must be an instance of.
        trust: Packages whose classes the config may name, besides the parts of this package. Their
            code then runs.
        where: Name of the config, for errors.

    Raises:
        ValueError: If the config does not fit the signatures of the classes it names. The message
            is one line.
    """
    built: T = plan(config, kind, trust=trust, where=where).build()
    return built


class SavedAsJson:
    """Base class of samplers, schedules and objectives, which are saved as JSON files.

    Attributes:
        config_name: Name of the JSON file.
    """

    config_name: ClassVar[str]

    def __new__(cls, *args: Any, **kwargs: Any):
        check_keywords(cls, kwargs)
        return super().__new__(cls)

    def to_config(self) -> dict[str, Any]:
        """Describes the object as plain data, from which `from_config` builds an equal object."""
        return to_config(self)

    @classmethod
    def from_config(cls: type[T], config: Mapping[str, Any]) -> T:
        """Builds the object that `to_config` described.

        Raises:
            ValueError: If the config does not describe an instance of this class.
        """
        return from_config(config, cls)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the config as a JSON file in a folder, which is made if needed."""
        with replacing(Path(folder) / self.config_name, "t") as file:
            file.write(json.dumps(self.to_config(), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[T], folder: str | os.PathLike[str]) -> T:
        """Builds the object that `save_pretrained` wrote.

        Raises:
            ValueError: If the file cannot be read, or does not describe an instance of this class.
        """
        path = Path(folder) / cls.config_name  # type: ignore[attr-defined]
        return from_config(read_json(path), cls, where=str(path))


def read_json(path: Path) -> Any:
    """Returns the plain data in a JSON file.

    Raises:
        ValueError: If the file cannot be read or is too large. The message is one line.
    """
    try:
        return json.loads(read_file(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        if "Fix: " in cause:
            raise BadPart(cause) from error
        raise BadPart(
            f"{path}: expected a JSON file, got an error ({cause:.200}). Fix: save it again."
        ) from error
