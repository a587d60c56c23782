"""The commands in the headers of configs/ work, and parts are named as the pages say."""

import re
import shlex
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path

import commands
import pytest
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.cli.program import run_command
from diffusion_framework.parts import plan
from diffusion_framework.process.schedules import Cosine
from diffusion_framework.samplers import Langevin, ReverseDiffusion, Sampler

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"^# *\w+: *diffusion (\w+ ?(?:\\\n|[^\n])*)", re.M)


def commands_of_configs():
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        for words in COMMAND.findall(path.read_text()):
            yield path.stem, shlex.split(words.replace("\\\n#", " "))


@pytest.fixture
def called(monkeypatch):
    """Arguments that the commands would have been called with."""
    calls = []
    for name in ("train", "sample", "rollout"):
        module = import_module(f"diffusion_framework.cli.{name}")

        def record(*words, **options):
            calls.append((words, options))

        monkeypatch.setattr(module, name, wraps(vars(module)[name])(record))
    return calls


@pytest.mark.parametrize(
    ("config", "words"),
    commands_of_configs(),
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_commands_in_a_config_are_accepted(config, words, called, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run_command(words[0], words[1:])
    ((_, options),) = called
    if options.get("sampler") is not None:
        assert isinstance(options["sampler"].build(), Sampler)
    if "diffusion" in options:
        assert config in words or config == "digits"
        assert options["trainer"].options["results_folder"] == f"results/{config}"
        assert options["data"].options.get("folder", "FOLDER") == "FOLDER"


def test_every_config_has_commands_and_the_corrector_gets_its_predictor(called):
    found = list(commands_of_configs())
    assert {name for name, _ in found} == {path.stem for path in ROOT.glob("configs/*.yaml")}
    (words,) = [words for name, words in found if name == "ve_sde" and words[0] == "sample"]
    run_command(words[0], words[1:])
    assert called[0][1]["sampler"].build() == Langevin(ReverseDiffusion())


def test_samplers_inside_samplers_sample(tmp_path):
    model = GaussianDiffusion(tiny_unet(), noise_schedule="ve", objective="eps", timesteps=2)
    model.save_pretrained(tmp_path / "model")
    words = [str(tmp_path / "model"), "--steps=2", "--num_samples=1", "--progress=false"]
    for i, flags in enumerate(
        (
            ["--sampler", "Langevin", "--sampler.sampler", "ReverseDiffusion"],
            ["--sampler=langevin", "--sampler.sampler=reverse_diffusion", "--sampler.snr=.1"],
            ["--sampler=Churn", "--sampler.sampler=Heun", "--sampler.s_churn=0.5"],
            ["--sampler=LowerOrderFinal", "--sampler.sampler.order=2"],
        )
    ):
        commands.sample([*words, *flags, f"--output={tmp_path / str(i)}"])
        assert (tmp_path / str(i) / "00000.png").exists()


FLAGS = [
    (["--diffusion.noise_schedule", "Cosine"], Cosine()),
    (["--diffusion.noise_schedule=COSINE"], Cosine()),
    (["--diffusion.noise_schedule=diffusion_framework.Cosine"], Cosine()),
    (["--diffusion.noise_schedule=cosine", "--diffusion.noise_schedule.tau", "2"], Cosine(tau=2)),
    (["--diffusion.noise_schedule.tau=2", "--diffusion.noise_schedule=Cosine"], Cosine(tau=2)),
]


@pytest.mark.parametrize(("flags", "expected"), FLAGS, ids=str)
def test_a_schedule_is_named_with_and_without_options(flags, expected, called):
    commands.train([*flags])
    assert called[0][1]["diffusion"].build().schedule == expected


OWN = """
from dataclasses import dataclass
from diffusion_framework.process.schedules import NoiseSchedule
@dataclass(frozen=True)
class Schedule(NoiseSchedule):
    slope: float = 5.0
    def log_snr(self, time):
        return self.slope * (1 - 2 * time)
    def time(self, log_snr):
        return (1 - log_snr / self.slope) / 2
"""


def test_a_class_of_ones_own_by_its_path(called, tmp_path, monkeypatch, capsys):
    """A typed command line may name any class; a file needs the word of trust each time."""
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "mine/own"):
        Path(folder).mkdir()
        Path(folder, "__init__.py").write_text(OWN if folder.endswith("own") else "")
    Path("own.yaml").write_text(
        "diffusion:\n  model: UNet\n  noise_schedule: mine.own.Schedule\ndata: Digits\n"
    )
    with pytest.raises(SystemExit) as end:
        commands.train(["--config=own.yaml"])
    assert end.value.code == 2
    assert "--trust mine" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert "mine" not in sys.modules
    commands.train(["--config=own.yaml", "--trust=mine"])
    commands.train(["--diffusion.noise_schedule", "mine.own.Schedule"])
    more = ["--diffusion.noise_schedule.slope", "7"]
    commands.train(["--diffusion.noise_schedule", "mine.own.Schedule", *more])
    slopes = [options["diffusion"].build().schedule.slope for _, options in called]
    assert slopes == [5, 5, 7]
    with pytest.raises(SystemExit):
        commands.train(["--diffusion.noise_schedule=mine.own.Schedule", f"{more[0]}=x"])
    assert "--diffusion.noise_schedule.slope: expected a number" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["DDIM", "ddim", "Ddim", "d_d_i_m", "diffusion_framework.x.DDIM"])
def test_names_in_any_case(word):
    assert plan(word, Sampler).build().eta == 0


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["photos/"], "results/photos"),
        (["a/photos", "--config=edm"], "results/edm"),
        (["--data.folder=photos"], "results/photos"),
        (["--data=Shards", "--data.shards=a.tar"], "results/shards"),
        (["photos", "--trainer.results_folder=here"], "here"),
        ([], "results/digits"),
    ],
)
def test_a_run_has_the_name_of_its_recipe_or_of_its_data(words, folder, called):
    commands.train(words)
    assert called[0][1]["trainer"].options["results_folder"] == folder


def test_a_folder_is_a_word_or_a_flag(called, capsys):
    commands.train(["photos", "--diffusion.model.dim=8"])
    assert called[0][1]["data"].options["folder"] == "photos"
    for words in (["photos", "--data.folder=others"], ["photos", "others"], ["--config=edmm"]):
        with pytest.raises(SystemExit) as end:
            commands.train(words)
        assert end.value.code == 2
        assert re.fullmatch(r"error: .* Fix: .*\n", capsys.readouterr().err)
