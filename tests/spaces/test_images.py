"""`ImageSpace`: all 8-bit and 16-bit values are recovered, values out of range refused."""

import math

import pytest
import torch

from diffusion_framework.spaces import ImageSpace

EVERY = {torch.uint8: 256, torch.uint16: 65536}


@pytest.mark.parametrize(("dtype", "count"), EVERY.items(), ids=str)
def test_every_integer_comes_back(dtype, count):
    numbers = torch.arange(count)
    space = ImageSpace()
    for data in (numbers.to(dtype), numbers / (count - 1), numbers.double() / (count - 1)):
        x0 = space.encode(data[:, None], {})
        expected = numbers.double() / ((count - 1) / 2) - 1
        assert (x0[:, 0] - expected).abs().max() <= 2**-23  # rounding error of float32 near 1
        decoded = space.decode(x0, {})[:, 0]
        assert torch.equal((decoded * (count - 1)).round().long(), numbers)
        assert decoded.dtype == (torch.float64 if data.dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.uint16])
def test_a_value_range_holds_for_every_type(dtype):
    space = ImageSpace(value_range=(0, 4095), bins=4096)
    numbers = torch.arange(4096)
    x0 = space.encode(numbers.to(dtype)[:, None], {})
    assert x0[0] == -1 and x0[-1] == 1
    assert torch.equal(space.decode(x0, {}).round().long()[:, 0], numbers)


def test_samples_are_cut_off_at_the_ends_and_nowhere_else():
    space = ImageSpace(value_range=(270.0, 310.0), bins=None)
    x0 = torch.tensor([[-1.5, -1.0, 0.0, 1.0, 3.0]])
    assert space.decode(x0, {}).tolist() == [[270, 270, 290, 310, 310]]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda x: x * 255, "0 to 255"),
        (lambda x: x * 2 - 1, "-1 to 1"),
        (lambda x: torch.full_like(x, math.nan), "nan to nan"),
    ],
)
def test_data_out_of_range_is_refused_with_its_sample(wrong, found):
    images = torch.linspace(0, 1, 4).reshape(1, 1, 2, 2).repeat(5, 1, 1, 1)
    images[3] = wrong(images[3])
    message = rf"Expected data in \[0, 1\], got {found} in sample 3 of.*--data.value_range"
    with pytest.raises(ValueError, match=message) as error:
        ImageSpace().encode(images, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.bool])
def test_integers_without_a_range_of_their_own_need_one(dtype):
    data = torch.zeros(2, 3, dtype=dtype)
    with pytest.raises(
        ValueError,
        match=r"got torch\.\w+\. Fix: .*value_range=\(lo, hi\), --data\.value_range lo,hi",
    ):
        ImageSpace().encode(data, {})
    assert (ImageSpace(value_range=(0, 1)).encode(data, {}) == -1).all()


def test_integers_beyond_the_value_range_are_refused():
    data = torch.tensor([[0, 4095], [0, 4096]])
    with pytest.raises(
        ValueError, match=r"Expected data in \[0, 4095\], got 0 to 4096 in sample 1"
    ):
        ImageSpace(value_range=(0, 4095)).encode(data, {})


def test_rounding_is_not_out_of_range():
    data = torch.tensor([[-1e-7, 1 + 1e-6]])
    assert ImageSpace().encode(data, {}).abs().max() < 1 + 1e-5


def test_another_device_is_not_waited_for():
    """Reading a value on the meta device, which stores none, would fail."""
    with torch.device("meta"):
        for dtype in (torch.uint8, torch.uint16, torch.float16, torch.float64):
            x0 = ImageSpace().encode(torch.empty(3, 1, 4, 4, dtype=dtype), {})
            assert x0.shape == (3, 1, 4, 4) and x0.device.type == "meta"
            assert ImageSpace().decode(x0, {}).shape == x0.shape


def test_the_density_changes_by_the_slope():
    """Uniform data on [lo, hi] has log2(hi - lo) bits; uniform x0 on [-1, 1] has 1."""
    for low, high in [(0.0, 1.0), (-1.0, 1.0), (270.0, 310.0)]:
        assert 1 + ImageSpace((low, high)).bits_offset() == pytest.approx(
            math.log2(high - low), abs=1e-12
        )
    assert ImageSpace().bits_offset() == -1


def test_pictures_lie_in_0_1():
    image = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    shown = ImageSpace(value_range=(-1, 1)).pictures(image)
    assert shown.flatten().tolist() == [0, 0.5, 1, 1]
    assert ImageSpace().pictures(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).eq(1).all()
    for channels, some in ((2, 1), (7, 3)):
        images = torch.rand(1, channels, 2, 2)
        assert torch.equal(ImageSpace().pictures(images), images[:, :some])
    assert ImageSpace().pictures(torch.zeros(1, 8, 2)) is None


def test_options_are_checked():
    with pytest.raises(ValueError, match="Expected value_range to rise, got 1, 0"):
        ImageSpace(value_range=(1, 0))
    with pytest.raises(ValueError, match="at least 2 bins, got 1"):
        ImageSpace(bins=1)
