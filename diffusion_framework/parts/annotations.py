"""Describes annotations as their source writes them, for help and completion."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .outline import Argument, Source, definition
from .table import NOUNS, TABLE, with_article

_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "Any": "anything",
    "Path": "a path",
    "PathLike": "a path",
    "Callable": "a function",
}
_LISTS = ("list", "set", "frozenset", "Sequence", "Iterable", "Collection")


def members(expression: ast.expr | None, source: Source) -> Iterator[tuple[ast.expr, Source]]:
    """Yields the types of a union, also of one with a name, each with its module."""
    if isinstance(expression, ast.BinOp):
        yield from members(expression.left, source)
        yield from members(expression.right, source)
    elif isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        yield from members(ast.parse(expression.value, mode="eval").body, source)
    elif isinstance(expression, ast.Name) and (alias := _alias(expression.id, source)):
        yield from members(*alias)
    elif expression is not None:
        yield expression, source


def _alias(name: str, source: Source) -> tuple[ast.expr, Source] | None:
    found = definition(source, name)
    if found is None:
        return None
    origin, expression = found
    if isinstance(expression, ast.ClassDef | ast.FunctionDef | ast.Call):  # a call: a TypeVar
        return None
    return expression, origin


def is_kind(name: str) -> bool:
    """Returns whether the name of a class is a kind of parts, or a part of the table."""
    rows = (home.split(":")[1] for row in TABLE.values() for home in row.values())
    return name in TABLE or name in NOUNS or name in rows


def literals(argument: Argument) -> list[str]:
    """Returns the words that an argument can be, such as true, false and those of a Literal."""
    found: list[str] = []
    for member, _ in members(argument.annotation, argument.source):
        if isinstance(member, ast.Subscript) and _name(member.value) == "Literal":
            found += [str(word) for word in _literal(member)]
        elif isinstance(member, ast.Name) and member.id == "bool":
            found += ["true", "false"]
    return found


def kinds(argument: Argument) -> list[str]:
    """Returns the kinds of parts that an argument takes, such as Sampler."""
    found = []
    for member, _ in members(argument.annotation, argument.source):
        if isinstance(member, ast.Subscript) and _name(member.value) in _LISTS:
            member = member.slice
        if is_kind(name := _name(member)):
            found.append(name)
    return found


def group(argument: Argument) -> str | None:
    """Returns 'module:Class' of an argument that is a group of options of this package."""
    for member, source in members(argument.annotation, argument.source):
        name = _name(member)
        if is_kind(name):
            continue
        found = definition(source, name)
        if found and isinstance(found[1], ast.ClassDef):
            return f"{found[0].module}:{found[1].name}"
    return None


def in_words(argument: Argument) -> str:
    """Returns the type of an argument in words, such as 'a whole number or null'."""
    if argument.annotation is None:
        return _WORDS["Any"]
    return _union(argument.annotation, argument.source)


def _union(expression: ast.expr, source: Source) -> str:
    return " or ".join(dict.fromkeys(_words(*member) for member in members(expression, source)))


def _words(expression: ast.expr, source: Source) -> str:
    if isinstance(expression, ast.Constant) and expression.value is None:
        return "null"
    if not isinstance(expression, ast.Subscript):
        name = _name(expression)
        return _WORDS.get(name) or with_article(NOUNS.get(name, name))
    name, inner = _name(expression.value), expression.slice
    if name == "Literal":
        return " or ".join(map(str, _literal(expression)))
    if name in ("dict", "Mapping") and isinstance(inner, ast.Tuple):
        return f"a mapping of names to values, each {_union(inner.elts[1], source)}"
    if name == "tuple" and isinstance(inner, ast.Tuple) and ast.unparse(inner.elts[-1]) != "...":
        return f"a list of {len(inner.elts)} values, each {_union(inner.elts[0], source)}"
    if name in ("tuple", *_LISTS):
        item = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
        return f"a list of values, each {_union(item, source)}"
    return _WORDS.get(name) or with_article(NOUNS.get(name, name))


def _name(expression: ast.expr) -> str:
    """Returns the last word of a name, '' for other expressions."""
    if isinstance(expression, ast.Name):
        return expression.id
    return expression.attr if isinstance(expression, ast.Attribute) else ""


def _literal(expression: ast.Subscript) -> tuple[object, ...]:
    value = ast.literal_eval(expression.slice)
    return value if isinstance(value, tuple) else (value,)


def default_in_words(argument: Argument) -> str | None:
    """Returns the default of an argument as files write it; None if it is required."""
    default = argument.default
    if default is None:
        return None
    if isinstance(default, ast.Name):
        found = definition(argument.source, default.id)
        if found and isinstance(found[1], ast.expr):
            default = found[1]
    if isinstance(default, ast.Call) and not default.args and not default.keywords:
        return _name(default.func)
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return ast.unparse(default)
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
