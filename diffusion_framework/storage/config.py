"""Objects to and from plain data: `{class_path: ..., init_args: {...}}`, the form of configs and checkpoints."""

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

from ..parts import BadPart, plan
from ..parts.strict_yaml import MAX_BYTES

T = TypeVar("T")


class RecordsArguments:
    """Remembers the arguments it was built with, so that a checkpoint can tell how to build it again.

    Put it first among the bases of a network of your own. Dataclasses need it not: their fields say the same.
    """

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
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


def _inherited_defaults(cls: type) -> dict[str, Any]:
    """Defaults of the arguments that a class passes on to the next `__init__` above it."""
    above = next(base for base in cls.__mro__[1:] if "__init__" in vars(base))
    parameters = inspect.signature(vars(above)["__init__"]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def to_config(value: Any) -> Any:
    """Plain data (numbers, strings, lists, dictionaries) from which `from_config` builds an equal object.

    An object that is neither a `RecordsArguments` nor a dataclass, or has an argument that is no data (say, a class),
    keeps its class but no arguments: `init_args` is None.
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
    if arguments is not None and any(inspect.isclass(v) or inspect.isroutine(v) for v in arguments.values()):
        arguments = None
    return {"class_path": class_path(type(value)), "init_args": to_config(arguments)}


def class_path(cls: type) -> str:
    """The import path of a class, the short public one if the package exports it."""
    package = __name__.split(".")[0]
    if getattr(sys.modules[package], cls.__name__, None) is cls:
        return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def from_config(config: Mapping[str, Any], kind: type[T], *, trust: Collection[str] = (), where: str = "config") -> T:
    """The object that `to_config` described.

    Args:
        config: `{class_path: ..., init_args: {...}}`, plain data.
        kind: The class that it must be derived from.
        trust: Packages whose classes may be named besides this one's parts. Their code then runs.
        where: Name of the config, for errors.

    Raises:
        ValueError: a config that does not fit the signatures it names, in one line.
    """
    built: T = plan(config, kind, trust=trust, where=where).build()
    return built


class SavedAsJson:
    """A base of samplers, schedules and objectives: to and from plain data, and a small JSON file."""

    config_name: ClassVar[str]

    def to_config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds an equal object."""
        return to_config(self)

    @classmethod
    def from_config(cls: type[T], config: Mapping[str, Any]) -> T:
        """The object that `to_config` described; ValueError if it is no `cls`."""
        return from_config(config, cls)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the config as JSON into the folder, which is made if needed."""
        path = Path(folder) / self.config_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_config(), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[T], folder: str | os.PathLike[str]) -> T:
        """The object that `save_pretrained` wrote; ValueError if there is none or it is no `cls`."""
        path = Path(folder) / cls.config_name  # type: ignore[attr-defined]
        return from_config(read_json(path), cls, where=str(path))


def read_json(path: Path) -> Any:
    """Plain data of a JSON file.

    Raises:
        ValueError: a file that cannot be read, in one line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadPart(f"{path} cannot be read ({' '.join(str(error).split()):.200}). Fix: save it again.") from error
