"""The table of parts names the classes of the package, and all of them."""

import importlib
import inspect
import pkgutil

import pytest
from table_rows import ROWS, kind_named

import diffusion_framework as df
from diffusion_framework.data.dataset import Subset
from diffusion_framework.data.loading.cache import CachedImages
from diffusion_framework.data.wrapped import WrappedDataset
from diffusion_framework.parts import fold
from diffusion_framework.parts.search import load_class
from diffusion_framework.parts.signatures import options
from diffusion_framework.parts.table import NOUNS, TABLE

NOT_NAMED = {CachedImages, Subset, WrappedDataset}  # wrappers that the Trainer makes


@pytest.mark.parametrize(
    ("kind", "name", "home"), ROWS, ids=[f"{kind}-{name}" for kind, name, _ in ROWS]
)
def test_every_row_names_a_concrete_class_of_its_kind(kind, name, home):
    cls = load_class(home)
    assert issubclass(cls, kind_named(kind)) and not inspect.isabstract(cls)
    assert f"{cls.__module__}:{cls.__qualname__}" == f"diffusion_framework.{home}"
    for option in options(cls).values():
        assert option.hint is not None


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind != "Module"])
def test_every_concrete_class_of_a_kind_has_a_row(kind):
    for _, module, _ in pkgutil.walk_packages(df.__path__, "diffusion_framework."):
        importlib.import_module(module)

    def below(cls):
        return {cls} | {deeper for child in cls.__subclasses__() for deeper in below(child)}

    concrete = {
        cls
        for cls in below(kind_named(kind))
        if not inspect.isabstract(cls)
        and not cls.__name__.startswith("_")
        and cls.__module__.startswith("diffusion_framework.")
    }
    assert concrete - NOT_NAMED == {load_class(home) for home in TABLE[kind].values()}


def test_names_of_a_kind_differ_in_more_than_case_and_underscores():
    for row in TABLE.values():
        words = [
            (fold(word), home)
            for name, home in row.items()
            for word in {fold(name), fold(home.split(":")[1])}
        ]
        assert len({word for word, _ in words}) == len(set(words))
    assert NOUNS.keys() - {"ImageDataset"} <= TABLE.keys()
