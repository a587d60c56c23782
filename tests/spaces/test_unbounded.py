"""`Unbounded`: exact statistics in one pass, restored from a checkpoint."""

import copy
import math

import pytest
import torch

from diffusion_framework.spaces import DataSpace, Unbounded
from diffusion_framework.storage.config import from_config, to_config


def fitted(data, axis=0, batch=7):
    space = Unbounded(axis=axis)
    space.build(tuple(data.shape[1:]))
    for part in data.split(batch):
        space.observe(part, {})
    space.finish()
    return space


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_statistics_are_those_of_all_data_whatever_the_batches(axis):
    torch.manual_seed(0)
    data = torch.randn(50, 3, 5, 4, dtype=torch.float64) * 10 + torch.arange(60).reshape(3, 5, 4)
    space = fitted(data, axis)
    dims = [i for i in range(4) if axis is None or i != axis % 3 + 1]
    mean, std = data.mean(dims, keepdim=True)[0], data.std(dims, correction=0, keepdim=True)[0]
    torch.testing.assert_close(space.mean.double(), mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(space.std.double(), std, rtol=1e-7, atol=0)
    x0 = space.encode(data, {})
    assert x0.dtype == torch.float64
    torch.testing.assert_close(x0.mean(dims), torch.zeros_like(x0.mean(dims)), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        x0.std(dims, correction=0), torch.ones_like(x0.std(dims)), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(space.decode(x0, {}), data, rtol=1e-12, atol=1e-12)


def test_a_small_spread_around_a_large_mean_is_kept():
    """A sum of squares would lose it: 101325² has ten digits before the first of the spread."""
    torch.manual_seed(0)
    data = torch.randn(1000, 1, 4, dtype=torch.float64) + 101325
    space = fitted(data)
    assert float(space.std) == pytest.approx(float(data.std(correction=0)), rel=1e-7)


def test_a_constant_channel_is_moved_and_not_scaled():
    data = torch.full((4, 2, 3), 512.0)
    data[:, 0] = torch.randn(4, 3)
    space = fitted(data)
    assert space.std[1] == 1 and (space.encode(data, {})[:, 1] == 0).all()
    assert (space.decode(torch.zeros(1, 2, 3), {})[:, 1] == 512).all()


def test_samples_are_never_cut_off():
    space = Unbounded(mean=2.0, std=3.0)
    space.build((1,))
    assert space.bounds is None and not space.needs_fit
    assert space.decode(torch.tensor([[-100.0], [100.0]]), {}).tolist() == [[-298], [302]]


def test_nothing_can_be_used_before_it_was_fitted_and_a_state_dict_brings_it_back():
    space = Unbounded()
    space.build((2, 4))
    assert space.needs_fit and space.mean.isnan().all()
    with pytest.raises(
        ValueError, match="Expected statistics of the training data, got none yet. Fix: train"
    ):
        space.encode(torch.zeros(1, 2, 4), {})
    with pytest.raises(ValueError, match="Expected training data, got none. Fix: call observe"):
        space.finish()
    known = fitted(torch.randn(9, 2, 4))
    space.load_state_dict(known.state_dict())
    assert (
        not space.needs_fit
        and torch.equal(space.mean, known.mean)
        and torch.equal(space.std, known.std)
    )


def test_statistics_keep_their_precision_in_every_dtype():
    space = fitted(torch.randn(9, 2, 4) + 1000)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        moved = copy.deepcopy(space).to(dtype)
        assert moved.mean.dtype == torch.float32 and torch.equal(moved.mean, space.mean)
        x0 = moved.encode(torch.zeros(1, 2, 4, dtype=dtype), {})
        assert x0.dtype == torch.promote_types(dtype, torch.float32)
    assert space.to("meta").mean.device.type == "meta"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_with_its_sample(value):
    space = Unbounded(mean=0.0, std=1.0)
    space.build((2,))
    data = torch.zeros(4, 2)
    data[2, 1] = value
    for take in (space.encode, space.observe):
        with pytest.raises(
            ValueError,
            match=r"Expected finite data, got .* in sample 2 of the batch. Fix: remove NaN",
        ):
            take(data, {})


def test_another_device_is_not_waited_for():
    with torch.device("meta"):
        space = Unbounded()
        space.build((2, 4))
        assert space.encode(torch.empty(3, 2, 4), {}).shape == (3, 2, 4) and not space.needs_fit


def test_the_density_changes_by_the_slope():
    """A normal density of std s has log2(s sqrt(2 pi e)) bits, averaged here over 3 channels."""
    stds = [0.5, 2.0, 40.0]
    space = Unbounded(mean=[0, 1, 2], std=stds)
    space.build((3, 6, 6))
    standard = math.log2(math.sqrt(2 * math.pi * math.e))
    exact = sum(math.log2(s * math.sqrt(2 * math.pi * math.e)) for s in stds) / 3
    assert standard + space.bits_offset() == pytest.approx(exact, abs=1e-12)


def test_it_is_rebuilt_from_its_config():
    for space in (
        Unbounded(),
        Unbounded(mean=[1.0, 2.0], std=[3.0, 4.0], axis=-1),
        Unbounded(0.5, 2, axis=None),
    ):
        again = from_config(to_config(space), DataSpace)
        assert to_config(again) == to_config(space)


def test_options_are_checked():
    with pytest.raises(
        ValueError, match=r"mean and std together, got mean=0.0, std=None. Fix: give both"
    ):
        Unbounded(mean=0.0)
    with pytest.raises(ValueError, match="stds above 0, got mean=0, std=0"):
        Unbounded(mean=0, std=0)
    with pytest.raises(
        ValueError, match=r"Expected an axis of samples \(4,\), got 1. Fix: set axis=None"
    ):
        Unbounded(axis=1).build((4,))
    with pytest.raises(ValueError, match="Expected 1 or 3 numbers for mean, got 2"):
        Unbounded(mean=[1, 2], std=[1, 2]).build((3, 4))
