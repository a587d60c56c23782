"""The script that compares kinds of guidance on an exact mixture."""

import guidance_mixture
import torch
from guidance_mixture import BLUR, WEAKER_BLUR, diffusion, energy_distance, kinds, measure

from diffusion_framework import Heun


def test_an_interval_and_autoguidance_come_nearer_to_the_truth_than_plain_guidance():
    model, generator = diffusion(BLUR), torch.Generator().manual_seed(0)
    truth, fresh = (model.model.draw(500, 0, generator) for _ in range(2))
    found = {}
    for name, guidance in kinds(diffusion(WEAKER_BLUR)).items():
        if name in ("classifier-free, 4", "interval, 4", "autoguidance, 4"):
            options = {"guidance": guidance, "sampler": Heun(), "steps": 12, "seed": 0}
            samples = model.sample(500, labels=0, show_progress=False, **options)
            found[name] = measure(samples, truth, fresh)
    plain, interval, auto = found.values()
    for distance, _, missed in (interval, auto):
        assert distance < plain[0] / 10 and missed < plain[2] / 2
    assert auto[1] < plain[1] / 2, "autoguidance has fewer outliers"


def test_the_networks_of_the_script_are_exact():
    """The clean data is the mean of the truth, given noisy samples near x."""
    network, generator = guidance_mixture.Trees(0.0), torch.Generator().manual_seed(0)
    clean = network.draw(400_000, 1, generator)
    sigma, x = 0.2, torch.tensor([[-0.4, 0.8]], dtype=torch.float64)
    weights = (-0.5 * (clean - x).square().sum(1) / sigma**2).softmax(0)
    expected = weights @ clean
    found = network(x, torch.tensor([sigma]), torch.tensor([1]))[0]
    torch.testing.assert_close(found, expected, rtol=0.0, atol=3e-3)
    assert abs(energy_distance(clean[:2000], clean[2000:4000])) < 2e-3
