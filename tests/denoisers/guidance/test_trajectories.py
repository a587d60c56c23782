"""Guidance along trajectories: every sampler, where steps go, memories, and policies."""

import json
import pickle

import pytest
import torch
from demonstrations import fitted, network, observations
from mixtures import exact_diffusion
from torch import nn
from toys import randomised, tiny_dit

from diffusion_framework import Controller, DiffusionPolicy, GaussianDiffusion
from diffusion_framework.conditions import Labels
from diffusion_framework.denoisers import (
    APG,
    Autoguidance,
    CFGZero,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    Interval,
    NetworkDenoiser,
    PerCondition,
    Rescale,
    Sum,
)
from diffusion_framework.denoisers.guidance.base import extrapolate
from diffusion_framework.parts.search import parts_of
from diffusion_framework.process.noise import per_sample_noise
from diffusion_framework.samplers import Sampler, trajectory
from diffusion_framework.samplers.grids import spaced_grid
from diffusion_framework.spaces import ActionSpace
from diffusion_framework.storage.config import from_config, to_config

LABELS = torch.tensor([0, 2])


class Arithmetic(nn.Module):
    """Sums and products alone, whose results do not depend on the size of the batch."""

    sample_shape = (3,)

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([0.3, -0.8, 0.9, 0.1], dtype=torch.float64))
        self.seen = []

    def forward(self, x, time, labels, self_cond=None, second_time=None):
        self.seen.append((len(x), second_time, self_cond))
        told = self.table[labels][:, None]
        return told * x + 0.25 * told + (0 if self_cond is None else 0.5 * self_cond * told)


def arithmetic(**options):
    conditions = {"labels": Labels(3, dropout=0.1)}
    defaults = {"objective": "x0", "timesteps": 8, "conditions": conditions}
    return GaussianDiffusion(Arithmetic(), **{**defaults, **options}).eval()


class Apart:
    """Guidance with a separate call of the network for each prediction."""

    def __init__(self, diffusion):
        bound = diffusion.conditions.bind({"labels": LABELS})
        self.given, self.schedule = NetworkDenoiser(diffusion.parts, bound), diffusion.schedule
        self.free = self.given.without()

    def __call__(self, x, at, to=None):
        return extrapolate(self.given(x, at, to), self.free(x, at, to), 2.5)


SAMPLERS = [cls for _, cls in parts_of(Sampler)]


@pytest.mark.parametrize("cls", SAMPLERS, ids=lambda cls: cls.__name__)
def test_one_call_on_a_doubled_batch_equals_two_denoisers_in_every_sampler(cls):
    diffusion, sampler = arithmetic(), cls()
    grid = spaced_grid(diffusion.schedule, 8, "time")
    options = {"sampler": sampler, "grid": grid, "clip_denoised": False, "self_conditioning": 1.0}
    walk = diffusion.walk(2, guidance=2.5, labels=LABELS, seed=[5, 6], **options)
    *_, together = diffusion.trajectory(walk)
    assert {size for size, *_ in diffusion.model.seen} == {4}
    noise = per_sample_noise([5, 6], "cpu")
    start = noise(walk.start) * grid.start.sigma
    with torch.no_grad():
        *_, apart = trajectory(sampler, Apart(diffusion), start, grid, noise)
    assert (together.x - apart.x).abs().max() == 0
    assert together.x.isfinite().all()


def kinds(weaker):
    everything = (ClassifierFree(2.0), Autoguidance(weaker, 1.5))
    return [
        ClassifierFree(2.0),
        PerCondition({"labels": 2.0}),
        CFGZero(2.0),
        Autoguidance(weaker),
        Interval(2.0, low=0.5),
        Rescale(2.0),
        APG(2.0),
        ClassifierGuidance(lambda data: data.sum(1)),
        Sum(everything),
        Interval(inner=Rescale(inner=APG(inner=Sum(everything))), high=1e3),
    ]


@pytest.mark.parametrize("index", range(10))
def test_every_kind_hands_on_where_the_step_goes(index):
    diffusion, weaker = arithmetic(), arithmetic()
    guidance = kinds(weaker)[index]
    at, to = diffusion.schedule.at(0.8), diffusion.schedule.at(0.25)
    x = torch.randn(2, 3, dtype=torch.float64)
    diffusion.denoiser(labels=LABELS, guidance=guidance)(x, at, to)
    seen = diffusion.model.seen + weaker.model.seen
    assert seen
    for size, second, _ in seen:
        assert second.tolist() == pytest.approx([0.25] * size)


def test_an_interval_that_begins_late_starts_the_free_memory_with_zeros():
    diffusion = arithmetic()
    noisy, clean = diffusion.schedule.at(0.9), diffusion.schedule.at(0.2)
    low = (noisy.sigma / noisy.alpha + clean.sigma / clean.alpha) / 2
    x = torch.randn(2, 3, dtype=torch.float64)
    denoise = diffusion.denoiser(labels=LABELS, guidance=Interval(2.0, high=low))
    remembered = denoise(x, noisy).x0.clamp(-1, 1)
    denoise(x, clean)
    (first, _, _), (second, _, memory) = diffusion.model.seen
    assert (first, second) == (2, 4)
    assert torch.equal(memory, torch.cat([remembered, torch.zeros_like(x)]))


def test_every_trajectory_begins_with_empty_memories():
    diffusion, weaker = arithmetic(), arithmetic()
    x, at = torch.randn(2, 3, dtype=torch.float64), diffusion.schedule.at(0.6)
    guidance = Sum((ClassifierFree(2.0), Autoguidance(weaker, 1.5)))
    walk = diffusion.walk(2, labels=LABELS, guidance=guidance, clip_denoised=False)
    first = walk.denoise(x, at).x0
    assert not torch.equal(walk.denoise(x, at).x0, first), "it remembers its last call"
    assert torch.equal(walk.fresh()(x, at).x0, first)


def test_values_of_a_trajectory_are_encoded_once(monkeypatch):
    diffusion, weaker, calls = exact_diffusion(), exact_diffusion(blur=0.4), []
    encode = Labels.encode
    monkeypatch.setattr(Labels, "encode", lambda self, v: calls.append(1) or encode(self, v))
    negative = ClassifierFree(2.0, negative={"labels": 1})
    walk = diffusion.walk(2, labels=LABELS, guidance=Sum((negative, Autoguidance(weaker))))
    count = len(calls)
    assert count == 3
    walk.fresh()
    walk.fresh()
    assert len(calls) == count


@pytest.fixture
def demonstrated():
    """A policy trained to do without observations, and a weaker one."""
    options = {"action_steps": 4, "plan_steps": 4, "space": ActionSpace()}
    made = [DiffusionPolicy(network(), observations(dropout=0.2), **options) for _ in range(2)]
    return [fitted(policy).eval() for policy in made]


def test_policies_take_any_guidance(demonstrated):
    policy, weaker = demonstrated
    states = {"state": torch.randn(2, 2, 3) * 20 + 50}
    plain = policy.plan(states, seed=[1, 2])
    everything = Rescale(inner=Sum((ClassifierFree(2.0), Autoguidance(weaker, 1.5))))
    for guidance in (2.0, "apg", Interval(3.0, high=5.0), Autoguidance(weaker), everything):
        plan = policy.plan(states, seed=[1, 2], guidance=guidance)
        assert plan.shape == plain.shape and not torch.equal(plan, plain), guidance
    assert torch.equal(policy.plan(states, seed=[1, 2], guidance=1.0), plain)
    itself = policy.plan(states, seed=[1, 2], guidance=Autoguidance(policy, 3.0))
    torch.testing.assert_close(itself, plain, rtol=1e-3, atol=1e-3)


def test_plans_follow_the_gradient_of_a_score_of_their_actions(demonstrated):
    policy, _ = demonstrated
    states = {"state": torch.randn(3, 2, 3) * 20 + 50}

    def score(actions):  # in the units of the demonstrations
        return -1e-3 * (actions[:, :, 0] - 40.0).square().mean(1)

    diffusion, x = policy.diffusion, torch.randn(3, 8, 2, requires_grad=True)
    at = diffusion.schedule.at(0.6)
    plain = policy.told({"observations": states}, 3)(x, at).x0
    score(diffusion.space.decode(plain, {"observations": states})).sum().backward()
    guidance = ClassifierGuidance(score, 0.5)
    guided = diffusion.denoiser(observations=states, guidance=guidance)(x.detach(), at).x0
    expected = plain.detach() + 0.5 * at.sigma**2 / at.alpha * x.grad
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)
    plans = [policy.plan(states, seed=[1, 2, 3], guidance=each) for each in (guidance, None)]
    assert plans[0].isfinite().all() and not torch.equal(*plans)


def test_a_controller_plans_with_guidance(demonstrated):
    policy, weaker = demonstrated
    state = torch.randn(3) * 20 + 50
    guidance = APG(inner=Autoguidance(weaker, 2.0))
    acted = Controller(policy, guidance=guidance).act({"state": state}, seed=[4])
    planned = policy.predict({"state": state.expand(1, 2, 3)}, seed=[4], guidance=guidance)
    assert torch.equal(acted, planned[0, 0])
    assert not torch.equal(acted, Controller(policy).act({"state": state}, seed=[4]))


STORED = [
    ClassifierFree(2.0, ("labels",), {"labels": 1}),
    PerCondition({"labels": 2.0}),
    CFGZero(2.0, zero_first=True),
    Autoguidance("results/run", 1.5),
    Interval(2.0, low=-1.0, unit="log_snr"),
    Rescale(inner=APG(3.0, max_norm=1.0)),
    Sum((ClassifierFree(3.0), Rescale(2.0))),
]


@pytest.mark.parametrize("guidance", STORED, ids=lambda guidance: type(guidance).__name__)
def test_guidance_is_a_value_that_can_be_stored(guidance):
    assert from_config(json.loads(json.dumps(to_config(guidance))), Guidance) == guidance
    bound = arithmetic().conditions.bind({"labels": LABELS})
    guidance.once(bound, lambda: "encoded")  # as after use
    stored = pickle.loads(pickle.dumps(guidance))
    assert stored == guidance and hash(stored) == hash(guidance) and repr(stored) == repr(guidance)
    assert stored.once(bound, lambda: "anew") == "anew"


def test_texts_can_be_guided_away_from_and_have_a_scale_of_their_own():
    diffusion = GaussianDiffusion(
        randomised(tiny_dit(num_classes=3, token_dim=12)), timesteps=4, condition_dropout=0.1
    ).eval()
    x, at = torch.randn(2, 1, 8, 8), diffusion.schedule.at(0.6)
    told = {"labels": [0, 2], "text": ["a red heart", "two cats"]}

    def clean(guidance=None, **changed):
        bound = {**told, **changed}
        return diffusion.denoiser(guidance=guidance, **bound)(x, at).x0

    given, none = clean(), [3, 3]
    untold = diffusion.told({"labels": [0, 2]}, 2)(x, at).x0
    free = diffusion.told({}, 2)(x, at).x0
    away = clean(text=["blurry"] * 2, labels=none)
    for guidance, expected in (
        (ClassifierFree(3.0), free + 3.0 * (given - free)),
        (ClassifierFree(3.0, negative={"text": "blurry"}), away + 3.0 * (given - away)),
        (
            PerCondition({"labels": 3.0, "text": 2.0}),
            free + 3.0 * (untold - free) + 2.0 * (given - untold),
        ),
    ):
        torch.testing.assert_close(clean(guidance), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(away, free, atol=0.1)
