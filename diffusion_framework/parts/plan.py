"""Makes plans of objects and builds them: `plan` only checks, `Plan.build` makes the object."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from .convert import Context, Kept, converted
from .errors import BadPart, expected, one_line
from .hints import MAX_DEPTH
from .search import Typed, choose_one, find, is_named, names_of, noun, unknown_name
from .signatures import REQUIRED, options
from .table import PACKAGE

T = TypeVar("T")


@dataclasses.dataclass
class Plan:
    """A class with checked options, not built yet.

    Attributes:
        cls: Class of the object.
        options: Values by name; parts among them are plans.
        where: Place of the part, for errors.
    """

    cls: type
    options: dict[str, Any]
    where: str = ""

    def is_ours(self) -> bool:
        """Returns whether this class and the classes of all its parts are of this package."""
        return self.cls.__module__.split(".")[0] == PACKAGE and all(
            part.is_ours() for part in _plans_in(self.options)
        )

    def build(self, **given: Any) -> Any:
        """Builds the object.

        Args:
            given: Further arguments; arguments that the class does not take are left out.

        Raises:
            ValueError, OSError: If the class raises them.
            BadPart: If the class raises any other error.
        """
        known = options(self.cls)
        values = {name: _built(value) for name, value in self.options.items()}
        values |= {name: value for name, value in given.items() if name in known}
        try:
            return self.cls(**values)
        except (ValueError, OSError):
            raise
        except Exception as error:
            wanted = f"options that {self.cls.__name__} can be built from"
            cause = f"an error ({type(error).__name__}: {one_line(error, 300)})"
            raise BadPart(expected(self.where, wanted, cause, "change the options")) from error


def _plans_in(value: Any) -> Iterator[Plan]:
    """Yields the plans in options, or in lists and mappings."""
    if isinstance(value, Plan):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _plans_in(item)


def _built(value: Any) -> Any:
    if isinstance(value, Plan):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(_built(item) for item in value)
    if isinstance(value, dict):
        return {key: _built(item) for key, item in value.items()}
    return value


def plan(
    node: Any,
    kind: type,
    *,
    trust: Collection[str] = (),
    where: str = "",
    default: Any = None,
    given: Mapping[str, str] | None = None,
) -> Plan:
    """Checks the description of a part against the signatures of the classes that it names.

    Args:
        node: `{class_path: name, init_args: options}`, a name, or options of the default class.
        kind: Class that the part must be derived from.
        trust: Top-level packages, besides this one, whose classes a file may name.
        where: Place of the node, for errors.
        default: Object or name whose class is meant where the node names none.
        given: Options that are passed to `Plan.build`, with their origins. A file may hold them
            (they are ignored); a typed one is an error.

    Raises:
        BadPart: If a name or an option is unknown, an option is missing, or a value does not fit.
        NotTrusted: If a class belongs to another package.
    """
    return _plan(node, kind, Context(_plan, trust, where, default, given))


def convert(
    value: Any,
    hint: Any,
    *,
    trust: Collection[str] = (),
    where: str = "",
    default: Any = None,
    given: Mapping[str, str] | None = None,
) -> Any:
    """Returns a value as its annotation asks for it; parts become plans.

    Args:
        value: Plain data, or a `Typed` word.
        hint: Annotation.
        trust: Top-level packages, besides this one, whose classes a file may name.
        where: Place of the value, for errors.
        default: Default of the option.
        given: Options that are passed to `Plan.build`, with their origins, as in `plan`.

    Raises:
        BadPart: If the value does not fit.
        NotTrusted: If a class belongs to another package.
    """
    return converted(value, hint, Context(_plan, trust, where, default, given))


def _plan(node: Any, kind: type, at: Context) -> Plan:
    if at.depth > MAX_DEPTH:
        wanted = f"parts nested at most {MAX_DEPTH} deep"
        raise BadPart(expected(f"{at.where:.60}...", wanted, "more", "nest fewer parts"))
    cls, values = _class_and_options(node, kind, at)
    known, given = options(cls), at.given or {}
    checked = {}
    for name, value in values.items():
        here = _place(at, name)
        if name in given:
            if isinstance(value, Typed):
                wanted = f"no value, as {given[name]} determines it"
                fix = f"leave it out, or change {given[name]}"
                raise BadPart(expected(here, wanted, f"{value!r:.60}", fix))
            continue
        if name not in known:
            free = [option for option in known if option not in given]
            raise unknown_name(here, f"an option of {cls.__name__}", name, free)
        checked[name] = converted(value, known[name].hint, at.inside(here, known[name].default))
    for name, option in known.items():
        if option.default is REQUIRED and name not in checked and name not in given:
            fix = f"set it ({option.doc.rstrip('.') or 'required'})"
            raise BadPart(expected(_place(at, name), "a value", "none", fix))
    return Plan(cls, checked, at.where)


def _place(at: Context, name: str) -> str:
    return f"{at.where}.{name:.60}" if at.where else f"{name:.60}"


def _class_and_options(node: Any, kind: type, at: Context) -> tuple[type, Mapping[str, Any]]:
    """Returns the class of a node, and its options."""
    if isinstance(node, str):
        return find(node, kind, at.trust, at.where), {}
    if not isinstance(node, Mapping):
        fix = choose_one(names_of(kind)) if is_named(kind) else "give a mapping of its options"
        raise BadPart(expected(at.where, noun(kind), f"{node!r:.60}", fix))
    if "class_path" in node:
        if extra := sorted(str(key) for key in node if key not in ("class_path", "init_args")):
            got = f"{extra[0]!r:.60} beside them"
            fix = "move it into init_args"
            raise BadPart(expected(at.where, "class_path and init_args", got, fix))
        values = node.get("init_args", {})
        if values is None:
            wanted = f"the recorded arguments of {str(node['class_path']).rpartition('.')[2]:.60}"
            fix = (
                "open it in Python with model=, or derive the class from "
                "diffusion_framework.RecordsArguments"
            )
            raise BadPart(expected(at.where, wanted, "null", fix))
        cls = find(node["class_path"], kind, at.trust, at.where)
    else:
        values = node.get("init_args", node) if set(node) == {"init_args"} else node
        cls, kept = _default_class(kind, at)
        values = {**kept, **values} if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        wanted, fix = f"options of {cls.__name__}", "give a mapping of names to values"
        raise BadPart(expected(at.where, wanted, f"{values!r:.60}", fix))
    return cls, values


def _default_class(kind: type, at: Context) -> tuple[type, dict[str, Any]]:
    """Returns the class that is meant where none is named, and the options of the default."""
    if isinstance(at.default, str):
        return find(at.default, kind, (), at.where), {}
    if at.default is not None and at.default is not REQUIRED:
        kept = {}
        if dataclasses.is_dataclass(at.default) and isinstance(at.default, kind):
            kept = {
                field.name: Kept(getattr(at.default, field.name))
                for field in dataclasses.fields(at.default)
                if field.init
            }
        return type(at.default), kept
    if kind.__module__.split(".")[0] == PACKAGE and not inspect.isabstract(kind):
        return kind, {}
    wanted, fix = f"the name of {noun(kind)}", choose_one(names_of(kind))
    raise BadPart(expected(at.where, wanted, "options alone", fix))


def resolve(value: str | T, kind: type[T], keyword: str, **known: Any) -> T:
    """Returns the part itself, or the part that a name stands for.

    Args:
        value: Part, or the name of a frozen dataclass.
        kind: Class that the part must be derived from.
        keyword: Name of the argument, for errors.
        known: Arguments for a part given by name; arguments that it does not take are left out.

    Raises:
        BadPart: If the name is unknown, its class needs more arguments, or the part is of another
            kind.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        got, fix = type(value).__name__, "give an object"
        if isinstance(value, type):
            got, fix = f"the class {value.__name__}", f"make an object, as in {value.__name__}()"
        raise BadPart(expected(keyword, f"{noun(kind)} or its name", got, fix))
    cls: Any = find(value, kind, (), keyword)
    given = {name: part for name, part in known.items() if name in options(cls)}
    needed = [
        option.name
        for option in options(cls).values()
        if option.default is REQUIRED and option.name not in given
    ]
    if needed:
        wanted = f"an object, as {cls.__name__} needs {', '.join(needed)}"
        fix = f"give {cls.__name__}({', '.join(f'{name}=...' for name in needed)})"
        raise BadPart(expected(keyword, wanted, f"the name {value!r}", fix))
    return cls(**given)
