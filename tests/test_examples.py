"""Every program in scripts/examples runs, for two optimizer or sampler steps where it trains."""

import ast
import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from diffusion_framework import GaussianDiffusion
from diffusion_framework.interop import read_scheduler_config
from diffusion_framework.storage.checkpoint import list_checkpoints

FOLDER = Path(__file__).resolve().parents[1] / "scripts" / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def program(request):
    """Imports a program by its name, as if it was run."""
    spec = importlib.util.spec_from_file_location(request.param, FOLDER / f"{request.param}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(name):
    return pytest.mark.parametrize("program", [name], indirect=True)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_short_described_and_tried_here(path):
    assert 20 <= len(path.read_text().splitlines()) <= 65
    assert len(ast.get_docstring(ast.parse(path.read_text())).splitlines()) >= 3
    assert f'@of("{path.stem}")' in Path(__file__).read_text()


@of("own_loop")
def test_own_loop_saves_the_model_it_samples_from(program, tmp_path):
    samples = program.main(2, tmp_path / "model")
    assert samples.shape == (16, 1, 16, 16) and samples.min() >= 0 and samples.max() <= 1
    opened = GaussianDiffusion.from_pretrained(tmp_path / "model")
    assert torch.equal(opened.sample(16, steps=2, seed=0), samples)
    image = program.Discs()[7]
    assert image.shape == (1, 16, 16) and image.min() == 0 and image.max() == 1


@of("own_sampler")
def test_own_sampler_is_of_second_order(program):
    first, second = program.main().values()
    assert all(before / after < 2.5 for before, after in pairwise(first))
    assert all(before / after > 3.5 for before, after in pairwise(second))


@of("own_network")
def test_own_network_sees_its_condition(program, tmp_path):
    images = program.main(2, tmp_path)
    assert images.shape == (8, 1, 16, 16)
    network = program.ConvNet(dim=8, depth=1)
    x, time = torch.zeros(2, 1, 16, 16), torch.ones(2)
    assert not torch.equal(network(x, time, torch.ones(2, 2)), network(x, time, torch.zeros(2, 2)))
    level, upright = (
        program.bar(torch.tensor(0.0), torch.tensor(1.0)),
        program.bar(torch.tensor(1.0), torch.tensor(0.0)),
    )
    torch.testing.assert_close(level, upright.mT)


@of("series")
def test_series_keep_the_units_of_the_data(program, tmp_path):
    samples, data = program.main(2, tmp_path), program.years(500)
    assert samples.shape == (256, 48, 2)
    spread = data.std(dim=(0, 1))
    assert ((samples.mean(dim=(0, 1)) - data.mean(dim=(0, 1))).abs() < spread).all()
    assert (samples.std(dim=(0, 1)) < 2 * spread).all()
    assert (samples.std(dim=(0, 1)) > spread / 4).all()


@of("policy")
def test_policy_acts_and_its_expert_arrives(program, tmp_path):
    assert 0 < program.main(2, tmp_path) < 100
    assert list_checkpoints(tmp_path)
    episodes = program.demonstrations(20)
    states = episodes.arrays["state"].reshape(20, program.LENGTH, 4)
    left = abs(states[:, :, 2:] - states[:, :, :2]).max(axis=(0, 2))
    assert (left[1:] < left[:-1]).all()


@of("diffusers_scheduler")
def test_diffusers_scheduler_visits_the_process_steps(program, tmp_path):
    images = program.main(2, tmp_path)
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    recipe = read_scheduler_config(program.CONFIG)
    times = [recipe.timestep(now) for now, _ in recipe.grid(10)]
    assert times[0] == pytest.approx(999) and times == sorted(times, reverse=True)
