"""The Markdown pages are true: their Python runs, their tables hold, their links lead somewhere."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import MixtureOracle
from PIL import Image
from toys import QUIET, Plain

import diffusion_framework as df
from diffusion_framework import conditions, models, policies, samplers, spaces, training
from diffusion_framework.cli.program import run_program
from diffusion_framework.denoisers.preconditioning import StepTime
from diffusion_framework.editing import interpolate
from diffusion_framework.evaluation import flow_bits_per_dim
from diffusion_framework.interop import read_scheduler_config
from diffusion_framework.losses import weights
from diffusion_framework.process import objectives, schedules
from diffusion_framework.samplers import grids

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")])
    if "results" not in path.parts
}
SMALLER = {  # sizes and durations on the pages, and here
    r"\b(64|128)\b": "8",
    r"\b\d+_000\b": "2",
    r"steps=(\d\d+)": "steps=2",
    r"calls=\d\d+": "calls=4",
    r"batch_size=\d+": "batch_size=2",
    r"num_workers=\d+": "num_workers=0",
    r"\bevery=\d+": "every=0",
    "'fp16'": "'bf16'",  # which needs no GPU
}


def smaller(code):
    for pattern, replacement in SMALLER.items():
        code = re.sub(pattern, replacement, code)
    return code


class Network(torch.nn.Module):
    """The network that pages speak of."""

    channels, image_size = 3, 8

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)

    def forward(self, x, time, labels=None, low=None):
        return self.layer(x)


@pytest.fixture
def known(tmp_path, monkeypatch):
    """The names and files that pages suppose."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    Path("demonstrations").mkdir()
    for i in range(3):
        steps = np.random.default_rng(i).normal(size=(40, 5)).astype(np.float32)
        np.savez(f"demonstrations/{i}.npz", state=steps, action=steps[:, :2])
    Path("scheduler").mkdir()
    config = '{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}'
    Path("scheduler/scheduler_config.json").write_text(config)
    windows = policies.EpisodeWindows("demonstrations")
    policy = df.DiffusionPolicy(
        models.UNet1D(16, 2, 2, 5, down_dims=(8, 16)), conditions.Observations({"state": 5})
    )
    policy.fit([windows.take(np.arange(len(windows)))])
    policy.save_pretrained("results/policy_pusht")
    images = torch.randint(256, (4, 3, 8, 8)) / 255
    diffusion = df.GaussianDiffusion(Plain(3, 8))
    run = df.GaussianDiffusion(models.UNet(8, (1, 2), image_size=8, blocks=1))
    run.save_pretrained("results/RUN")
    return {
        **dict.fromkeys(("images", "small"), images),
        **{"first": images[:2], "second": images[2:], "labels": [0, 1, 2, 3]},
        **{"network": Network(), "diffusion": diffusion, "policy": policy, "windows": windows},
        **{"observation": torch.rand(5), "last_two_observations": torch.rand(1, 2, 5)},
        **{"GaussianDiffusion": df.GaussianDiffusion},
    }


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs(page, known):
    """All blocks of a page, one after the other."""
    for code in blocks(page, "python"):
        exec(compile(smaller(code), page, "exec"), known)


COMING_FROM = PAGES["diffusion_framework/interop/README.md"].partition("## Scheduler configs")[0]
COUNTERPARTS = re.findall(r"^\| [^\n]* \| ([^|]*) \|$", COMING_FROM, re.MULTILINE)


def test_counterparts_of_other_libraries_run(known):
    """Each expression in the last column of the tables."""
    for module in (conditions, models, policies, samplers, spaces, training, objectives, schedules):
        known |= {name: vars(module)[name] for name in vars(module) if name[0].isupper()}
    known |= {name: vars(df)[name] for name in ("Trainer",) if name in vars(df)}
    known |= vars(grids) | vars(weights) | {"StepTime": StepTime, "torch": torch}
    known |= {"interpolate": interpolate, "flow_bits_per_dim": flow_bits_per_dim}
    known |= {"read_scheduler_config": read_scheduler_config}
    x1, x2 = known["first"], known["second"]
    known |= {"x1": x1, "x2": x2}
    known["UNet"] = reduced(models.UNet, dim=8, dim_mults=(1, 2), image_size=8, blocks=1)
    known["UNet1D"] = reduced(models.UNet1D, down_dims=(8, 16))
    run = {**QUIET, "train_num_steps": 2, "train_batch_size": 2}
    known["Trainer"] = reduced(training.Trainer, **run)
    known["Trainer"](known["diffusion"], known["images"], train_num_steps=1).train()
    tried = [code for cell in COUNTERPARTS for code in re.findall(r"`([A-Za-z]\w*[(.].*?)`", cell)]
    assert len(tried) > 60
    for code in tried:
        eval(compile(smaller(code), code, "eval"), known)


def reduced(cls, **sizes):
    """A class whose objects are smaller than asked for, if its arguments are right."""
    signature = inspect.signature(cls)

    def make(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        return cls(**{**given, **sizes})

    return make


def test_the_errors_of_samplers(known):
    """The table of errors, measured again."""
    page = PAGES["diffusion_framework/samplers/README.md"]
    rows = re.findall(r"^\| `(\w+\(.*?\))` \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \| ", page, re.M)
    assert len(rows) > 5
    oracle, noise = MixtureOracle(), torch.randn_like
    seed = torch.Generator().manual_seed(0)
    x = torch.randn(2000, generator=seed, dtype=torch.float64)

    def result(sampler, calls):
        steps = calls // (2 if sampler == samplers.Heun() else 1)
        grid = grids.spaced_grid(oracle.schedule, steps, "optimal")
        *_, end = samplers.trajectory(sampler, oracle, x * grid.start.sigma, grid, noise)
        return end.x

    exact = result(samplers.Heun(), 2000)
    for code, *errors in rows:
        sampler = eval(code, vars(samplers))
        for calls, error in zip((6, 10, 20), errors, strict=True):
            found = float((result(sampler, calls) - exact).square().mean().sqrt())
            assert found == pytest.approx(float(error), rel=0.25), (code, calls)


def anchor(heading):
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), link


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_name_exist(page):
    for path in re.findall(
        r"`((?:scripts|configs|tests|diffusion_framework)/[\w/]+\.\w+)", PAGES[page]
    ):
        assert (ROOT / path).exists(), path


USES_ALL = """
import torch
from diffusion_framework import GaussianDiffusion
from diffusion_framework.conditions import Conditioner
from diffusion_framework.parts import plan
from diffusion_framework.process.schedules import NoiseSchedule
from diffusion_framework.samplers import Sampler

def build(name, kind, **options):
    return plan({"class_path": name, "init_args": options}, kind).build()

schedule, t = build("laplace", NoiseSchedule), torch.linspace(0, 1, 9, dtype=torch.float64)
torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t)
assert schedule.at(0.0).is_end and schedule.at(1.0).alpha == 0
network = build("conv_net", torch.nn.Module, channels=1, image_size=8)
angles = build("angles", Conditioner, dropout=0.1)
diffusion = GaussianDiffusion(network, noise_schedule=schedule, conditions={"angle": angles})
diffusion(torch.rand(2, 1, 8, 8), angle=[0.0, 1.0]).backward()
sampler, calls = build("early_noise", Sampler, until=0.0), []
options = dict(steps=6, angle=[0.0, 1.0], guidance=2.0, show_progress=False)
assert diffusion.sample(2, sampler=sampler, **options).shape == (2, 1, 8, 8)
diffusion.save_pretrained("saved")
assert GaussianDiffusion.from_pretrained("saved").schedule == schedule
"""


def test_the_diffs_of_contributing_apply_and_their_parts_work(tmp_path):
    diffs = blocks("CONTRIBUTING.md", "diff")
    assert len(diffs) == 4
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "diffusion_framework", tmp_path / "diffusion_framework", ignore=ignored)
    for diff in diffs:
        applied = subprocess.run(
            ["git", "apply", "-C1"],
            input=diff,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert applied.returncode == 0, applied.stderr
    done = subprocess.run(
        [sys.executable, "-c", USES_ALL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_the_reference_covers_every_folder():
    """The command of the API reference names each folder that exports names."""
    command = next(code for code in blocks("CONTRIBUTING.md", "sh") if "pdoc" in code)
    words = subprocess.run(
        ["bash", "-c", f"echo {command.partition('pdoc')[2]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    exporting = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "diffusion_framework").rglob("__init__.py")
        if "__all__" in path.read_text()
    }
    inner = {"cli", "parts", "adaptive", "guidance"}  # used by the package, or exported above
    assert {name for name in exporting if name.split(".")[-1] not in inner} <= set(words)


PROGRAM = re.compile(
    r"(?:^|\s)(?:diffusion|(?:\.venv/bin/)?diffusion|-m diffusion_framework) (.+)$"
)


def typed_commands(page):
    """The words of each command of the program on a page, after its name."""
    code = "".join(blocks(page, "sh")).replace("\\\n", " ")
    lines = [line.partition(" > ")[0].partition("  #")[0] for line in code.splitlines()]
    return [shlex.split(found[1]) for line in lines if (found := PROGRAM.search(line))]


@pytest.mark.parametrize("page", [page for page in PAGES if typed_commands(page)])
def test_commands_are_accepted(page, monkeypatch, tmp_path, capsys):
    """Every word of every command is understood, and its parts fit together."""
    monkeypatch.chdir(tmp_path)
    called = []
    for name in ("train", "sample", "evaluate", "rollout", "tune", "export", "info"):
        module = import_module(f"diffusion_framework.cli.{name}")
        command = wraps(vars(module)[name])(lambda *words, **given: called.append((words, given)))
        monkeypatch.setattr(module, name, command)
    run = Path("results/photos/checkpoints/step-00000001")  # for --config results/photos
    run.mkdir(parents=True)
    with pytest.raises(SystemExit, match="0"):
        run_program(["train", "photos", "--print_config"])
    (run / "config.yaml").write_text(capsys.readouterr().out)
    for words in typed_commands(page):
        if {"--help", "--print_config"} & {*words} or words[0].startswith("-"):
            with pytest.raises(SystemExit, match="0"):
                run_program(words)
            Path("mine.yaml").write_text(capsys.readouterr().out)  # as pages redirect it
            continue
        run_program(words)
        _, given = called.pop()
        for part in (given.get("sampler"), given.get("diffusion")):
            if part is not None:
                part.build()
