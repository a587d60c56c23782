import collections

import pytest
import torch
from torch import nn
from toys import tiny_unet

from diffusion_framework import UNet
from diffusion_framework.models.layers import ResBlock


def randomised(unet: UNet) -> UNet:
    """Draws all weights at random, so that no zero initialisation hides an effect."""
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    return unet


def inputs(unet, batch=2):
    x = torch.randn(batch, unet.channels, *unet.image_size)
    return x, torch.rand(batch)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("image_size", [8, (8, 12), (16, 4)])
def test_output_is_shaped_like_the_input_and_starts_at_zero(channels, image_size):
    unet = tiny_unet(channels=channels, image_size=image_size)
    x, time = inputs(unet)
    out = unet(x, time)
    assert out.shape == x.shape
    assert torch.equal(out, torch.zeros_like(x))


def test_learned_variance_doubles_the_channels():
    unet = tiny_unet(channels=3, learned_variance=True)
    x, time = inputs(unet)
    assert unet(x, time).shape == (2, 6, 8, 8)


def test_every_input_and_every_parameter_affects_the_output():
    unet = randomised(tiny_unet(num_classes=3, attention_levels=(0, 1)))
    x, time = inputs(unet)
    labels = torch.tensor([0, 2])
    out = unet(x, time, x, labels)
    assert not torch.allclose(out, unet(x + 0.1, time, x, labels))
    assert not torch.allclose(out, unet(x, time / 2, x, labels))
    assert not torch.allclose(out, unet(x, time, None, labels))
    assert not torch.allclose(out, unet(x, time, x, labels.flip(0)))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unet.parameters())


def test_samples_of_a_batch_do_not_affect_each_other():
    unet = randomised(tiny_unet())
    x, time = inputs(unet, batch=5)
    torch.testing.assert_close(unet(x, time)[1:3], unet(x[1:3], time[1:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [(0,), (-1,), (0, 1)])
def test_gradient_checkpointing_leaves_gradients_unchanged(levels):
    plain = randomised(tiny_unet())
    checkpointed = tiny_unet(checkpointed_levels=levels)
    checkpointed.load_state_dict(plain.state_dict())
    x, time = inputs(plain)
    calls = collections.Counter()
    for name, module in checkpointed.named_modules():
        if isinstance(module, ResBlock):
            module.register_forward_pre_hook(
                lambda module, args, name=name: calls.update([(name, args[0].shape[-1])])
            )
    for unet in (plain, checkpointed):
        unet(x, time).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    sides = {x.shape[-1] >> level % 2 for level in levels}
    assert all(
        times == (2 if side in sides and name != "middle_out" else 1)
        for (name, side), times in calls.items()
    )


def test_compiles_without_graph_breaks():
    unet = randomised(tiny_unet(attention_levels=(0, 1), num_classes=2))
    x, time = inputs(unet)
    compiled = torch.compile(unet, fullgraph=True, backend="aot_eager")  # raises at a graph break
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(compiled(x, time, x, labels), unet(x, time, x, labels))


@pytest.mark.parametrize(("num_classes", "labels"), [(None, torch.tensor([0, 1])), (3, None)])
def test_labels_without_classes_and_classes_without_labels_are_refused(num_classes, labels):
    unet = tiny_unet(num_classes=num_classes)
    with pytest.raises(ValueError, match="give both or neither"):
        unet(*inputs(unet), labels=labels)


def test_attention_gives_fused_kernels_contiguous_channels(monkeypatch):
    seen = []
    attend = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *qkv: seen.extend(qkv) or attend(*qkv)
    )
    unet = tiny_unet().to(memory_format=torch.channels_last)
    unet(*inputs(unet))
    assert seen and all(tensor.stride(-1) == 1 for tensor in seen)


def test_channels_last_leaves_outputs_unchanged():
    unet = randomised(tiny_unet())
    x, time = inputs(unet)
    expected = unet(x, time)
    unet = unet.to(memory_format=torch.channels_last)
    out = unet(x.to(memory_format=torch.channels_last), time)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_bf16_autocast_stays_close_to_float32():
    unet = randomised(tiny_unet(dim=16))
    x, time = inputs(unet)
    expected = unet(x, time)
    with torch.autocast("cpu", torch.bfloat16):
        out = unet(x, time)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


def test_dropout_is_active_only_while_training():
    unet = randomised(tiny_unet(dropout=0.5))
    x, time = inputs(unet)
    assert not torch.equal(unet(x, time), unet(x, time))
    unet.eval()
    assert torch.equal(unet(x, time), unet(x, time))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 9}, r"divisible by 2.*got \(9, 9\)"),
        (
            {"image_size": (8, 10), "dim_mults": (1, 2, 4)},
            r"divisible by 4.*got \(8, 10\).*fewer dim_mults",
        ),
        ({"image_size": 0}, "divisible"),
        ({"dim": 7}, "even dim.*dim=7"),
        ({"dim_mults": ()}, "at least one"),
        ({"attention_levels": (2,)}, r"\[-2, 1\], got \[2\]"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_unet(**options)
