import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from toys import tiny_diffusion, tiny_unet

from diffusion_framework import DDIM, GaussianDiffusion, Sigmoid
from diffusion_framework.denoisers import ClassifierFree
from diffusion_framework.denoisers.guidance.classifier_free import extrapolate
from diffusion_framework.samplers import trajectory


def by_class(**options):
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), timesteps=4, **options)
    for parameter in diffusion.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return diffusion


class Guided:
    """Guidance with two exact denoisers."""

    def __init__(self, given, free, scale):
        self.given, self.free, self.scale, self.schedule = given, free, scale, given.schedule

    def __call__(self, x, at, to=None):
        return extrapolate(self.given(x, at, to), self.free(x, at, to), self.scale)


@pytest.mark.parametrize("t", [0.1, 0.7, 1.0])
def test_guidance_is_a_line_through_two_denoisers(t):
    given, free = GaussianOracle(0.4, 0.2), GaussianOracle(-0.3, 0.9)
    x = torch.randn(5, 3, dtype=torch.float64)
    at = Sigmoid().at(t)
    for scale in (0.0, 1.0, 2.5, -1.0):
        guided = Guided(given, free, scale)(x, at)
        torch.testing.assert_close(
            guided.x0, free(x, at).x0 + scale * (given(x, at).x0 - free(x, at).x0)
        )
        torch.testing.assert_close(at.alpha * guided.x0 + at.sigma * guided.eps, x)


def test_the_score_of_guidance_is_that_of_a_sharper_class():
    """Guidance by 3 leaves hardly a sample of the other class, and overshoots the mean."""
    given = GaussianOracle(0.4, 0.3)
    free = MixtureOracle(means=(-0.4, 0.4), stds=(0.3, 0.3), weights=(0.5, 0.5))
    diffusion = tiny_diffusion()
    x = torch.randn(4000, dtype=torch.float64)

    def share_and_mean(scale):
        walk = trajectory(DDIM(), Guided(given, free, scale), x, diffusion.grid(50), None)
        end = list(walk)[-1].x
        return (end > 0).double().mean().item(), end.mean().item()

    shares, means = zip(*(share_and_mean(scale) for scale in (0.0, 1.0, 3.0)), strict=True)
    assert (
        shares[0] == pytest.approx(0.5, abs=0.03)
        and shares[1] == pytest.approx(0.909, abs=0.02)
        and shares[2] > 0.98
    )
    assert means[2] > means[1] > means[0]


def test_training_drops_labels_by_its_generator():
    diffusion = by_class(condition_dropout=0.5)
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 3

    def loss(labels, seed=0):
        return diffusion(
            images, labels=labels, generator=torch.Generator().manual_seed(seed)
        ).item()

    assert loss(labels) == loss(labels)
    all_dropped = by_class(condition_dropout=1 - 1e-9)
    all_dropped.load_state_dict(diffusion.state_dict())
    one, two = (
        all_dropped(images, labels=labels, generator=torch.Generator().manual_seed(0)).item()
        for labels in (labels, torch.zeros(16, dtype=torch.long))
    )
    assert one == two, "without labels, they must not matter"
    assert loss(labels) != loss(torch.zeros(16, dtype=torch.long))


def test_guided_sampling_walks_between_class_and_no_class():
    diffusion = by_class(condition_dropout=0.1)
    labels = torch.tensor([0, 2])
    x, at = torch.randn(2, 1, 8, 8), diffusion.schedule.at(0.6)
    given, free = (
        diffusion.denoiser(labels=value)(x, at).x0 for value in (labels, torch.tensor([3, 3]))
    )
    guided = diffusion.denoiser(labels=labels, guidance=2.0)(x, at).x0
    torch.testing.assert_close(guided, 2 * given - free, rtol=1e-4, atol=1e-4)
    one = diffusion.sample(2, labels=labels, guidance=1.0, seed=0, show_progress=False)
    assert torch.equal(one, diffusion.sample(2, labels=labels, seed=0, show_progress=False))
    assert not torch.equal(
        one, diffusion.sample(2, labels=labels, guidance=3.0, seed=0, show_progress=False)
    )


def test_a_class_that_training_never_dropped_reads_no_row_of_no_class():
    diffusion = undropped()
    with pytest.raises(ValueError, match=r"labels in \[0, 2\], got 3 in sample 1"):
        diffusion.denoiser(labels=torch.tensor([1, 3]))


def undropped():
    return by_class(condition_dropout=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: undropped().denoiser(labels=torch.tensor([0]), guidance=2.0),
            "trained with dropout, got none.*condition_dropout",
        ),
        (
            lambda: by_class(condition_dropout=0.1).denoiser(guidance=2.0),
            "a value for labels, got none",
        ),
        (
            lambda: undropped()(torch.rand(2, 1, 8, 8), labels=torch.tensor([0, 3])),
            r"\[0, 2\], got 3 in sample 1",
        ),
        (
            lambda: undropped().sample(1, labels=torch.tensor([-1]), show_progress=False),
            r"\[0, 2\], got -1 in sample 0",
        ),
        (lambda: by_class(condition_dropout=1.0), r"dropout in \[0, 1\), got 1"),
        (lambda: tiny_diffusion(condition_dropout=0.1), "set its num_classes"),
        (lambda: by_class()(torch.rand(2, 1, 8, 8)), "a value for labels, got none"),
        (lambda: ClassifierFree(float("nan")), "finite guidance scale, got nan"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
