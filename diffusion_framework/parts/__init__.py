"""Turns names and options into objects.

Flags, config files, checkpoints and JSON all pass through `plan`. It checks plain data against the
signatures of the classes that they name, and builds nothing. `Plan.build` then makes the object.

A file may name the parts of `TABLE` and, if the user allows it, classes of trusted packages. Only a
word typed on a command line (`Typed`) may name any class.
"""

from .convert import Kept
from .errors import BadPart, NotTrusted
from .plan import Plan, convert, plan, resolve
from .search import Typed, find, fold, names_of, nearest, unknown_name
from .signatures import Option, options
from .strict_yaml import read_yaml, write_yaml

__all__ = [
    "BadPart",
    "Kept",
    "NotTrusted",
    "Option",
    "Plan",
    "Typed",
    "convert",
    "find",
    "fold",
    "names_of",
    "nearest",
    "options",
    "plan",
    "read_yaml",
    "resolve",
    "unknown_name",
    "write_yaml",
]
