"""The rows of the table of parts, and the classes of its kinds."""

import importlib
import inspect
import pkgutil

from torch import nn

import diffusion_framework as df
from diffusion_framework.parts.table import TABLE

ROWS = [(kind, name, home) for kind, row in TABLE.items() for name, home in row.items()]


def kind_named(name):
    """Returns the base class after which a row of the table is named."""
    if name == "Module":
        return nn.Module
    for _, module, _ in pkgutil.walk_packages(df.__path__, "diffusion_framework."):
        cls = getattr(importlib.import_module(module), name, None)
        if inspect.isclass(cls):
            return cls
    raise AssertionError(f"no class {name}")
