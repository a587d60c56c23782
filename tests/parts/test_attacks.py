"""Configs of checkpoints with sizes, names and nestings that no honest run writes."""

import copy
import json
import resource
import shutil
import time

import commands
import numpy as np
import pytest
import torch
import torchvision.models  # noqa: F401 (imported by image conditions, here beforehand)
from audit import watched
from runs import rewrite, trainer
from toys import tiny_diffusion

from diffusion_framework.cli.common import one_line_errors
from diffusion_framework.data import TrainingDataset
from diffusion_framework.editing import interpolate, invert
from diffusion_framework.evaluation import bits_per_dim
from diffusion_framework.parts import plan
from diffusion_framework.parts.type_checks import TypeCheckError
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = tmp_path_factory.mktemp("attacked") / "run"
    images = [torch.rand(1, 8, 8) for _ in range(4)]
    trainer(images, results, train_num_steps=1, save_and_sample_every=1).train()
    commands.sample([str(results), "--steps=1", f"--output={results}-out", "--progress=false"])
    return results


def part(name, **options):
    return {"class_path": name, "init_args": options}


UNET = part("UNet", dim=8, dim_mults=[1], blocks=1, image_size=8, channels=1)
VECTORS, OBSERVED = part("Vectors", dim=3), {"images": {"a": 3}}
MANY = {f"c{i}": VECTORS for i in range(200)}
CHANGES = [
    *({"sample_shape": s} for s in ([10**9, 10**9], [0, 8, 8], [-1, 8, 8], [1] * 500, [], [2**31])),
    {"image_size": 10**6},
    {"image_size": [10**9, 10**9]},
    {"image_size": [8] * 5},
    {"timesteps": 10**9},
    {"noise_schedule": part("Betas", betas=[0.1] * 50_000)},
    {"noise_schedule": part("Scaled", schedule=part("Scaled", schedule="Cosine", scale=1e308))},
    {"noise_schedule": "edm", "schedule_kwargs": {"rho": 1e-300}},
    {"schedule_kwargs": {"self": 1.0, "__class__": 2.0}},
    {"times": part("LossAware", steps=1, history=10**12)},
    {"conditions": MANY},
    {"conditions": {"__class__": VECTORS}},
    {"conditions": {"labels": part("Labels", classes=10**12)}},
    {"conditions": {"o": part("Observations", **OBSERVED, backbone="torch.hub.load")}},
    {"conditions": {"o": part("Observations", **OBSERVED, keypoints=10**9)}},
    {"space": part("LatentSpace", autoencoder=part("GaussianDiffusion", model=UNET))},
    {"space": part("Unbounded", mean=[0.0] * 20_000)},
    {"space": part("ImageSpace", bins=-5)},
    {"model": "torch.nn.Linear.forward.__globals__"},
    {"model": "diffusion_framework.models.unet.UNet.__init__.__globals__"},
    {"model": "diffusion_framework.diffusion.torch.load"},
    {"model": "\uff35\uff2e\uff45\uff54"},
    {"model": "UNet\u200b"},
    {"model": "." * 300},
    {"model": part("GaussianDiffusion", model=UNET)},
    {"model": ["UNet"]},
    {"model": {**UNET, "extra": 1}},
    {"model": {"class_path": {"class_path": "UNet"}}},
    {"model": part("UNet", **{**UNET["init_args"], "dim": 2**40})},
    {"model": part("ResidualMLP", depth=10**9)},
    {"model": part("UNet1D", horizon=10**9)},
    {"model": part("DiT", image_size=2**30, patch_size=1)},
    {"model": part("RIN", num_latents=10**12)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change)[:60])
def test_a_strange_config_is_refused_quickly_in_one_line(change, run, tmp_path, capsys):
    checkpoint = list_checkpoints(shutil.copytree(run, tmp_path / "run"))[-1]
    config = copy.deepcopy(Checkpoint.open(checkpoint).config)
    arguments = config["diffusion"]["init_args"]
    if "image_size" in change:
        arguments["model"]["init_args"].update(change)
    else:
        arguments.update(change)
    rewrite(checkpoint, "config.yaml", json.dumps(config).encode())
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with watched() as seen, pytest.raises(SystemExit) as end:
        commands.sample([str(tmp_path / "run"), f"--output={tmp_path / 'out'}", "--progress=false"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert "Fix: " in error and len(error) < 1600
    assert not seen
    assert not (tmp_path / "out").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.perf_counter() - began < 60


DATA = [
    part("Shards", shards="a-{000000000..999999999}.tar"),
    part("Shards", shards="a-{0..9999}{0..9999}{0..9999}.tar"),
    part("Shards", shards="a-{" + "{0..9999}," * 200 + "b}.tar"),
    part("Digits", image_size=10**6),
    part("Digits", channels=10**12),
    part("ForkDemonstrations", episodes=10**9),
    part("ForkDemonstrations", episodes=-1),
    part("ForkDemonstrations", horizon=10**12),
]


@pytest.mark.parametrize("described", DATA, ids=lambda described: str(described)[:70])
def test_strange_data_are_refused_before_memory_is_taken(described):
    pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        watched() as seen,
        pytest.raises((ValueError, OSError), match=r"\A[^\n]*[Ee]xpected [^\n]*Fix: [^\n]*\Z"),
    ):
        plan(described, TrainingDataset).build()
    assert not seen
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    "cause",
    [
        lambda: torch.empty(2**60),
        lambda: np.ones((2**45,)),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB")),
    ],
)
def test_too_little_memory_is_said_in_one_line(cause, capsys):
    with pytest.raises(SystemExit) as end, one_line_errors("sample.py", []):
        cause()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: Expected enough memory, got an error") and "Fix: " in error


def test_other_errors_of_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="bug"), one_line_errors("sample.py", []):
        raise RuntimeError("bug")


def test_long_errors_keep_their_beginning_and_their_remedy(capsys):
    with pytest.raises(SystemExit), one_line_errors("sample.py", []):
        raise ValueError(f"Expected a, got {'b' * 10**5}. Fix: give c.")
    error = capsys.readouterr().err
    assert len(error) < 1600 and error.startswith("error: Expected a, got bb")
    assert error.endswith("bb. Fix: give c.\n")


@pytest.mark.parametrize("value", [np.zeros((2, 1, 8, 8), np.float32), [[1]], "a", None])
def test_data_of_another_type_is_refused_in_one_line(value):
    with pytest.raises(TypeCheckError, match=r"\AExpected data as Shaped\[[^\n]*Fix: [^\n]*\Z"):
        tiny_diffusion()(value)


def test_functions_of_a_diffusion_take_arrays_and_refuse_words():
    diffusion, images = tiny_diffusion(), np.random.default_rng(0).random((2, 1, 8, 8))
    images = (images * 255).round().astype(np.float32) / 255
    options = {"steps": 2, "sampler": "ddim"}
    expected = invert(diffusion, torch.from_numpy(images), **options)
    assert torch.equal(invert(diffusion, images, **options), expected)
    bits = [bits_per_dim(diffusion, data, seed=0).total for data in (images, torch.tensor(images))]
    assert torch.equal(*bits)
    for call in (
        lambda: invert(diffusion, "a"),
        lambda: interpolate(diffusion, "a", "b"),
        lambda: bits_per_dim(diffusion, "a"),
        lambda: diffusion.sample(1, start=torch.zeros(1, 1, 8, 8), strength="a"),
        lambda: diffusion.sample(1, start=torch.zeros(1, 1, 8, 8), strength=None),
    ):
        with pytest.raises(ValueError, match=r"\AExpected [^\n]*, got [^\n]* Fix: [^\n]*\Z"):
            call()
