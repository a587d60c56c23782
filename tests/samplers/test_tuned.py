"""Samplers and grids that tuning found: their file, and what sampling does with them."""

import copy
import json
import math
import random
import shutil
import warnings
from dataclasses import replace

import commands
import pytest
import torch
from mutations import changed_bytes, changed_tree
from toys import tiny_diffusion, tiny_unet

from diffusion_framework import Flow, GaussianDiffusion, Sigmoid, UniPC
from diffusion_framework.denoisers import APG, ClassifierFree
from diffusion_framework.process.objectives import V
from diffusion_framework.samplers import Auto
from diffusion_framework.samplers.tuned import Tuned
from diffusion_framework.samplers.tuned_file import TunedCalls, TunedFile
from diffusion_framework.storage.config import to_config
from diffusion_framework.storage.exporting import export_run

TUNED = Tuned(UniPC(3), (-2.5, 0.25, 3.0))
FILE = TunedFile(
    to_config(Sigmoid()),
    to_config(V()),
    weights="model",
    step=7,
    guidance=1.0,
    found=(
        TunedCalls(Tuned(UniPC(2, predict="v"), (0.1 + 0.2,)), 0.5, 0.75),
        TunedCalls(TUNED, 1e-3, 0.25),
    ),
)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "export"
    tiny_diffusion().save_pretrained(folder)
    FILE.write(folder)
    return folder


@pytest.fixture
def folder(export, tmp_path):
    return shutil.copytree(export, tmp_path / "export")


def change(folder, **values):
    """Changes values in the file, those of its last entry too."""
    path = folder / "tuned.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        place = content if name in content else content["tuned"][-1]
        place[name] = value
    path.write_text(json.dumps(content))


def test_the_file_holds_everything_exactly(tmp_path):
    FILE.write(tmp_path)
    assert TunedFile.read(tmp_path) == FILE and TunedFile.read(tmp_path / "none") is None
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]


def test_grids_begin_and_end_exactly():
    for schedule in (Sigmoid(), Flow()):  # the second begins without any signal
        grid = TUNED.grid(schedule)
        assert grid.start == schedule.at(1.0) and grid.end == schedule.clean
        assert [now.log_snr for now, _ in grid[1:]] == [-2.5, 0.25, 3.0]


@pytest.mark.parametrize("values", [(1.0, 0.5), (0.5, 0.5), (math.nan,), (math.inf,)])
def test_levels_that_do_not_rise_are_refused(values):
    with pytest.raises(ValueError, match=r"finite log-SNRs that rise.*Fix:"):
        Tuned(UniPC(), values)


def test_sampling_uses_it_only_if_nothing_else_is_said(folder):
    torch.manual_seed(0)
    model = GaussianDiffusion.from_pretrained(folder)
    plain = copy.copy(model)
    plain.sampler = Auto()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert model.sampler == Auto(tuned=tuple(one.tuned for one in FILE.found))

    def drawn(diffusion, **options):
        return diffusion.sample(2, seed=1, show_progress=False, **options)

    grid = TUNED.grid(model.schedule)
    assert torch.equal(drawn(model, calls=4), drawn(plain, sampler=UniPC(3), grid=grid))
    assert not torch.equal(drawn(model, calls=4), drawn(plain, calls=4))
    for options in (
        {"calls": 4, "spacing": "time"},
        {"calls": 4, "first": 20.0},
        {"calls": 4, "last": 0.2},
        {"calls": 4, "sampler": "ddim"},
        {"grid": model.grid(4, "log_snr")},
        {"calls": 5},
        {},
    ):
        assert torch.equal(drawn(model, **options), drawn(plain, **options)), options


@pytest.mark.parametrize(
    ("told", "fits", "differs"),
    [
        (1.0, (None, 1.0, ClassifierFree(1.0)), (3.0, "apg")),
        (to_config(ClassifierFree(3.0)), (3.0, ClassifierFree(3.0)), (None, 1.0, 2.0, "apg")),
        (to_config(APG()), ("apg", APG()), (None, 1.0)),
    ],
    ids=str,
)
def test_a_file_serves_the_guidance_that_it_was_made_for(tmp_path, told, fits, differs):
    folder = tmp_path / "export"
    GaussianDiffusion(tiny_unet(num_classes=3)).save_pretrained(folder)
    replace(FILE, guidance=told).write(folder)
    model = GaussianDiffusion.from_pretrained(folder)
    tuned, untuned = TUNED.grid(model.schedule), model.grid(4, sampler=model.sampler.untuned())
    for sampler in (None, model.sampler):
        for guidance in fits:
            how = {"calls": 4, "sampler": sampler, "guidance": guidance, "labels": 1}
            assert model.walk(1, **how).grid == tuned
        for guidance in differs:
            how = {"calls": 4, "sampler": sampler, "guidance": guidance, "labels": 1}
            assert model.walk(1, **how).grid == untuned


def test_a_file_of_another_model_is_ignored_with_a_warning(folder):
    change(folder, schedule=to_config(Flow()))
    with pytest.warns(UserWarning, match=r"tuned.json was made for another schedule.*Fix: tune"):
        assert GaussianDiffusion.from_pretrained(folder).sampler == Auto()


def test_other_weights_do_not_use_it(folder):
    change(folder, weights="ema")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GaussianDiffusion.from_pretrained(folder).sampler == Auto()


def test_exports_take_it_along_and_info_shows_it(folder, tmp_path, capsys):
    export_run(folder, tmp_path / "again")
    assert GaussianDiffusion.from_pretrained(tmp_path / "again").sampler.tuned[1] == TUNED
    commands.info([str(tmp_path / "again")])
    assert "tuned       for 2, 4 network calls, at step 7 (model)" in capsys.readouterr().out
    commands.info([str(tmp_path / "again"), "--json"])
    assert json.loads(capsys.readouterr().out)["tuned"] == [2, 4]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"format_version": 99}, "upgrade diffusion_framework"),
        ({"format_version": True}, "no format_version"),
        ({"weights": "others"}, "unknown weights"),
        ({"step": -1}, "no step"),
        ({"tuned": [3]}, "an entry without options"),
        ({"tuned": [None] * 101}, "101 numbers of calls"),
        ({"calls": 3}, "another number of steps than calls"),
        ({"error": math.inf}, "errors that are not finite"),
        ({"log_snrs": [3.0, 1.0, 2.0]}, "finite log-SNRs that rise"),
        ({"log_snrs": [*range(2000)], "calls": 2001}, "fewer than 1000"),
        ({"sampler": {"class_path": "os.system", "init_args": {"command": "true"}}}, "os"),
        ({"sampler": {"class_path": "RK45", "init_args": {}}}, "another number of steps"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(folder, values, told):
    change(folder, **values)
    with pytest.raises(ValueError, match=r"tuned.json.*Fix:") as refused:
        GaussianDiffusion.from_pretrained(folder)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["bytes", "tree"])
def test_no_changed_file_does_anything_else(kind, tmp_path):
    chance = random.Random(kind)
    text = FILE.write(tmp_path).read_bytes()
    for _ in range(300):
        data = (
            changed_bytes(text, chance)
            if kind == "bytes"
            else json.dumps(changed_tree(json.loads(text), chance)).encode("utf-8", "surrogatepass")
        )
        (tmp_path / "tuned.json").write_bytes(data)
        error = refusal(tmp_path)
        assert "\n" not in error and ("Fix:" in error or not error)


def refusal(folder) -> str:
    """Returns the error of reading a file, or nothing."""
    try:
        TunedFile.read(folder)
    except ValueError as error:
        return str(error)
    return ""
