"""Denoisers of one network: equal in shared and separate calls, each with its own memory."""

import pytest
import torch
from torch import nn
from toys import SelfConditioned, randomised, tiny_rin, tiny_unet

from diffusion_framework import DDIM, GaussianDiffusion, Heun, UniPC
from diffusion_framework.conditions import Labels
from diffusion_framework.denoisers import (
    ClassifierFree,
    Clip,
    Feedback,
    NetworkDenoiser,
    StatelessDenoiser,
    TransformX0,
    clipped,
    predict_together,
)
from diffusion_framework.denoisers.guidance.classifier_free import extrapolate
from diffusion_framework.denoisers.memory import Memory
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.noise import per_sample_noise
from diffusion_framework.samplers import Langevin, trajectory
from diffusion_framework.samplers.arguments import feedback as chosen_feedback
from diffusion_framework.samplers.base import RecordingDenoiser


def guided_diffusion(make=tiny_unet, **options):
    diffusion = GaussianDiffusion(
        randomised(make(num_classes=3)).double(), timesteps=4, condition_dropout=0.1, **options
    )
    for parameter in diffusion.parameters():
        nn.init.normal_(parameter, std=0.2)
    return diffusion.eval()


def pair(diffusion, labels):
    bound = diffusion.conditions.bind({"labels": labels})
    given = NetworkDenoiser(diffusion.parts, bound)
    return given, given.without()


@pytest.mark.parametrize("make", [tiny_unet, tiny_rin])
@torch.no_grad()
def test_together_and_apart_are_the_same(make):
    diffusion = guided_diffusion(make)
    labels = torch.tensor([0, 2, 1])
    together, apart = pair(diffusion, labels), pair(diffusion, labels)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for t in (0.9, 0.6, 0.3):  # memories grow
        at = diffusion.schedule.at(t)
        one = predict_together(together, x, at)
        two = [denoise(x, at) for denoise in apart]
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a.x0, b.x0, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(one[0].x0, one[1].x0)
        x = x + 0.1 * one[0].x0
    levels = diffusion.schedule.at(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    for a, b in zip(
        predict_together(together, x, levels), [d(x, levels) for d in apart], strict=True
    ):
        torch.testing.assert_close(a.x0, b.x0, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_memory_that_begins_later_is_zeros_beside_one_that_has_begun():
    diffusion = guided_diffusion(tiny_rin)
    x, at = torch.randn(2, 1, 8, 8, dtype=torch.float64), diffusion.schedule.at(0.5)
    labels = torch.tensor([0, 1])
    one, other = pair(diffusion, labels), pair(diffusion, labels)
    for given, _ in (one, other):
        given(x, at)
    apart = [denoise(x, at) for denoise in other]
    for a, b in zip(predict_together(one, x, at), apart, strict=True):
        torch.testing.assert_close(a.x0, b.x0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", [DDIM(), Heun(), UniPC(), Langevin()], ids=repr)
@torch.no_grad()
def test_guided_sampling_is_that_of_two_denoisers(sampler):
    diffusion = guided_diffusion()
    labels = torch.tensor([0, 2])

    class Apart:
        """Guidance with a separate call for each prediction."""

        def __init__(self):
            self.given, self.free = pair(diffusion, labels)
            self.schedule = diffusion.schedule

        def __call__(self, x, at, to=None):
            return extrapolate(self.given(x, at, to), self.free(x, at, to), 2.5)

    walk = diffusion.walk(
        2,
        sampler=sampler,
        seed=[5, 6],
        guidance=2.5,
        labels=labels,
        clip_denoised=False,
        self_conditioning=1,
    )
    *_, last = diffusion.trajectory(walk)
    noise = per_sample_noise([5, 6], "cpu")
    start = noise(walk.start) * walk.grid.start.sigma
    *_, apart = trajectory(sampler, Apart(), start, walk.grid, noise)
    torch.testing.assert_close(last.x, apart.x, rtol=1e-9, atol=1e-9)


def test_guidance_calls_the_network_once_a_step():
    diffusion = guided_diffusion()
    sizes = []
    diffusion.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    diffusion.sample(3, labels=[0, 1, 2], guidance=2.0, show_progress=False)
    assert sizes == [6] * 4


def test_output_leaves_the_memory_alone():
    diffusion = guided_diffusion(tiny_rin)
    denoise, _ = pair(diffusion, torch.tensor([0, 1]))
    x, at = torch.randn(2, 1, 8, 8, dtype=torch.float64), diffusion.schedule.at(0.5)
    one = denoise.output(x, at)[0]
    assert torch.equal(one, denoise.output(x, at)[0])
    denoise(x, at)
    assert not torch.equal(one, denoise.output(x, at)[0])


class Jumps(nn.Module):
    """A network that takes a second time."""

    sample_shape = (2,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x, time, second_time, labels):
        self.seen.append((time, second_time))
        return x * self.weight


class Recorder:
    """A denoiser that records the level at the end of each step."""

    def __init__(self, schedule):
        self.schedule, self.seen = schedule, []

    def __call__(self, x, at, to=None):
        self.seen.append(to)
        return Prediction(x, x)


def test_every_wrapper_hands_on_where_the_step_goes():
    diffusion = GaussianDiffusion(Jumps(), conditions={"labels": Labels(3, dropout=0.1)})
    schedule = diffusion.schedule
    x, at, to = torch.randn(4, 2), schedule.at(0.7), schedule.at(0.25)
    for wrap in (
        lambda inner: TransformX0(inner, Clip()),
        lambda inner: clipped(inner, True, (-1.0, 1.0)),
        lambda inner: StatelessDenoiser(lambda: inner),
        RecordingDenoiser,
    ):
        inner = Recorder(schedule)
        wrap(inner)(x, at, to)
        assert inner.seen == [to]
    bound = diffusion.conditions.bind({"labels": torch.tensor([0, 1, 2, 0])})
    plain = NetworkDenoiser(diffusion.parts, bound)
    guided = ClassifierFree(2.0).bind(NetworkDenoiser(diffusion.parts, bound))
    for denoise in (plain, guided):
        for there, expected in ((to, 0.25), (None, 0.7)):
            denoise(x, at, there)
            time, second = diffusion.model.seen[-1]
            assert time.dtype == second.dtype == torch.float32 and len(time) == len(second)
            assert second.tolist() == pytest.approx([expected] * len(second))
    levels = schedule.at(torch.tensor([0.2, 0.3, 0.4, 0.5], dtype=torch.float64))
    guided(x, schedule.at(torch.full((4,), 0.9, dtype=torch.float64)), levels)
    assert diffusion.model.seen[-1][1].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5] * 2)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"steps": 5, "self_conditioning": 1}, 1.0),
        ({"steps": 5, "self_conditioning": 0.25}, 0.25),
        ({"steps": 20, "self_conditioning": 0}, 0.0),
    ],
)
def test_the_network_sees_its_damped_estimate(options, factor):
    diffusion = GaussianDiffusion(SelfConditioned())
    snapshots = list(diffusion.trajectory(diffusion.walk(2, sampler="ddim", seed=0, **options)))
    (_, first), *later = diffusion.model.seen
    assert first is None or not first.any()
    for (_, estimate), snapshot in zip(later, snapshots, strict=False):
        if factor:
            torch.testing.assert_close(estimate, factor * snapshot.x0)
        else:
            assert estimate is None


@pytest.mark.parametrize(("steps", "factor"), [(5, 0.75), (14, 0.75), (15, 1.0)])
def test_without_a_factor_the_network_sees_where_its_estimates_lead(steps, factor):
    diffusion = GaussianDiffusion(SelfConditioned())
    walk = diffusion.walk(2, sampler="ddim", steps=steps, seed=0, clip_denoised=False)
    known = Memory(Feedback(factor, extrapolates=True), diffusion.space.bounds)
    snapshots = list(diffusion.trajectory(walk))
    for snapshot, (_, estimate) in zip(snapshots, diffusion.model.seen, strict=True):
        expected = known.recalled(snapshot.now).x0
        assert expected is None or torch.equal(estimate, expected)
        known.remember(snapshot.x0, snapshot.now)
    plain = factor * snapshots[-2].x0.clamp(*diffusion.space.bounds)
    assert not torch.allclose(estimate, plain)
    assert chosen_feedback(None, steps, adaptive=True) == Feedback()


def test_a_factor_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"self_conditioning in \[0, 1\], got 1.5. Fix"):
        GaussianDiffusion(SelfConditioned()).walk(1, self_conditioning=1.5)
