"""No file runs code, imports unknown modules, or takes more memory than its tensors need."""

import copy
import functools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import pytest
import torch
import yaml
from audit import watched
from mutations import COMMAND, changed_bytes, changed_tree
from runs import rewrite, trainer

from diffusion_framework import GaussianDiffusion
from diffusion_framework.interop import read_scheduler_config
from diffusion_framework.interop.schedulers import SCHEDULERS
from diffusion_framework.parts import BadPart, Typed, options, plan, read_yaml
from diffusion_framework.parts.search import load_class, parts_of
from diffusion_framework.parts.table import TABLE
from diffusion_framework.process.objectives import Objective
from diffusion_framework.process.schedules import NoiseSchedule
from diffusion_framework.samplers import Sampler
from diffusion_framework.storage.checkpoint import list_checkpoints
from diffusion_framework.storage.config import from_config

ROOT = Path(__file__).resolve().parents[2]
GADGETS = {
    "os.system": {"command": "touch executed"},
    "os.popen": {"cmd": "touch executed"},
    "subprocess.Popen": {"args": ["touch", "executed"]},
    "subprocess.getoutput": {"cmd": "touch executed"},
    "timeit.Timer": {"stmt": "pass", "setup": "open('executed', 'w')"},
    "zipfile.ZipFile": {"file": "executed", "mode": "w"},
    "logging.FileHandler": {"filename": "executed"},
    "stranger.Network": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, ten_images_of_module):
    results = tmp_path_factory.mktemp("hostile") / "run"
    trainer(ten_images_of_module, results, train_num_steps=1, save_and_sample_every=1).train()
    return results


@pytest.fixture(scope="module")
def ten_images_of_module():
    return [torch.rand(1, 8, 8) for _ in range(10)]


@pytest.fixture
def victim(run, tmp_path, monkeypatch):
    """A copy of the run beside modules that leave a trace when they are imported."""
    monkeypatch.chdir(tmp_path)
    for name in ("stranger", "tensorflow", "tensorboard"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@functools.cache
def parsed(text):
    return yaml.safe_load(text)


def reseal(results, change):
    """Changes the newest checkpoint's config, and the manifest accordingly."""
    path = list_checkpoints(results)[-1]
    config = copy.deepcopy(parsed((path / "config.yaml").read_text()))
    config["data"] = {"class_path": "Digits"}
    change(config)
    rewrite(path, "config.yaml", json.dumps(config).encode())  # JSON is YAML, and fast to write
    return path / "config.yaml"


def network_config(**changes):
    return {
        "class_path": "UNet",
        "init_args": {"dim": 8, "dim_mults": [1], "blocks": 1, "image_size": 8, **changes},
    }


DOORS = {
    "sample": lambda config: commands.sample(
        [str(config.parent), "--output=out", "--progress=false"]
    ),
    "resume": lambda config: commands.train(
        ["--resume", f"--trainer.results_folder={config.parents[2]}"],
    ),
    "config": lambda config: commands.train([f"--config={config}"]),
    "evaluate": lambda config: commands.evaluate(
        [str(config.parent), "--likelihood", "--data=Digits"]
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_checkpoint_runs_nothing(gadget, door, victim, capsys):
    inner = {"class_path": gadget, "init_args": GADGETS[gadget]}
    places = [
        lambda config: config["diffusion"]["init_args"].update(model=inner),
        lambda config: config["diffusion"]["init_args"].update(
            model={
                "class_path": "torch.nn.Linear",
                "init_args": {"in_features": 1, "out_features": 1, "device": inner},
            }
        ),
        lambda config: config["diffusion"]["init_args"].update(noise_schedule=inner),
        lambda config: config["diffusion"]["init_args"].update(schedule_kwargs={"tau": inner}),
        lambda config: config.update(data=inner),
        lambda config: config["trainer"].update(seed=inner),
    ]
    for i, place in enumerate(places):
        if door in ("sample", "evaluate") and i >= 4:
            continue  # these doors read only the model
        shutil.copytree(victim, victim.with_name(f"run{i}"))
        config = reseal(victim.with_name(f"run{i}"), place)
        with watched() as seen, pytest.raises(SystemExit) as end:
            DOORS[door](config)
        assert end.value.code == 2
        assert not seen
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert (
            not Path("executed").exists() and gadget.split(".")[0] not in ("stranger",)
        ) or "stranger" not in sys.modules


@pytest.mark.parametrize("kind", [Sampler, NoiseSchedule, Objective])
def test_a_json_file_runs_nothing(kind, tmp_path):
    for node in (
        COMMAND,
        {"class_path": "DDIM", "init_args": {"eta": COMMAND}},
        [COMMAND],
        "os.system",
    ):
        (tmp_path / kind.config_name).write_text(json.dumps(node))
        with watched() as seen, pytest.raises(ValueError, match="expected .* Fix: "):
            kind.from_pretrained(tmp_path)
        assert not seen


def test_options_without_annotation_take_no_parts():
    function = {
        "class_path": "torch.nn.TransformerEncoderLayer",
        "init_args": {"d_model": 4, "nhead": 1},
    }
    for name in ("activation", "device", "dtype"):
        node = {**function, "init_args": {**function["init_args"], name: COMMAND}}
        with pytest.raises(BadPart):
            plan(node, torch.nn.Module, trust=("torch",))


def test_scripts_do_not_import_modules_of_the_current_folder(victim):
    commands = (["sample.py", victim, "--steps=1", "--num_samples=1"], ["train.py", "--help"])
    running = [
        subprocess.Popen(
            [sys.executable, ROOT / "scripts" / name, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=victim.parent,
        )
        for name, *words in commands
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert not (victim.parent / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 10**8},
        {"dim": 10**9},
        {"dim_mults": [10**6] * 4},
        {"image_size": 10**9},
        {"dim_mults": [1] * 2000},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_config_larger_than_its_tensors_takes_no_memory(change, victim):
    import resource

    def place(config):
        config["diffusion"]["init_args"]["model"] = network_config(**change)

    reseal(victim, place)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="[Ee]xpected .*Fix: "):
        GaussianDiffusion.from_pretrained(victim)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_config_larger_than_the_machine_is_refused_before_memory_is_taken(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for change in ("blocks: 100000000", "dim: 1000000"):
        Path("large.yaml").write_text(
            f"data: Digits\ndiffusion: {{model: {{image_size: 8, {change}}}}}"
        )
        with pytest.raises(SystemExit) as end:
            commands.train(["--config=large.yaml"])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert "makes a model of more than" in error or "Fix: make the network smaller" in error


@pytest.mark.parametrize(
    "node",
    [
        {"timesteps": 10**9},
        {"noise_schedule": {"class_path": "LinearBeta", "init_args": {"steps": 10**9}}},
        {"noise_schedule": {"class_path": "SquaredCosBeta", "init_args": {"steps": 10**9}}},
        {"times": {"class_path": "LossAware", "init_args": {"steps": 10**9}}},
        {"times": {"class_path": "Steps", "init_args": {"steps": 10**9}}, "loss": "bound"},
        {"objective": "previous_x", "timesteps": 10**9},
    ],
    ids=str,
)
def test_numbers_of_steps_are_bounded(node):
    with pytest.raises(ValueError, match="from 1 to 100000, got 1000000000"):
        from_config(
            {"class_path": "GaussianDiffusion", "init_args": {"model": network_config(), **node}},
            GaussianDiffusion,
        )


def seeds():
    """Yields descriptions to start from: configs of the project, samplers and schedules."""
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        yield read_yaml(path.read_bytes(), path.name)["diffusion"], GaussianDiffusion
    for kind in (Sampler, NoiseSchedule):
        for _, cls in parts_of(kind):
            plain = {
                o.name: o.default
                for o in options(cls).values()
                if isinstance(o.default, int | float | str)
            }
            yield {"class_path": f"diffusion_framework.{cls.__name__}", "init_args": plain}, kind


def test_mutated_descriptions_end_in_one_line_or_in_an_object():
    for row in TABLE.values():
        for home in row.values():
            options(load_class(home))  # imports everything beforehand
    chance, found = random.Random(0), list(seeds())
    ends = {"built": 0, "refused": 0}
    for _ in range(1500):
        node, kind = chance.choice(found)
        changed = changed_tree(node, chance, [node for node, _ in found])
        message = ""
        with watched() as seen:
            try:
                planned = plan(changed, kind, where="config")
                if kind is not GaussianDiffusion:
                    planned.build()
                ends["built"] += 1
            except ValueError as error:
                ends["refused"] += 1
                message = str(error)
        assert not seen, (seen, changed)
        assert "\n" not in message and len(message) < 900
    assert min(ends.values()) > 50, ends


def test_mutated_texts_end_in_one_line_or_in_a_plan():
    chance, found = (
        random.Random(0),
        [(yaml.safe_dump(node).encode(), kind) for node, kind in seeds()],
    )
    ends = {"planned": 0, "refused": 0}
    for _ in range(600):
        text, kind = chance.choice(found)
        changed = changed_bytes(text, chance)
        message = ""
        with watched() as seen:
            try:
                plan(read_yaml(changed, "config"), kind, where="config")
                ends["planned"] += 1
            except BadPart as error:
                ends["refused"] += 1
                message = str(error)
        assert not seen, (seen, changed)
        assert "\n" not in message and len(message) < 900
    assert min(ends.values()) > 0, ends


def test_mutated_scheduler_configs_end_in_one_line_or_in_a_plan():
    chance, ends = random.Random(0), {"planned": 0, "refused": 0}
    found = [
        {
            "_class_name": name,
            **{k: v for k, v in defaults.items() if isinstance(v, bool | int | float | str)},
        }
        for name, (_, defaults) in SCHEDULERS.items()
    ]
    for _ in range(600):
        changed, message = changed_tree(chance.choice(found), chance), ""
        with watched() as seen:
            try:
                read_scheduler_config(changed if isinstance(changed, dict) else {})
                ends["planned"] += 1
            except ValueError as error:
                ends["refused"] += 1
                message = str(error)
        assert not seen, (seen, changed)
        assert "\n" not in message and len(message) < 6000
    assert min(ends.values()) > 50, ends


def test_a_typed_word_may_name_any_class_and_a_word_of_a_file_may_not(tmp_path):
    assert plan(Typed("torch.nn.SiLU"), torch.nn.Module).build() is not None
    (tmp_path / "config.yaml").write_text("class_path: torch.nn.SiLU")
    with pytest.raises(BadPart, match="a class of diffusion_framework, got torch.nn.SiLU"):
        plan(read_yaml((tmp_path / "config.yaml").read_bytes(), "config"), torch.nn.Module)
    assert not os.path.exists("executed")
