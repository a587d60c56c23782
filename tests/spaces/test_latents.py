"""`LatentSpace`: its autoencoder is never trained, stays in evaluation mode, is never copied."""

import copy

import pytest
import torch
from torch import nn

from diffusion_framework.spaces import LatentSpace, Unbounded


class Folding(nn.Module):
    """An exact autoencoder: each 2 x 2 block of pixels becomes four channels.

    Outside evaluation mode, its dropout would change the latents.
    """

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(4.0, dtype=dtype))
        self.dropout = nn.Dropout(0.9)

    def encode(self, images):
        return self.dropout(nn.functional.pixel_unshuffle(images, 2) * self.factor)

    def decode(self, latents):
        return nn.functional.pixel_shuffle(latents / self.factor, 2)


def fitted(images, **options):
    space = LatentSpace(Folding(**options))
    space.build((4, 3, 3))
    for part in images.split(4):
        space.observe(space.prepare(part), {})
    space.finish()
    return space


def test_images_go_through_and_come_back():
    images = torch.rand(10, 1, 6, 6)
    space = fitted(images)
    latents = space.prepare(images)
    x0 = space.encode(latents, {})
    assert (
        x0.shape == (10, 4, 3, 3)
        and space.bounds is None
        and space.bins is None
        and space.sigma_data == 1
    )
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(x0.std((0, 2, 3), correction=0), torch.ones(4))
    torch.testing.assert_close(space.decode(x0, {}), images)
    assert space.decode(100 * x0, {}).aminmax() == (0, 1)  # images are clipped, latents are not


def test_it_stays_in_evaluation_mode_without_gradients():
    images = torch.rand(4, 1, 6, 6)
    space = fitted(images)
    space.train()
    assert space.training and not any(m.training for m in space.autoencoder.modules())
    assert torch.equal(space.prepare(images), space.prepare(images))
    assert not any(p.requires_grad for p in space.parameters())
    assert not space.prepare(images.requires_grad_()).requires_grad
    x0 = torch.randn(2, 4, 3, 3, requires_grad=True)
    space.decode(x0, {}).sum().backward()  # guidance in pixels needs this gradient
    assert x0.grad.abs().max() > 0


def test_copies_share_the_autoencoder_and_nothing_else():
    space = fitted(torch.rand(4, 1, 6, 6))
    model = nn.ModuleDict({"space": space})
    copied = copy.deepcopy(model)["space"]
    assert copied.autoencoder is space.autoencoder
    assert copied.statistics is not space.statistics
    assert copied.statistics.mean.data_ptr() != space.statistics.mean.data_ptr()
    assert all(
        v is not space.autoencoder or k == "autoencoder" for k, v in copied._init_args.items()
    )
    assert copied._init_args["autoencoder"] is space.autoencoder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_autoencoder_of_another_dtype_is_fed_in_its_own(dtype):
    space = fitted(torch.rand(4, 1, 6, 6), dtype=dtype)
    latents = space.prepare(torch.rand(4, 1, 6, 6))
    assert latents.dtype == torch.promote_types(dtype, torch.float32)
    assert space.decode(space.encode(latents, {}), {}).shape == (4, 1, 6, 6)


def test_images_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"data in \[0, 1\], got .* in sample 0"):
        LatentSpace(Folding()).prepare(torch.full((1, 1, 6, 6), 255.0))


def test_a_latent_counts_where_all_its_pixels_do():
    space = LatentSpace(Folding())
    mask = torch.ones(2, 3, 6, 6, dtype=torch.bool)
    mask[0, 1, 2, 3] = False
    latent = space.prepare_mask(mask, (4, 3, 3))
    expected = torch.ones(2, 4, 3, 3, dtype=torch.bool)
    expected[0, :, 1, 1] = False
    assert torch.equal(latent, expected)
    assert torch.equal(space.prepare_mask(mask[:, 0, 0, 0], (4, 3, 3)), mask[:, 0, 0, 0])
    with pytest.raises(
        ValueError, match=r"Expected a mask \[batch\] or .*, got \[2, 6, 6\]. Fix: expand"
    ):
        space.prepare_mask(mask[:, 0], (4, 3, 3))


def test_another_device_is_not_waited_for():
    with torch.device("meta"):
        space = LatentSpace(Folding())
        space.build((4, 3, 3))
        latents = space.prepare(torch.empty(2, 1, 6, 6))
        assert space.decode(space.encode(latents, {}), {}).shape == (2, 1, 6, 6)


def test_an_autoencoder_that_returns_no_tensor_is_named():
    autoencoder = Folding()
    autoencoder.encode = lambda images: (images,)
    with pytest.raises(
        ValueError, match="Expected a tensor from the autoencoder.*got tuple. Fix: wrap it"
    ):
        LatentSpace(autoencoder).prepare(torch.rand(1, 1, 6, 6))


def test_pixels_have_no_density_through_an_autoencoder():
    with pytest.raises(ValueError, match="Expected a data space with a density, got LatentSpace"):
        LatentSpace(Folding(), Unbounded(mean=0.0, std=1.0)).bits_offset()
