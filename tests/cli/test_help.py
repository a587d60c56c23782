"""Help pages and completion: true, short, and made without importing PyTorch."""

import inspect
import re
import subprocess
import sys

import pytest

from diffusion_framework.cli.commands import COMMANDS
from diffusion_framework.cli.completion import complete
from diffusion_framework.cli.flags import find_argument
from diffusion_framework.cli.help import help_page, program_page
from diffusion_framework.cli.program import load, run_program
from diffusion_framework.parts.outline import outline
from diffusion_framework.parts.search import parts_of
from diffusion_framework.parts.table import PACKAGE, TABLE


def pages():
    for name in COMMANDS:
        for topic in ("", "all"):
            yield help_page(name, f"diffusion {name}", topic)
    for kind in TABLE:
        yield help_page("train", "diffusion train", kind)
    for name in sorted({cls.__name__ for _, cls in parts_of(object)}):
        yield help_page("train", "diffusion train", name)


def test_pages_speak_as_files_and_flags_write_values():
    python = r".*(?:\bNone\b|\bTrue\b|\bFalse\b| \| |typing|Callable|<class).*"
    for page in pages():
        rows = [line for line in page.splitlines() if line.startswith(("  -", "  .", " " * 30))]
        assert not re.findall(python, "\n".join(rows))
        assert max(map(len, page.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_page_fits_a_screen_and_each_of_its_flags_exists(name):
    command = COMMANDS[name]
    page = help_page(name, f"diffusion {name}", "")
    assert len(page.splitlines()) <= 62
    for flag in (*command.words.values(), *(f for row in command.usual.values() for f in row)):
        assert find_argument(command, flag) is not None, flag
        assert flag in page or flag.upper() in page or flag in command.words.values()
    for flag in re.findall(r"(?<=--)[a-z_.]+", page.split("More:")[0]):
        chosen = {"sampler": "DDIM", "guidance": "Interval"}  # as in examples
        known = flag in ("config", "option", "print_config")
        assert known or find_argument(command, flag, chosen) is not None, flag


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_names_the_arguments_of_the_command(name):
    command = COMMANDS[name]
    read = outline(f"{PACKAGE}.cli.{command.home}").arguments
    assert [*read] == [*inspect.signature(load(command.home)).parameters]
    for row in (command.defaults, command.given):
        assert set(row) <= set(read)
    if command.base_config:
        assert callable(load(command.base_config))


TOPICS = [
    ("train", "all", ["--trainer.saving.keep_best", "--trainer.train_lr", "--config"]),
    ("train", "diffusion.model", ["UNet", "RIN", "ResidualMLP"]),
    ("train", "UNet", [".dim_mults"]),
    ("train", "unet", [".dim_mults"]),
    ("train", "diffusion.model.UNet", [".dim_mults"]),
    ("train", "trainer", ["--trainer.saving.keep_best"]),
    ("train", "trainer.train_lr", ["Peak learning rate"]),
    ("train", "noise_schedule", ["Cosine", "EDM"]),
    ("sample", "sampler", ["DDIM", "UniPC", "LowerOrderFinal"]),
    ("sample", "sampler.DDIM", [".eta"]),
    ("sample", "--sampler", ["DDIM"]),
    ("sample", "guidance", ["ClassifierFree", "Interval", "Autoguidance", "APG"]),
    ("rollout", "guidance.Interval", [".low", ".scale", ".inner"]),
    ("train", "json.decoder.JSONDecoder", [".strict"]),
]


@pytest.mark.parametrize(("name", "topic", "words"), TOPICS, ids=str)
def test_topics(name, topic, words):
    page = help_page(name, f"diffusion {name}", topic)
    assert all(word in page for word in words)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["smaple"], "write 'sample'"),
        (["train", "--help", "DDIMM"], "write 'DDIM'"),
        (["train", "--help", "trainr"], "write 'trainer'"),
        (["train", "--help=no.such.Xyzzy"], "choose one of"),
        (["--sampler"], "write 'sample'"),
        (["xyzzy"], "choose one of"),
        (["train", "--trainer.lr=1"], "write 'train_lr'"),
    ],
)
def test_unknown_words_are_answered_with_the_nearest(words, fix, capsys):
    with pytest.raises(SystemExit) as end:
        run_program(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f" Fix: {fix}" in error


def completed(line, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    return complete()


COMPLETIONS = [
    ("diffusion ", ["train", "sample", "recipes"], ["--sampler"]),
    ("diffusion tr", ["train"], ["sample"]),
    ("diffusion sample run --sa", ["--sampler", "--sampler."], ["--seed"]),
    ("diffusion sample run --sampler D", ["DDIM", "DDPM"], ["UniPC"]),
    ("diffusion sample run --sampler ddim --sampler.", ["--sampler.eta"], ["--sampler.order"]),
    ("diffusion sample run --sampler.", ["--sampler.order"], ["--sampler.eta"]),
    ("diffusion sample run --guidance I", ["Interval"], ["APG"]),
    (
        "diffusion sample run --guidance apg --guidance.",
        ["--guidance.eta", "--guidance.scale"],
        ["--guidance.low"],
    ),
    ("diffusion sample run --weights ", ["ema", "model"], ["--seed"]),
    ("diffusion train --diffusion.model.", ["--diffusion.model.dim_mults"], []),
    (
        "diffusion train --diffusion.model DiT --diffusion.model.",
        ["--diffusion.model.patch_size"],
        ["--diffusion.model.dim_mults"],
    ),
    ("diffusion train photos --config ed", ["edm"], ["dit"]),
    ("diffusion train --trainer.saving.", ["--trainer.saving.keep_best"], []),
    ("diffusion train --trainer.mixed_precision ", ["bf16"], []),
]


@pytest.mark.parametrize(("line", "wanted", "unwanted"), COMPLETIONS)
def test_completion(line, wanted, unwanted, monkeypatch):
    found = completed(line, monkeypatch)
    assert set(wanted) <= set(found)
    assert not set(unwanted) & set(found)


@pytest.mark.parametrize("words", ["sample ", "train --data.folder ", "x '", "nothing --"])
def test_completion_leaves_files_to_the_shell(words, monkeypatch):
    assert completed(f"diffusion {words}", monkeypatch) == []


def test_help_and_completion_import_no_torch():
    code = """if True:
        import os, sys
        from diffusion_framework.cli.program import run_program
        os.environ |= {"COMP_LINE": "diffusion sample run --sampler ", "COMP_POINT": "99"}
        for words in (
            [], ["train", "--help"], ["sample", "--help", "sampler"], ["recipes"], ["--complete"],
            ["train", "--help", "all"], ["completion", "bash"],
        ):
            try:
                run_program(words)
            except SystemExit as end:
                assert not end.code
        print(sorted({"torch", "numpy", "accelerate"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert program_page().splitlines()[0] in done.stdout


@pytest.mark.parametrize("words", ["--help", "recipes", "train --help all"])
def test_a_reader_that_has_gone_is_no_error(words):
    code = f"{sys.executable} -m diffusion_framework {words} | head -1"
    done = subprocess.run(code, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1
