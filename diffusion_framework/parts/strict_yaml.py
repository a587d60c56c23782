"""Reads and writes plain data as YAML: YAML 1.2 scalars, no tags, aliases or duplicate keys."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .errors import BadPart, expected, one_line

MAX_DEPTH = 40
MAX_BYTES = 1_000_000  # hostile text of this size takes some 20 s


class Strict(yaml.SafeLoader):
    """A YAML 1.2 loader: `no`, `off` and `1:30` are words and 1e-4 is a number.

    YAML 1.1, PyYAML's own version, reads each of these the other way round.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, an attribute of PyYAML
    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not supported")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("expected a mapping")
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError("a key must be a word")
            if key_node.value in found:
                raise yaml.YAMLError(f"the key {key_node.value!r:.60} occurs twice")
            found[key_node.value] = self.construct_object(value_node, deep=True)
        return found


def _float(loader: Strict, node: Any) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower()))


def _refused(loader: Strict, node: Any) -> Any:
    raise yaml.YAMLError(f"the tag {node.tag!r:.60} is not supported")


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first, _make in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""], lambda loader, node: None),
    (
        "bool",
        r"true|True|TRUE|false|False|FALSE",
        list("tTfF"),
        lambda loader, node: node.value.lower() == "true",
    ),
    ("int", r"[-+]?[0-9]{1,100}", list("-+0123456789"), lambda loader, node: int(node.value)),
    ("float", _FLOAT, list("-+.0123456789"), _float),
):
    Strict.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
    Strict.add_constructor(f"tag:yaml.org,2002:{_tag}", _make)
Strict.add_constructor("tag:yaml.org,2002:str", lambda loader, node: loader.construct_scalar(node))
Strict.add_constructor(
    "tag:yaml.org,2002:seq", lambda loader, node: loader.construct_sequence(node, deep=True)
)
Strict.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
)
Strict.add_constructor(None, _refused)


class _Dumper(yaml.SafeDumper):
    """A YAML writer without aliases that quotes words of special meaning in YAML 1.1 or 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])
        + Strict.yaml_implicit_resolvers.get(first, [])
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Strict.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(data: Any, flow: bool = False) -> str:
    """Returns text that `read_yaml` reads as the same plain data; on one line with `flow`."""
    return str(
        yaml.dump(
            data,
            Dumper=_Dumper,
            sort_keys=False,
            default_flow_style=flow,
            width=10_000 if flow else 100,
        )
    )


def read_yaml(text: str | bytes, what: str) -> Any:
    """Returns plain data: None, bool, int, float, str, lists, and dictionaries with words as keys.

    Args:
        text: YAML text of at most 1 MB.
        what: Name of the text, for errors.

    Raises:
        BadPart: If the text is not YAML of this kind.
    """
    if len(text) > MAX_BYTES:
        fix = "give a config file"
        raise BadPart(expected(what, f"at most {MAX_BYTES} bytes", len(text), fix))
    try:
        return yaml.load(text, Strict)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        got = f"an error ({one_line(error)})"
        raise BadPart(expected(what, "plain YAML", got, "correct the text")) from error
