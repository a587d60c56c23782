"""Losses by noise level, and their means over validation data."""

import csv
import math

import pytest
import torch
from toys import tiny_diffusion

from diffusion_framework import Trainer
from diffusion_framework.losses import LEVEL_NAMES, SampledLevels, losses_by_level
from diffusion_framework.process.noise import keyed_generator, mix


def test_each_loss_is_in_the_bin_of_its_level():
    log_snr = torch.tensor([-20.0, -9.0, -1.0, 0.0, 2.9, 30.0])
    found = losses_by_level(torch.arange(6.0), log_snr)
    assert {name: losses.tolist() for name, losses in found.items() if len(losses)} == {
        "loss_log_snr_below_-9": [0],
        "loss_log_snr_-9_-6": [1],
        "loss_log_snr_-3_0": [2],
        "loss_log_snr_0_3": [3, 4],
        "loss_log_snr_9_up": [5],
    }
    assert tuple(found) == LEVEL_NAMES


def test_importance_weights_multiply_losses():
    losses = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert SampledLevels(None).weighted(losses) is losses
    weighted = SampledLevels(None, torch.tensor([0.5, 3.0])).weighted(losses)
    assert weighted.tolist() == [0.5, 6.0] and weighted.dtype == torch.float64


@pytest.mark.parametrize("times", ["uniform", "loss_aware"])
def test_the_mean_over_all_levels_is_the_training_loss(times):
    diffusion = tiny_diffusion(times=times, timesteps=20).eval()
    images = torch.rand(64, *diffusion.sample_shape)
    metrics = diffusion.validation_metrics(images, generator=keyed_generator("cpu", 3))
    whole = diffusion(images, generator=keyed_generator("cpu", 3), self_condition_draw=0.0)
    assert metrics["validation_loss"].mean().item() == pytest.approx(whole.item(), rel=1e-6)
    if times == "uniform":
        by_level = torch.cat([metrics[name] for name in LEVEL_NAMES])
        assert by_level.mean().item() == pytest.approx(whole.item(), rel=1e-6)
        assert sum(len(metrics[name]) > 0 for name in LEVEL_NAMES) > 3


def test_validation_averages_each_level_over_its_own_samples(tmp_path):
    diffusion = tiny_diffusion().eval()
    images = torch.rand(30, *diffusion.sample_shape)
    options = {"train_num_steps": 1, "train_batch_size": 4, "save_and_sample_every": 1}
    trainer = Trainer(
        diffusion, images, validation=images, results_folder=tmp_path, num_samples=1, **options
    )
    trainer.train()
    with open(tmp_path / "validation.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    # The same batches of 4, by hand.
    losses = {name: [] for name in ("validation_loss", *LEVEL_NAMES)}
    for first in range(0, 30, 4):
        generator = keyed_generator("cpu", mix(0, first), 0)
        metrics = trainer.averaged.eval().validation_metrics(
            images[first : first + 4], generator=generator
        )
        for name, values in metrics.items():
            losses[name] += values.tolist()
    for name, values in losses.items():
        mean = sum(values) / len(values) if values else math.nan
        assert float(row[name]) == pytest.approx(mean, rel=1e-4, nan_ok=True), name
