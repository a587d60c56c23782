"""`NetworkSignature` reads and checks the inputs and outputs of networks."""

import pytest
import torch
from torch import nn
from toys import Plain, SelfConditioned, tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import RIN, GaussianDiffusion
from diffusion_framework.conditions import Labels, Vectors
from diffusion_framework.denoisers import NetworkSignature
from diffusion_framework.spaces import Unbounded


class Net(nn.Module):
    """A network whose `forward` each test defines."""

    sample_shape = (3, 4)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


def network(forward, **attributes):
    cls = type("Own", (Net,), {"forward": forward, **attributes})
    return cls()


def test_it_reads_the_built_in_networks():
    unet = NetworkSignature.of(tiny_unet(num_classes=3, learned_variance=True))
    assert (unet.estimate, unet.latents, unet.num_classes) == ("self_cond", None, 3)
    assert unet.learned_variance and unet.sample_shape == (1, 8, 8) and unet.takes("labels")
    assert NetworkSignature.of(tiny_unet(self_condition=False)).estimate is None
    rin = NetworkSignature.of(tiny_rin())
    assert (rin.estimate, rin.latents, rin.second_time) == ("self_cond", "latents", False)


def test_it_reads_the_names_of_the_original():
    def forward(self, x, t, x_self_cond=None, latent_self_cond=None, return_latents=False):
        self.seen = (x_self_cond, latent_self_cond)
        out = x * self.weight
        return (out, torch.ones(len(x), 2)) if return_latents else out

    own = network(forward)
    signature = NetworkSignature.of(own)
    assert (signature.estimate, signature.latents) == ("x_self_cond", "latent_self_cond")
    denoise = GaussianDiffusion(own).denoiser()
    at = denoise.schedule.at(0.5)
    first = denoise(torch.randn(2, 3, 4), at)
    assert own.seen[1] is None and not own.seen[0].any(), "an absent estimate is zeros"
    denoise(torch.randn(2, 3, 4), at)
    assert torch.equal(own.seen[0], first.x0.clamp(-1, 1)) and own.seen[1].shape == (2, 2)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_networks_get_what_they_take(wrap):
    """The wrappers of PyTorch take any arguments, which hides those of the network."""
    own = SelfConditioned()
    wrapped = NetworkSignature.of(wrap(own))
    assert wrapped == NetworkSignature.of(own) and wrapped.estimate == "self_cond"


def test_sample_shape_is_an_argument_an_attribute_or_that_of_images():
    assert NetworkSignature.of(Plain(channels=2, image_size=5)).sample_shape == (2, 5, 5)
    assert NetworkSignature.of(Plain(), sample_shape=[7]).sample_shape == (7,)
    assert GaussianDiffusion(Plain(), sample_shape=(1, 6, 6)).sample(2, steps=1).shape == (
        2,
        1,
        6,
        6,
    )


@pytest.mark.parametrize("wrap", [lambda y: (y,), lambda y: type("Output", (), {"sample": y})()])
def test_a_tuple_of_one_and_an_output_object_are_unwrapped(wrap):
    own = network(lambda self, x, time: wrap(x * self.weight))
    assert torch.isfinite(GaussianDiffusion(own)(torch.rand(2, 3, 4)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: network(lambda self, x: x),
            r"forward\(x, time, ...\) in Own, got the arguments \['x'\]",
        ),
        (
            lambda: network(lambda self, x, time: x, sample_shape=None),
            r"a network with `sample_shape`.*got Own.*sample_shape=\(3, 64, 64\)",
        ),
        (lambda: network(lambda self, x, time, style: x), "requires, got none for style"),
        (
            lambda: network(lambda self, x, *, time: x),
            r"Expected forward\(x, time, ...\) in Own, got the arguments \['x', 'time'\]",
        ),
        (lambda: GaussianDiffusion(Plain()), r"Expected forward\(x, time, ...\) in Gaussian"),
        (lambda: Plain, "a torch.nn.Module, got the class Plain. Fix: give an object"),
        (lambda: lambda x, time: x, "a torch.nn.Module, got <function"),
        (
            lambda: network(lambda self, x, time: (x, x)),
            "a tensor from Own, got tuple. Fix: let forward return the output alone",
        ),
        (lambda: network(lambda self, x, time: x[:, :1]), r"\[2, 3, 4\] from Own, got \[2, 1, 4\]"),
        (
            lambda: network(lambda self, x, time: torch.cat([x, x], 1)),
            r"got \[2, 6, 4\]. Fix: set its attribute learned_variance = True",
        ),
        (
            lambda: network(lambda self, x, time, latents=None, return_latents=False: x),
            r"\(output, latents\) from Own with return_latents=True, got Tensor",
        ),
        (
            lambda: network(lambda self, x, time, latent_self_cond=None: x),
            "return_latents beside latent_self_cond in Own",
        ),
        (lambda: network(lambda self, x, time: x.long()), "real numbers from Own, got torch.int64"),
        (lambda: network(lambda self, x, time: 1j * x), "real numbers from Own, got torch.complex"),
        (lambda: network(lambda self, x, time: x.relu_()), "Own to leave its inputs as they are"),
        (lambda: network(lambda self, x, time, y=None: x, num_classes=3), "argument labels of Own"),
        (lambda: network(lambda self, x, time: {"sample": x}), "a tensor from Own, got dict"),
        (lambda: network(lambda self, x, time: None), "a tensor from Own, got NoneType"),
        (lambda: network(lambda self, x, time: x.movedim(1, 2)), r"Own, got \[2, 4, 3\]"),
        (
            lambda: network(lambda self, x, time: x, learned_variance=True),
            r"\[2, 6, 4\] from Own, got \[2, 3, 4\]",
        ),
    ],
)
def test_what_a_network_may_not_do_is_said_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        GaussianDiffusion(build())(torch.rand(2, 3, 4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [tiny_unet, tiny_dit, tiny_rin])
def test_networks_of_images_refuse_volumes(make):
    """3-D networks are written by users."""
    for size in ((8, 8, 8), (8,), "8", 8.0):
        with pytest.raises(ValueError, match=r"one integer or \(height, width\), got .* your own"):
            make(image_size=size)


def test_a_network_of_volumes_trains_and_samples():
    class Volumes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(1, 1, 1)

        def forward(self, x, time):
            return self.conv(x)

    diffusion = GaussianDiffusion(Volumes(), sample_shape=(1, 4, 4, 4))
    assert torch.isfinite(diffusion(torch.rand(2, 1, 4, 4, 4)))
    assert diffusion.sample(2, steps=2, show_progress=False).shape == (2, 1, 4, 4, 4)


def test_conditions_must_stay_as_they_are():
    """They are encoded once and told at every step."""
    own = network(lambda self, x, time, style: x * style.mul_(2)[:, :, None])
    conditions = {"style": Vectors(3, statistics=Unbounded(0.0, 1.0), keyword="style")}
    diffusion = GaussianDiffusion(own, conditions=conditions)
    with pytest.raises(ValueError, match="to leave its inputs as they are, got one changed in pl"):
        diffusion.sample(2, style=torch.randn(2, 3), steps=1, show_progress=False)


@pytest.mark.parametrize("probability", [0.0, 0.9])
def test_an_estimate_without_default_is_always_given(probability):
    own = network(lambda self, x, time, x_self_cond: x * self.weight + 0 * x_self_cond)
    diffusion = GaussianDiffusion(own, timesteps=2, train_prob_self_cond=probability)
    assert torch.isfinite(diffusion(torch.rand(2, 3, 4)))
    assert torch.isfinite(diffusion.sample(2, show_progress=False)).all()


def test_conditions_must_be_taken_and_needed_ones_given():
    with pytest.raises(
        ValueError, match="that Plain takes .no condition., got 'kind', which gives 'labels'"
    ):
        GaussianDiffusion(Plain(), conditions={"kind": Labels(3)})
    own = network(lambda self, x, time, style: x * style[:, :, None])
    diffusion = GaussianDiffusion(
        own, conditions={"look": Vectors(3, statistics=Unbounded(0.0, 1.0), keyword="style")}
    )
    assert torch.isfinite(diffusion(torch.rand(2, 3, 4), look=torch.randn(2, 3)))
    for name in ("mask", "steps", "seed", "generator"):
        with pytest.raises(
            ValueError, match=f"unreserved Python name for a condition, got '{name}'"
        ):
            GaussianDiffusion(
                own, conditions={name: Vectors(3, statistics=Unbounded(0.0, 1.0), keyword="style")}
            )


def test_a_network_of_any_keywords_takes_any_condition():
    own = network(lambda self, x, time, **more: x * more["style"][:, :, None])
    diffusion = GaussianDiffusion(
        own, conditions={"style": Vectors(3, statistics=Unbounded(0.0, 1.0), keyword="style")}
    )
    assert torch.isfinite(diffusion(torch.rand(2, 3, 4), style=torch.randn(2, 3)))


def test_only_the_signature_looks_at_a_network():
    signature = NetworkSignature.of(tiny_rin())
    assert signature == NetworkSignature.of(RIN(**tiny_rin()._init_args)), "a value like any part"
