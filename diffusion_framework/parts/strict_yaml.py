"""YAML as plain data: the scalars of YAML 1.2, no tags, no aliases, no key twice, bounded depth."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .table import BadPart

MAX_DEPTH = 40
MAX_BYTES = 4_000_000


class Strict(yaml.SafeLoader):
    """`no`, `off` and `1:30` are words and 1e-4 is a number, which YAML 1.1 has the other way
    round.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, pyyaml's own attribute
    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError("nested too deep")
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
                raise yaml.YAMLError(f"the key {key_node.value!r:.60} stands there twice")
            found[key_node.value] = self.construct_object(value_node, deep=True)
        return found


def _float(loader: Strict, node: Any) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower()))


def _refused(loader: Strict, node: Any) -> Any:
    raise yaml.YAMLError(f"the tag {node.tag!r:.60} is not read")


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
    """Quotes words that YAML 1.1 or 1.2 would read as something else; writes no aliases."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])
        + Strict.yaml_implicit_resolvers.get(first, [])
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Strict.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(data: Any, flow: bool = False) -> str:
    """Text that `read_yaml` reads as the same plain data; in one line with `flow`."""
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
    """Plain data: None, bool, int, float, str, lists, and dictionaries with words as keys.

    Raises:
        BadPart: text that is not such YAML; names `what` was read.
    """
    if len(text) > MAX_BYTES:
        raise BadPart(f"{what} is not a config: it has {len(text)} bytes, more than {MAX_BYTES}.")
    try:
        return yaml.load(text, Strict)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise BadPart(f"{what} is not valid YAML: {' '.join(str(error).split()):.200}") from error
