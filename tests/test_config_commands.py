"""The commands in the headers of configs/ work, and parts are named as the pages say."""

import re
import shlex
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path

import pytest
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion, cli
from diffusion_framework.cli.help import part_page
from diffusion_framework.parts import plan
from diffusion_framework.parts.search import parts_of
from diffusion_framework.process.schedules import Cosine
from diffusion_framework.samplers import Langevin, ReverseDiffusion, Sampler

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"^# *\w+: *python (scripts/\w+\.py(?:\\\n|[^\n])*)", re.M)


def commands():
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        for words in COMMAND.findall(path.read_text()):
            yield path.name, shlex.split(words.replace("\\\n#", " "))


@pytest.fixture
def called(monkeypatch):
    """Arguments that the commands of the scripts would have been called with."""
    calls = []
    for name in ("train", "sample", "rollout"):
        module = import_module(f"diffusion_framework.cli.{name}")
        command = vars(module)[f"_{name}"]

        def record(*words, **options):
            calls.append((words, options))

        monkeypatch.setattr(module, f"_{name}", wraps(command)(record))
    return calls


def run(words):
    script, *flags = words
    if script.endswith("train.py"):
        cli.train(flags, ROOT / "configs" / "digits.yaml")
    else:
        {"sample.py": cli.sample, "rollout.py": cli.rollout}[Path(script).name](flags)


@pytest.mark.parametrize(
    ("config", "words"), commands(), ids=lambda value: value if isinstance(value, str) else None
)
def test_the_commands_in_a_config_are_accepted(config, words, called, monkeypatch):
    monkeypatch.chdir(ROOT)
    run(words)
    ((_, options),) = called
    if options.get("sampler") is not None:
        assert isinstance(options["sampler"].build(), Sampler)
    if "diffusion" in options:
        assert f"configs/{config}" in words or config == "digits.yaml"
        folder = options["trainer"].options["results_folder"]
        assert folder == f"results/{Path(config).stem}"


def test_every_config_has_commands_and_the_corrector_gets_its_predictor(called, monkeypatch):
    found = list(commands())
    assert {name for name, _ in found} == {path.name for path in ROOT.glob("configs/*.yaml")}
    (words,) = [w for name, w in found if name == "ve_sde.yaml" and "sample.py" in w[0]]
    run(words)
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
        cli.sample([*words, *flags, f"--output={tmp_path / str(i)}"])
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
    cli.train([*flags], ROOT / "configs" / "digits.yaml")
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
    default = ROOT / "configs" / "digits.yaml"
    with pytest.raises(SystemExit) as end:
        cli.train(["--config=own.yaml"], default)
    assert end.value.code == 2
    assert "--trust mine" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert "mine" not in sys.modules
    cli.train(["--config=own.yaml", "--trust=mine"], default)
    cli.train(["--diffusion.noise_schedule", "mine.own.Schedule"], default)
    more = ["--diffusion.noise_schedule.slope", "7"]
    cli.train(["--diffusion.noise_schedule", "mine.own.Schedule", *more], default)
    slopes = [options["diffusion"].build().schedule.slope for _, options in called]
    assert slopes == [5, 5, 7]
    with pytest.raises(SystemExit):
        cli.train(["--diffusion.noise_schedule=mine.own.Schedule", f"{more[0]}=x"], default)
    assert "--diffusion.noise_schedule.slope: expected a number" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["DDIM", "ddim", "Ddim", "d_d_i_m", "diffusion_framework.x.DDIM"])
def test_names_in_any_case(word):
    assert plan(word, Sampler).build().eta == 0


@pytest.mark.parametrize("command", [cli.train, cli.sample, cli.evaluate, cli.rollout])
def test_help_speaks_of_values_as_files_and_flags_write_them(command, capsys):
    with pytest.raises(SystemExit) as end:
        command(["--help"], ROOT / "unused.yaml") if command is cli.train else command(["--help"])
    assert end.value.code == 0
    no_python(capsys.readouterr().out)
    for name in sorted({cls.__name__ for _, cls in parts_of(object)}):
        page = part_page(name).splitlines()
        no_python("\n".join(line for line in page if line.startswith(("  .", " " * 30))))


def no_python(text):
    found = re.findall(r".*(?:\bNone\b|\bTrue\b|\bFalse\b| \| |typing|Callable|<class).*", text)
    assert not found
