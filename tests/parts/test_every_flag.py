"""Every option of every part, as a flag and in a file: right values pass, others are refused."""

import collections.abc as abc
import os
import typing
from types import NoneType
from typing import Any, Literal

import pytest
from table_rows import ROWS, kind_named

from diffusion_framework.cli import common
from diffusion_framework.cli.commands import COMMANDS, Command
from diffusion_framework.parts import Plan, fold, options, write_yaml
from diffusion_framework.parts.hints import SEQUENCES, is_kind
from diffusion_framework.parts.search import load_class, parts_of
from diffusion_framework.parts.signatures import REQUIRED, members
from diffusion_framework.training import Trainer

IDS = [f"{kind}-{name}" for kind, name, _ in ROWS]


def run(kind, *words):
    """Runs a command with one part through the door of all scripts, and returns the part's plan."""
    plans = []

    def command(*, part, trust=()):
        plans.append(part)

    command.__annotations__ = {"part": kind, "trust": tuple[str, ...]}
    common.run(command, [str(word) for word in words], "command", Command("", {}))
    return plans[0]


def right(hint) -> Any:
    """Returns plain data that fits an annotation."""
    choices = [member for member in members(hint) if member is not NoneType]
    hint = next((kind for kind in choices if is_kind(kind) and parts_of(kind)), choices[0])
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (bool, int, float, str):
        return {bool: True, int: 3, float: 0.5, str: "word"}[hint]
    if origin is Literal:
        return args[-1]
    if hint is os.PathLike or origin is os.PathLike:
        return "a/path"
    if origin is tuple and Ellipsis not in args:
        return [right(arg) for arg in args]
    if origin in SEQUENCES:
        return [right(args[0])] * 2
    if origin is dict:
        return {"a": right(args[1])}
    if hint is Any:
        return 0.5
    if hint.__name__ == "Trainable":
        return {"class_path": "GaussianDiffusion", "init_args": {"model": "UNet"}}
    assert is_kind(hint), hint
    classes = [cls for _, cls in parts_of(hint)]
    if not needed(classes[0]):
        return classes[0].__name__
    return {"class_path": classes[0].__name__, "init_args": needed(classes[0])}


def needed(cls) -> dict[str, Any]:
    """Returns values for the options of a class that have no default."""
    return {o.name: right(o.hint) for o in options(cls).values() if o.default is REQUIRED}


def flags(name, value) -> list[str]:
    """Returns the flags that give an option a value."""
    if isinstance(value, dict) and "class_path" in value:
        inner = value.get("init_args", {})
        more = [word for key, item in inner.items() for word in flags(f"{name}.{key}", item)]
        return [f"--{name}", value["class_path"], *more]
    if isinstance(value, str):
        return [f"--{name}", value]
    return [f"--{name}", write_yaml(value, flow=True).removesuffix("...\n").strip()]


def is_plain(value) -> bool:
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is not None and isinstance(value, bool | int | float | str)


def value_of(option) -> Any:
    """Returns a fitting value, the default if it is plain data."""
    if option.default is not REQUIRED and is_plain(option.default):
        return list(option.default) if isinstance(option.default, tuple) else option.default
    return right(option.hint)


def names_of_parts(got) -> Any:
    """Returns the values, or of a list of parts their names."""
    if not isinstance(got, list):
        return got
    return [item.cls.__name__ if isinstance(item, Plan) else item for item in got]


def takes_files(option) -> bool:
    """Functions have no form in files."""
    return not any(typing.get_origin(member) is abc.Callable for member in members(option.hint))


def written(tmp_path, part):
    path = tmp_path / "config.yaml"
    path.write_text(write_yaml({"part": part}))
    return f"--config={path}"


@pytest.mark.parametrize(("kind", "name", "home"), ROWS, ids=IDS)
def test_every_option_takes_a_value_of_its_type(kind, name, home, tmp_path):
    cls, base = load_class(home), kind_named(kind)
    for option in filter(takes_files, options(cls).values()):
        values = {**needed(cls), option.name: value_of(option)}
        part = {"class_path": cls.__name__, "init_args": values}
        typed = run(base, *flags("part", part))
        stored = run(base, written(tmp_path, part))
        assert typed == stored and typed.cls is cls
        over = run(base, written(tmp_path, {"class_path": name}), *flags("part", part)[2:])
        assert over == typed
        got = typed.options[option.name]
        given = values[option.name]
        if isinstance(given, str) and not isinstance(got, str | os.PathLike):
            assert got.cls.__name__ == given  # a part
        elif isinstance(given, str) and got != given:  # the name of a part, for the constructor
            assert (got, given) in {(key, other.__name__) for key, other in parts_of(object)}
        elif is_plain(given):
            got = list(got) if isinstance(got, tuple) else got
            assert names_of_parts(got) == given, option.name


def wrong(hint) -> tuple[list[str], list[Any]]:
    """Returns words and plain data that do not fit an annotation."""
    kinds = set(members(hint))
    if str in kinds or any(typing.get_origin(k) is os.PathLike for k in kinds):
        parts = [kind for kind in kinds if is_kind(kind) and parts_of(kind)]
        words = ["nonsense"] if parts and len(kinds - {NoneType, str, *parts}) == 0 else []
        return words, [{"x": 1}, 3, *words]
    items = [typing.get_args(k) for k in kinds if typing.get_origin(k) in SEQUENCES]
    if {(str,), (str, ...)} & {*items}:
        return ["{x: 1}"], [{"x": 1}, 3, [["x"]]]
    words, data = ["nonsense", "a,b"], ["nonsense", [["x"]], *([] if items else [[1, 2]])]
    if not any(typing.get_origin(kind) is dict for kind in kinds):
        words, data = [*words, "{x: 1}"], [*data, {"x": 1}]
    if not kinds & {int, float} and not any(typing.get_origin(k) is Literal for k in kinds):
        data += [1.5]
    return words, data


def refused(capsys, place, base, *words):
    with pytest.raises(SystemExit) as end:
        raise AssertionError(f"{words} made {run(base, *words)}")
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith(f"error: {place}"), error
    assert error.count("\n") == 1 and "Fix: " in error and len(error) < 500, error


@pytest.mark.parametrize(("kind", "name", "home"), ROWS, ids=IDS)
def test_every_option_refuses_other_values(kind, name, home, tmp_path, capsys):
    cls, base = load_class(home), kind_named(kind)
    part = {"class_path": cls.__name__, "init_args": needed(cls)}
    for option in options(cls).values():
        words, data = wrong(option.hint)
        place = f"--part.{option.name}"
        for word in words:
            refused(capsys, place, base, *flags("part", part), place, word)
        for value in data:
            changed = {**part, "init_args": {**part["init_args"], option.name: value}}
            refused(capsys, place, base, written(tmp_path, changed))
    fix = f"--part.nonsense: expected an option of {cls.__name__}, got 'nonsense'"
    refused(capsys, fix, base, *flags("part", part), "--part.nonsense=1")


@pytest.mark.parametrize(("kind", "name", "home"), ROWS, ids=IDS)
def test_every_part_has_its_names_in_any_case(kind, name, home, tmp_path):
    cls, base = load_class(home), kind_named(kind)
    more = [word for key, value in needed(cls).items() for word in flags(f"part.{key}", value)]
    spelled = {name, cls.__name__}
    spelled |= {change(word) for word in spelled for change in (str.upper, str.lower, fold)}
    spelled |= {f"diffusion_framework.{cls.__name__}", f"{cls.__module__}.{cls.__name__}"}
    for word in spelled:
        for first in (["--part", word], [written(tmp_path, word)]):
            found = run(base, *first, *more)
            assert found.cls is cls and set(found.options) == set(needed(cls)), word


def test_every_option_of_the_trainer_is_a_flag(capsys):
    given = ("model", "folder_or_dataset", "validation", "convert_image_to")
    given = (*given, "callbacks")  # a user's classes
    for group in options(Trainer).values():
        if group.name in given:
            continue
        inner = {group.name: group}
        if is_kind(group.hint):
            inner = {f"{group.name}.{o.name}": o for o in options(group.hint).values()}
        for name, option in inner.items():
            value = value_of(option)
            found = trainer(*flags(f"trainer.{name}", value)).options
            for key in name.split("."):
                found = found.options[key] if isinstance(found, Plan) else found[key]
            found = found.cls.__name__ if isinstance(found, Plan) else found
            assert (list(found) if isinstance(found, tuple) else found) == value
            for word in wrong(option.hint)[0]:
                with pytest.raises(SystemExit) as end:
                    trainer(f"--trainer.{name}", word)
                error = capsys.readouterr().err
                assert end.value.code == 2 and error.startswith(f"error: --trainer.{name}"), error
                assert error.count("\n") == 1 and "Fix: " in error


def trainer(*words):
    plans = []

    def command(*, trainer):
        plans.append(trainer)

    command.__annotations__ = {"trainer": Trainer}
    row = Command("", {}, defaults={"trainer": {}}, given=COMMANDS["train"].given)
    common.run(command, [str(word) for word in words], "train", row)
    return plans[0]
