"""Tells how a model with classes of the user's can be opened again."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..parts.table import PACKAGE
from .config import script_name


def warn_how_to_open(
    described: Mapping[str, Any], networks: Collection[str], stacklevel: int
) -> None:
    """Warns once for each class of the user's in the description of a model.

    Args:
        described: Description of the model, of `to_config`.
        networks: Names of the classes of its networks.
        stacklevel: Number of calls up to the user's line, as in `warnings.warn`.
    """
    model = str(described.get("class_path")).rpartition(".")[2]
    for path, recorded in dict.fromkeys(_classes(described)):
        module, _, name = path.rpartition(".")
        root = module.split(".")[0]
        if root == PACKAGE and recorded:
            continue
        ways = [f"{model}.from_pretrained(RUN, model={name}(...))"] if name in networks else []
        what = f"{name} does not record its arguments"
        if not recorded:
            ways += [] if ways else ["derive the class from RecordsArguments before training"]
        elif module == script_name():
            what = f"{name} is a class of the script that trains"
            if module != "__main__":
                ways += [
                    f"trust {module} from the script's folder, if the script trains only under if "
                    "__name__ == '__main__'"
                ]
            ways = ways or ["move it to a module of its own"]
        else:
            what = f"{name} is a class of {root}"
            ways += [f"{model}.from_pretrained(RUN, trust=[{root!r}]), and --trust {root}"]
        told = f"{what}. To open its checkpoints: {'; or '.join(ways)}."
        warnings.warn(told, stacklevel=stacklevel + 1)


def _classes(described: Any) -> Iterator[tuple[str, bool]]:
    """Yields each class_path in plain data, and whether its arguments are recorded."""
    if isinstance(described, Mapping):
        if isinstance(path := described.get("class_path"), str):
            yield path, described.get("init_args") is not None
        described = list(described.values())
    if isinstance(described, list):
        for item in described:
            yield from _classes(item)
