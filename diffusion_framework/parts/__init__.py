"""Names and options become objects here: flags, config files, checkpoints and JSON all come through
`plan`.

`plan` checks plain data against the signatures of the classes it names and builds nothing.
`Plan.build` then makes the object. A file may name the parts of `TABLE` and, if the user says so,
classes of trusted packages. Only a word typed on a command line (`Typed`) may name any class.
"""

from .plan import Plan, convert, plan, resolve
from .signatures import Option, options
from .strict_yaml import read_yaml, write_yaml
from .table import BadPart, NotTrusted, Typed, find, fold, names_of, nearest

__all__ = [
    "BadPart",
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
    "write_yaml",
]
