"""Outlines read from source agree with what Python says of the imported classes."""

import dataclasses

import pytest

from diffusion_framework.parts import hints, options, read_yaml
from diffusion_framework.parts.annotations import default_in_words, group, in_words, kinds
from diffusion_framework.parts.outline import outline
from diffusion_framework.parts.search import is_named, load_class
from diffusion_framework.parts.signatures import REQUIRED, members
from diffusion_framework.parts.table import PACKAGE, TABLE

HOMES = [
    *(home for row in TABLE.values() for home in row.values()),
    "training.trainer:Trainer",
    *(f"training.{home}" for home in ("compute:Compute", "ema:EMA", "saving:Saving")),
    *(f"training.{home}" for home in ("loading:Loading", "quality:SampleQuality")),
]


@pytest.mark.parametrize("home", HOMES)
def test_the_source_tells_what_the_imported_class_tells(home):
    cls = load_class(home)
    read, imported = outline(f"{PACKAGE}.{home}").arguments, options(cls)
    assert list(read) == list(imported)
    for name, option in imported.items():
        argument = read[name]
        assert argument.doc == option.doc, name
        assert in_words(argument) == hints.in_words(option.hint), name
        assert (argument.default is None) == (option.default is REQUIRED), name
        named = [kind.__name__ for kind in hints.kinds(members(option.hint)) if is_named(kind)]
        assert [kind for kind in named if kind != "Dataset"] == kinds(argument), name
        if type(option.default) in (int, float, str, bool, type(None)):
            text = default_in_words(argument)
            value = eval(text) if " / " in text else read_yaml(text.encode(), name)
            assert value == option.default, name
        if dataclasses.is_dataclass(option.default) and not is_named(type(option.default)):
            kind = type(option.default)
            assert group(argument) == f"{kind.__module__}:{kind.__qualname__}", name
