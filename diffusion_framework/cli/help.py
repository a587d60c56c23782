"""Help pages, made from signatures and docstrings without importing the commands."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping

from ..parts.annotations import default_in_words, group, in_words, kinds
from ..parts.docstrings import summary
from ..parts.errors import BadPart, expected
from ..parts.outline import Argument, Outline, homes_of, outline
from ..parts.search import fold, unknown_name
from ..parts.table import NOUNS, PACKAGE, TABLE, with_article
from .commands import COMMANDS, Command
from .flags import arguments_of, class_of, find_argument, read_command

WIDTH = 100
COLUMN = 30
_ALWAYS = {
    "--config NAME": "Recipe (see `diffusion recipes`), YAML file or run to read options from; "
    "flags override it.",
    "--print_config": "Print all options as a commented YAML file, and stop.",
    "--trust PACKAGE": "Package whose classes the files may name; its code then runs.",
}


def program_page() -> str:
    """Returns the help of the program: its commands."""
    rows = [
        _row(name, summary(read_command(command).summary)) for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            "Trains diffusion models and samples from them.",
            "",
            "Examples:",
            "  diffusion train photos                 train on a folder of images",
            "  diffusion train                        or on built-in handwritten digits",
            "  diffusion sample results/photos        draw new images from the run",
            "",
            "Commands:",
            *rows,
            "",
            "`diffusion COMMAND --help` describes a command.",
        ]
    )


def help_page(name: str, prog: str, topic: str) -> str:
    """Returns a page of help of a command.

    Args:
        name: Name of the command.
        prog: Words that start the command, such as 'diffusion train'.
        topic: '' for the page of the most used options, 'all' for all options, a flag such as
            'sampler' or 'trainer.saving', or a class such as 'sampler.DDIM' or 'DDIM'.

    Raises:
        BadPart: If the topic is unknown.
    """
    command = COMMANDS[name]
    if not topic:
        return _page(command, prog)
    if topic == "all":
        return _all(command, prog)
    return _topic(command, prog, topic.removeprefix("--"))


def _page(command: Command, prog: str) -> str:
    """Returns the page of a command: its summary, examples and most used options."""
    read = read_command(command)
    flat = [a for a in arguments_of(command) if a.flat]
    shown = [*(f"[{word}]" for word in command.words), *map(_word, flat)]
    lines = [f"usage: {prog} {' '.join([*shown, '[--option value ...]'])}", "", read.summary]
    words = [row for word, flag in command.words.items() for row in _rows(command, flag, word)]
    lines += ["", *words] if words else []
    for heading, flags in command.usual.items():
        lines += ["", f"{heading}:"]
        lines += [row for flag in flags for row in _rows(command, flag)]
    lines += ["", "More:", *(_row(flag, doc) for flag, doc in _more(command, prog).items())]
    return "\n".join(lines)


def _more(command: Command, prog: str) -> dict[str, str]:
    names = {argument.name: argument for argument in arguments_of(command)}
    found = {} if not _takes_configs(command) else dict(_ALWAYS)
    found["--help all"] = "All options."
    if "sampler" in names:
        found |= {"--help sampler": "The samplers, a line each; --help sampler.DDIM describes one."}
    if "guidance" in names:
        found["--help guidance"] = "The kinds of guidance, a line each."
    if "diffusion" in names:
        found["--help diffusion.model"] = "The networks, a line each."
        found["--help UNet"] = "The options of one part."
    return found


def _takes_configs(command: Command) -> bool:
    return any(kinds(argument) or group(argument) for argument in arguments_of(command))


def _all(command: Command, prog: str) -> str:
    """Returns the page of all options of a command, with those of its groups and default parts."""
    rows = [
        row
        for argument in arguments_of(command)
        for row in _tree(argument, argument.name, command.given.get(argument.name, {}))
    ]
    rows += [_row(*row) for row in _ALWAYS.items()] if _takes_configs(command) else []
    return f"All options of {prog}:\n\n" + "\n".join(rows)


def _tree(argument: Argument, flag: str, given: Mapping[str, str]) -> Iterator[str]:
    """Yields the rows of an option and of the options of its group."""
    yield _row(_flag(argument, flag), describe(argument))
    home = group(argument)
    read = None if home is None or not home.startswith(PACKAGE) else outline(home)
    for inner in () if read is None else read.arguments.values():
        if inner.name not in given:
            yield from _tree(inner, f"{flag}.{inner.name}", {})


def _flag(argument: Argument, flag: str) -> str:
    return flag.upper() if argument.flat and "." not in flag else f"--{flag}"


def _word(argument: Argument) -> str:
    """Returns the name of a word without dashes in the line of usage."""
    name = argument.name.upper()
    if isinstance(argument.default, ast.Tuple):
        return f"{name} ..."
    return name if argument.default is None else f"[{name}]"


def _rows(command: Command, flag: str, shown: str | None = None) -> Iterator[str]:
    """Yields the short row of an option, named by a dotted flag."""
    argument = find_argument(command, flag)
    if argument is not None:
        told = command.shown_defaults.get(flag)
        yield _row(shown or _flag(argument, flag), _in_short(argument, told))


def _in_short(argument: Argument, told: str | None) -> str:
    """Returns the first sentence on an option, its names, and its default unless one is told."""
    doc = re.split(r"(?<=[\w)])[.;] ", in_yaml(argument.doc))[0].rstrip(".")
    notes = [_names(kinds(argument)[0], 4)] if kinds(argument) else []
    default = default_in_words(argument) if told is None else told
    if default not in (None, "null", "()"):
        notes.append(f"default: {default}")
    return f"{doc} ({'; '.join(notes)})" if notes else doc


def _topic(command: Command, prog: str, topic: str) -> str:
    """Returns the page of a flag, a kind of parts or a part."""
    *above, last = topic.split(".")
    argument = find_argument(command, topic)
    if argument is not None:
        return _argument_page(command, argument, topic)
    if pages := _part_pages(last, find_argument(command, ".".join(above)) if above else None):
        return "\n\n".join(pages)
    for kind in TABLE:
        if fold(last) == fold(kind):
            return _names_page(kind)
    if read := _own_class(topic):
        return _part_page(read)
    known = [a.name for a in arguments_of(command)]
    parts = [home.split(":")[1] for row in TABLE.values() for home in row.values()]
    raise unknown_name("--help", f"an option of {prog} or the name of a part", topic, known + parts)


def _argument_page(command: Command, argument: Argument, flag: str) -> str:
    """Returns the page of an option: its description, and its names or the options of its group."""
    lines = [_row(_flag(argument, flag), describe(argument))]
    for kind in kinds(argument):
        lines += ["", _names_page(kind)]
    read = class_of(command, argument, flag, {})
    if read is not None and not kinds(argument):
        given = command.given.get(flag, {})
        lines += [
            row
            for inner in read.arguments.values()
            if inner.name not in given
            for row in _tree(inner, f"{flag}.{inner.name}", {})
        ]
    return "\n".join(lines)


def _names_page(kind: str) -> str:
    """Returns a list of the parts of a kind, a line each."""
    rows = []
    for name, home in homes_of(kind).items():
        read = outline(home)
        rows.append(_row(name, summary(read.summary) if read else ""))
    example = next(iter(homes_of(kind)), "NAME")
    title = f"Choose {with_article(NOUNS.get(kind, kind))} by its name, in any case of letters:"
    return "\n".join([title, *rows, "", f"`--help {example}` lists the options of one."])


def _part_pages(name: str, slot: Argument | None) -> list[str]:
    """Returns the pages of the parts with a name, of the kind that an option takes."""
    wanted = [] if slot is None else kinds(slot)
    found = {
        f"{PACKAGE}.{home}": None
        for kind, row in TABLE.items()
        for key, home in row.items()
        if fold(name) in (fold(key), fold(home.split(":")[1]))
        and (not wanted or kind in wanted or home.split(":")[1] in homes_of(wanted[0]))
    }
    return [_part_page(read) for home in found if (read := outline(home))]


def _own_class(topic: str) -> Outline | None:
    """Returns a class at an import path."""
    module, _, name = topic.rpartition(".")
    try:
        return outline(f"{module}:{name}") if module else None
    except (ImportError, ValueError, SyntaxError, OSError) as error:
        fix = "check its spelling"
        raise BadPart(expected("--help", "a class", f"{topic:.80} ({error})", fix)) from error


def _part_page(read: Outline) -> str:
    rows = [_row(f".{argument.name}", describe(argument)) for argument in read.arguments.values()]
    first, *others = f"{read.home.split(':')[1]}: {read.summary}".splitlines()
    return "\n".join([*textwrap.wrap(first, WIDTH), *others, "", *rows])


def describe(argument: Argument) -> str:
    """Returns the description of an option, its values and its default."""
    doc = in_yaml(argument.doc)
    home = group(argument)
    if home and home.startswith(PACKAGE) and not kinds(argument):
        return f"{doc} (a group of options)"
    taken = _names(kinds(argument)[0]) if kinds(argument) else in_words(argument)
    default = default_in_words(argument)
    told = "required" if default is None else f"default: {default}"
    return f"{doc} ({taken}; {told})".strip()


def _names(kind: str, most: int = 8) -> str:
    names = list(homes_of(kind))
    more = len(names) - most
    return f"one of {', '.join(names[:most])}" + (f" and {more} more" if more > 0 else "")


def in_yaml(doc: str) -> str:
    """Returns a description with the words of YAML for None, True and False."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda word: words[word[0]], doc)


def _row(flag: str, text: str) -> str:
    body = textwrap.wrap(text, WIDTH - COLUMN) or [""]
    fits = len(flag) < COLUMN - 2
    first = f"  {flag:<{COLUMN - 2}}" if fits else f"  {flag}\n{'':{COLUMN}}"
    return (first + f"\n{'':{COLUMN}}".join(body)).rstrip()
