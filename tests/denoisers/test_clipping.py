import numpy as np
import pytest
import torch
from oracles import MixtureOracle

from diffusion_framework import Sigmoid
from diffusion_framework.denoisers import Clip, Threshold, TransformX0, clipped


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.95, 0.995, 1.0])
def test_dynamic_thresholding_is_its_definition(ratio):
    x0 = torch.randn(6, 3, 7, 5) * torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 9.0]).reshape(6, 1, 1, 1)
    found = Threshold(ratio, maximum=4.0)(x0)
    for sample, mine in zip(x0, found, strict=True):
        limit = torch.quantile(sample.abs().flatten(), ratio).clamp(1, 4)
        torch.testing.assert_close(mine, sample.clamp(-limit, limit) / limit)
    assert found.abs().max() <= 1
    assert torch.equal(found[:1], x0[:1])  # already in range


def test_dynamic_thresholding_takes_images_that_quantile_does_not():
    x0 = torch.full((1, 3, 2400, 2400), 2.0)  # more than 2^24 numbers
    assert torch.equal(Threshold()(x0), torch.ones_like(x0))


@pytest.mark.parametrize("change", [Clip(), Clip(-0.2, 0.2), Threshold(0.9), torch.tanh])
def test_changed_clean_data_and_its_noise_still_make_up_x(change):
    oracle = MixtureOracle(means=(-1.5, 2.0))
    at = Sigmoid().at(0.4)
    x = 2 * torch.randn(4, 50, dtype=torch.float64)
    found, before = TransformX0(oracle, change)(x, at), oracle(x, at)
    assert torch.equal(found.x0, change(before.x0)) and not torch.allclose(found.x0, before.x0)
    torch.testing.assert_close(at.alpha * found.x0 + at.sigma * found.eps, x)


@pytest.mark.parametrize(
    "make", [lambda: Threshold(1.5), lambda: Threshold(maximum=0.5), lambda: Clip(0.5, 0.5)]
)
def test_bad_options(make):
    with pytest.raises(ValueError, match="got"):
        make()


def test_switches_of_any_type():
    oracle = MixtureOracle(means=(-1.5, 2.0))
    for off in (False, 0, np.False_):
        assert clipped(oracle, off, (-1.0, 1.0)) is oracle
    for on in (True, 1, np.True_, None):
        assert clipped(oracle, on, (-1.0, 1.0)) is not oracle
