"""Reads the options of classes and functions from their source files, without importing them.

Help and shell completion are made from these outlines, because importing PyTorch takes seconds.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .docstrings import arguments, head
from .table import PACKAGE, TABLE

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Source:
    """The definitions of a module, and where its other names come from.

    Attributes:
        module: Name of the module.
        is_package: Whether it is the `__init__` of a package.
        definitions: Classes and functions by name.
        aliases: Expressions of assigned names.
        imports: (module, name) of imported names.
    """

    module: str
    is_package: bool
    definitions: Mapping[str, Definition]
    aliases: Mapping[str, ast.expr]
    imports: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Argument:
    """An argument of a class or function, as its source writes it.

    Attributes:
        name: Name.
        annotation: Annotation, or None.
        default: Default, or None if the argument is required.
        doc: Description.
        source: Module of the annotation and the default.
        flat: Whether it is given by its place, not by its name.
    """

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    doc: str
    source: Source
    flat: bool = False


@dataclass(frozen=True)
class Outline:
    """A class or function, as its source writes it.

    Attributes:
        home: 'module:Name'.
        summary: Docstring up to its arguments.
        arguments: Arguments by name.
    """

    home: str
    summary: str
    arguments: Mapping[str, Argument]


@functools.cache
def read_source(module: str) -> Source | None:
    """Returns the outline of a module, or None without a source file."""
    root, *rest = module.split(".")
    spec = find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(next(iter(spec.submodule_search_locations)), *rest)
    is_package = (base / "__init__.py").is_file()
    path = base / "__init__.py" if is_package else base.with_suffix(".py")
    if not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, Definition] = {}
    aliases: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    for node in _statements(tree):
        if isinstance(node, Definition):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*above, *([node.module] if node.module else [])])
            imports |= {alias.asname or alias.name: (target, alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            aliases[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            aliases[node.target.id] = node.value
    return Source(module, is_package, found, aliases, imports)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yields the statements of a module, also those for type checkers only."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If):
            yield from node.body


def definition(source: Source, name: str) -> tuple[Source, Definition | ast.expr] | None:
    """Returns the class, function or expression of a name, with its module; None if unknown."""
    for table in (source.definitions, source.aliases):
        if name in table:
            return source, table[name]
    module, original = source.imports.get(name, ("", ""))
    if module.split(".")[0] != source.module.split(".")[0]:
        return None
    origin = read_source(module)
    return None if origin is None else definition(origin, original)


def outline(home: str) -> Outline | None:
    """Returns the outline of a class or function, given as 'module:Name'; None if unknown.

    The arguments of a class are those of its `__init__`, and where it takes `**` arguments those of
    its parent's. The arguments of a dataclass are its fields.
    """
    module, name = home.split(":")
    source = read_source(module)
    found = None if source is None else definition(source, name)
    if found is None:
        return None
    origin, node = found
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return None
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        listed = _of_function(node, origin, arguments(text))
    else:
        listed = _of_class(node, origin)
    return Outline(f"{origin.module}:{node.name}", head(text), {a.name: a for a in listed})


def bases(source: Source, node: ast.ClassDef) -> Iterator[tuple[Source, ast.ClassDef]]:
    """Yields a class and the classes that it is derived from, nearest first."""
    yield source, node
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        found = definition(source, name.id) if isinstance(name, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            yield from bases(found[0], found[1])


def is_derived(home: str, kind: str) -> bool:
    """Returns whether a class 'module:Name' is derived from a class of the name `kind`."""
    module, name = home.split(":")
    source = read_source(module)
    found = None if source is None else definition(source, name)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return False
    return any(node.name == kind for _, node in bases(found[0], found[1]))


@functools.cache
def homes_of(kind: str) -> dict[str, str]:
    """Returns the parts of a kind in the table: class name -> 'module:Class'."""
    rows = [TABLE[kind]] if kind in TABLE else TABLE.values()
    homes = [f"{PACKAGE}.{home}" for row in rows for home in row.values()]
    return {home.split(":")[1]: home for home in homes if kind in TABLE or is_derived(home, kind)}


def _of_class(node: ast.ClassDef, source: Source) -> list[Argument]:
    """Returns the arguments of a class."""
    found: dict[str, Argument] = {}
    lineage = list(bases(source, node))
    if any("dataclass" in ast.unparse(line) for line in node.decorator_list):
        docs: dict[str, str] = {}
        for origin, base in reversed(lineage):
            docs |= arguments(ast.get_docstring(base) or "")
            for field in _fields(base, origin):
                found[field.name] = field
        own = arguments(ast.get_docstring(node) or "")
        return [_described(field, own | docs) for field in found.values()]
    own = arguments(ast.get_docstring(node) or "")
    for origin, base in lineage:
        init = next(
            (n for n in base.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
        )
        if init is None:
            continue
        docs = arguments(ast.get_docstring(base) or "") | arguments(ast.get_docstring(init) or "")
        for argument in _of_function(init, origin, own | docs)[1:]:
            found.setdefault(argument.name, argument)
        if init.args.kwarg is None:
            break
    return list(found.values())


def _described(field: Argument, docs: Mapping[str, str]) -> Argument:
    return Argument(
        field.name, field.annotation, field.default, docs.get(field.name, ""), field.source
    )


def _fields(node: ast.ClassDef, source: Source) -> Iterator[Argument]:
    """Yields the fields of a dataclass that its constructor takes."""
    if not any("dataclass" in ast.unparse(line) for line in node.decorator_list):
        return
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(line.annotation):
            continue
        default = line.value
        if isinstance(default, ast.Call) and ast.unparse(default.func).endswith("field"):
            options = {word.arg: word.value for word in default.keywords}
            if ast.unparse(options.get("init", ast.Constant(True))) == "False":
                continue
            made = options.get("default_factory")
            default = options.get("default") or (made and ast.Call(made, [], []))
        yield Argument(line.target.id, line.annotation, default, "", source)


def _of_function(node: ast.FunctionDef, source: Source, docs: Mapping[str, str]) -> list[Argument]:
    """Returns the arguments of a function, without `**` arguments."""
    spec = node.args
    flat = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(flat) - len(spec.defaults))
    pairs = [*zip(flat, [*defaults, *spec.defaults], strict=True)]
    if spec.vararg is not None:
        pairs.append((spec.vararg, ast.Tuple([])))
    placed = len(pairs)
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    return [
        Argument(arg.arg, arg.annotation, default, docs.get(arg.arg, ""), source, index < placed)
        for index, (arg, default) in enumerate(pairs)
    ]
