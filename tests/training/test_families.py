"""Every published family trains from its config, and every sampler samples from it."""

import inspect
from pathlib import Path

import pytest
import torch
from toys import QUIET, tiny_diffusion

from diffusion_framework import GaussianDiffusion, Trainer, samplers
from diffusion_framework.data import Digits
from diffusion_framework.losses import LossAware, Stratified
from diffusion_framework.parts import read_yaml
from diffusion_framework.samplers import Sampler
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.config import from_config
from diffusion_framework.training import Previews

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ["ddpm", "improved_ddpm", "edm", "flow", "ve_sde"]
SMALL = {
    "dim": 8,
    "dim_mults": [1, 2],
    "blocks": 1,
    "channels": 1,
    "image_size": 8,
    "heads": 1,
    "dim_head": 8,
}
RUN = {
    "train_batch_size": 8,
    "save_and_sample_every": 3,
    "num_samples": 4,
    "previews": Previews(sampling_steps=2),
}
SAMPLERS = [
    sampler()
    for sampler in vars(samplers).values()
    if inspect.isclass(sampler) and issubclass(sampler, Sampler) and not inspect.isabstract(sampler)
]


def trained(diffusion, results, steps, resume=False):
    torch.manual_seed(0)
    options = {**RUN, "results_folder": results, "ema_update_every": 1, **QUIET}
    Trainer(diffusion, Digits(), train_num_steps=steps, **options).train(resume=resume)
    return Checkpoint.find(results)


def family_config(family):
    return read_yaml((ROOT / "configs" / f"{family}.yaml").read_bytes(), family)["diffusion"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family, tmp_path):
    config = family_config(family)
    config["init_args"]["model"]["init_args"].update(SMALL, attention_levels=[1])
    torch.manual_seed(0)
    diffusion = from_config(config, GaussianDiffusion)
    before = {name: value.clone() for name, value in diffusion.state_dict().items()}
    after = trained(diffusion, tmp_path / "run", 3).tensors("model")
    assert sum(not torch.equal(after[name], before[name]) for name in before) > len(before) / 2
    again = GaussianDiffusion.from_pretrained(tmp_path / "run")
    parts = ["schedule", "objective", "loss", "loss_weight", "times", "preconditioning"]
    assert all(getattr(again, part) == getattr(diffusion, part) for part in parts)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_sampler_samples_from_every_family(sampler):
    for family in FAMILIES:
        config = family_config(family)
        config["init_args"].update(
            model={"class_path": "toys.Plain", "init_args": {}}, loss="simple"
        )
        diffusion = from_config(config, GaussianDiffusion, trust=("toys",))
        images = diffusion.sample(2, sampler=sampler, steps=4, seed=0, show_progress=False)
        assert images.isfinite().all() and images.std() > 0, family


def test_a_resumed_run_remembers_its_losses(tmp_path):
    times = LossAware(4, history=2)

    def model():
        torch.manual_seed(0)
        return tiny_diffusion(times=Stratified(times))

    whole = trained(model(), tmp_path / "whole", 9)
    trained(model(), tmp_path / "cut", 6)
    resumed = trained(model(), tmp_path / "cut", 9, resume=True)
    for name in ("model", "ema", "optimizer"):
        one, two = whole.tensors(name), resumed.tensors(name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    shares = times.probabilities(whole.tensors("model")["time_memory"])
    assert not torch.allclose(shares, torch.full_like(shares, 0.25)), (
        "the losses have come to matter"
    )
