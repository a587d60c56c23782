import numpy as np
import pytest
import torch

from diffusion_framework.process.noise import keyed_generator, mix, per_sample_noise


def test_the_noise_of_a_sample_depends_only_on_its_seed():
    x = torch.empty(4, 3, 5)
    batch = per_sample_noise([7, 8, 9, 7], "cpu")
    first, second = batch(x), batch(x)
    single = per_sample_noise([9], "cpu")
    assert torch.equal(single(x[:1])[0], first[2])
    assert torch.equal(single(x[:1])[0], second[2])
    assert torch.equal(first[0], first[3])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_another_number_of_seeds_than_samples_is_refused():
    with pytest.raises(ValueError, match="got 2 for 3 samples"):
        per_sample_noise([1, 2], "cpu")(torch.empty(3, 1))


def test_different_keys_give_different_and_uncorrelated_seeds():
    seeds = {mix(a, b) for a in range(-50, 50) for b in range(50)}
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**63 for seed in seeds)
    for array in (np.arange(5, dtype=np.uint64), np.array([2**63, 2**64 - 1], np.uint64)):
        assert mix(array, -3).tolist() == [mix(int(key), -3) for key in array]
        assert mix(9, array, 2**63).tolist() == [mix(9, int(key), 2**63) for key in array]
    for kind in (np.int64, np.uint8, np.uint64, torch.tensor):
        assert mix(kind(3), kind(4)) == mix(3, 4)
    assert mix(1, 2) != mix(2, 1) and mix(1) != mix(1, 0)
    draws = torch.stack(
        [torch.randn(1000, generator=keyed_generator("cpu", 0, i)) for i in range(30)]
    )
    correlations = torch.corrcoef(draws) - torch.eye(30)
    assert correlations.abs().max() < 5 / 1000**0.5
