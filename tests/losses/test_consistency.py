"""The consistency loss and its sampler against the exact flow of Gaussian data."""

import math
from types import SimpleNamespace

import pytest
import torch
from oracles import GaussianOracle
from torch import nn
from toys import tiny_unet
from walks import end

from diffusion_framework import LCM, GaussianDiffusion
from diffusion_framework.losses import ConsistencyLoss, LogNormal, NoisedBatch
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.noise import rewound
from diffusion_framework.process.objectives import X0, Eps, Preconditioned, V, Velocity
from diffusion_framework.process.schedules import EDM, VE, Cosine, Flow, Sigmoid
from diffusion_framework.samplers import Consistency
from diffusion_framework.samplers.grids import distilled_times, grid_of_times

CASES = pytest.mark.parametrize(
    ("schedule", "objective"),
    [
        (Flow(), Velocity()),
        (Cosine(), V()),
        (Sigmoid(), Eps()),
        (Sigmoid(), X0()),
        (EDM(), Preconditioned()),
        (VE(), Eps()),
    ],
    ids=lambda part: type(part).__name__,
)


class ExactEnds:
    """Denoiser that returns the exact end of the flow of Gaussian data."""

    def __init__(self, schedule, objective=None):
        self.schedule, self.objective = schedule, objective
        self.oracle = GaussianOracle(schedule=schedule)

    def ends(self, x, at):
        std = (at.alpha**2 * self.oracle.std**2 + at.sigma**2) ** 0.5
        return self.oracle.mean + (x - at.alpha * self.oracle.mean) * self.oracle.std / std

    def __call__(self, x, at, to=None):
        return Prediction.from_x0(self.ends(x, at), x, at)

    def output(self, x, at, to=None):
        at = at.expand_to(x)
        x0 = self.ends(x, at)
        return self.objective.target(x0, (x - at.alpha * x0) / at.sigma, at), None


def tangent_batch(schedule, t):
    """A batch whose clean data and noise are those to expect for its x: the flow's tangent."""
    at = schedule.at(torch.full((64,), t, dtype=torch.float64))
    oracle = GaussianOracle(schedule=schedule)
    level = at.expand_to(torch.zeros(64, 2))
    x = level.alpha * 0.3 + (level.alpha**2 * 0.25 + level.sigma**2) ** 0.5 * drawn(64, 2)
    prediction = oracle(x, at)
    return NoisedBatch(prediction.x0, prediction.eps, x, at)


def drawn(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def noised_batch(schedule, t):
    x0, eps = 0.3 + 0.5 * drawn(2, 64, 2)
    at = schedule.at(torch.full((64,), t, dtype=torch.float64))
    level = at.expand_to(x0)
    return NoisedBatch(x0, eps, level.alpha * x0 + level.sigma * eps, at)


@CASES
def test_the_loss_of_the_exact_ends_of_the_flow_vanishes_with_the_step(schedule, objective):
    """D does not change along the flow, which x_r leaves by the second order of t - r."""
    exact, batch = ExactEnds(schedule, objective), tangent_batch(schedule, 0.6)
    losses = [
        ConsistencyLoss(q=q, stages=1, softening=1e-14)(exact, batch).mean().item()
        for q in (1e2, 1e3, 1e4)
    ]
    assert 8 < losses[0] / losses[1] < 12 and 9 < losses[1] / losses[2] < 11
    other = ExactEnds(schedule, objective)
    other.ends = lambda x, at: other.oracle(x, at).x0  # estimates of one call change along it
    wrong = ConsistencyLoss(q=1e4, stages=1, softening=1e-14)(other, batch).mean().item()
    assert wrong > 20 * losses[2]


@CASES
def test_the_target_at_r_0_is_the_clean_data(schedule, objective):
    exact, batch = ExactEnds(schedule, objective), noised_batch(schedule, 0.7)
    loss = ConsistencyLoss(q=1 + 1e-9, stages=1, softening=1e-12)
    assert torch.equal(loss.gap(schedule, batch.at, 0.0), torch.ones(64, dtype=torch.float64))
    ends = exact.ends(batch.x, batch.at.expand_to(batch.x))
    error = (ends - batch.x0).square().mean(1).sqrt()
    torch.testing.assert_close(loss(exact, batch), error * batch.at.alpha / batch.at.sigma)


def test_below_the_last_level_of_a_schedule_the_target_is_the_clean_data():
    seen = []
    schedule = EDM()

    def output(x, at, to=None):
        seen.append(at)
        return torch.zeros_like(x), None

    denoise = SimpleNamespace(schedule=schedule, objective=Preconditioned(), output=output)
    batch = noised_batch(schedule, 0.0)
    loss = ConsistencyLoss(softening=1e-12)(denoise, batch)
    assert torch.isfinite(loss).all()
    last = schedule.at(0.0).log_snr
    assert all(bool((at.log_snr <= last + 1e-9).all()) for at in seen)
    x0 = Preconditioned().prediction(torch.zeros_like(batch.x), batch.x, batch.at).x0
    error = (x0 - batch.x0).square().mean(1).sqrt()
    torch.testing.assert_close(loss, error * batch.at.alpha / batch.at.sigma)


def test_the_step_is_that_of_the_paper_and_falls_in_stages():
    at = Flow().at(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    t = at.sigma / at.alpha
    loss = ConsistencyLoss(q=4.0, stages=3)
    for progress, stage in ((0.0, 0), (0.34, 1), (0.67, 2), (1.0, 2)):
        r = t * (1 - (1 + 8 * torch.sigmoid(-t)) / 4.0 ** (stage + 1)).clamp(min=0)
        torch.testing.assert_close(t * (1 - loss.gap(Flow(), at, progress)), r)
    with pytest.raises(ValueError, match="q above 1.* Fix: start from ConsistencyLoss"):
        ConsistencyLoss(q=1.0)


@pytest.mark.parametrize("objective", ["v", "x0", "velocity", "eps", "score", "edm"])
def test_the_loss_is_finite_at_both_ends_of_a_schedule(objective):
    """Proposed levels lie within the schedule; at alpha = 0 the weight is 0."""
    schedule = "flow" if objective in ("v", "x0", "velocity") else "sigmoid"
    diffusion = GaussianDiffusion(
        tiny_unet(self_condition=False),
        loss="consistency",
        objective=objective,
        noise_schedule=schedule,
    )
    assert diffusion.times == LogNormal(-1.1, 2.0) and diffusion.sampler == Consistency()
    ends = diffusion.times.draw(diffusion.schedule, torch.tensor([2**-53, 1.0]).double()).at
    assert bool(torch.isfinite(ends.log_snr).all() and (ends.sigma > 0).all())
    for at in (ends, diffusion.schedule.at(torch.tensor([1e-5, 1.0]).double())):
        x0, eps = torch.randn(2, 2, 1, 8, 8)
        level = at.expand_to(x0)
        batch = NoisedBatch(x0, eps, level.alpha * x0 + level.sigma * eps, at)
        loss = ConsistencyLoss()(diffusion.told({}, 2), batch).sum()
        loss.backward()
        assert torch.isfinite(loss)
        for parameter in diffusion.model.parameters():
            assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


class Dropping(nn.Module):
    """Network of one dropout layer, which keeps what it dropped."""

    channels, image_size = 1, 8

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.outputs = []

    def forward(self, x, time, second_time=None):
        self.outputs.append(nn.functional.dropout(torch.ones_like(x), 0.5, self.training))
        return x * self.outputs[-1] * self.scale


@pytest.mark.parametrize("loss", ["consistency", "flow_map"])
def test_both_calls_have_the_same_dropout_and_the_next_step_another(loss):
    network = Dropping()
    diffusion = GaussianDiffusion(network, loss=loss)
    data = torch.rand(4, 1, 8, 8)
    for _ in range(2):
        diffusion(data)
    first, second, third, fourth = network.outputs
    assert torch.equal(first, second) and torch.equal(third, fourth)
    assert not torch.equal(first, third)


def test_generators_on_a_device_are_rewound_too(monkeypatch):
    states = {"cuda:1": torch.tensor([1])}
    read = lambda device: states[str(device)].clone()  # noqa: E731
    write = lambda state, device: states.update({str(device): state})  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_rng_state", read)
    monkeypatch.setattr(torch.cuda, "set_rng_state", write)
    before = torch.get_rng_state()
    with rewound(torch.device("cuda:1")):
        states["cuda:1"] = torch.tensor([2])
        torch.rand(3)
    assert states["cuda:1"].tolist() == [1] and torch.equal(torch.get_rng_state(), before)


def test_self_conditioning_is_the_same_in_both_calls():
    seen = []

    class Fed(Dropping):
        def forward(self, x, time, self_cond=None):
            seen.append(self_cond)
            return x * self.scale

    GaussianDiffusion(Fed(), loss="consistency")(torch.rand(4, 1, 8, 8), self_condition_draw=0.0)
    assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])


SCHEDULES = [Sigmoid(), Cosine(), Flow(), EDM(), VE(sigma_max=20.0)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_samples_of_the_exact_ends_have_the_moments_of_the_data_in_any_number_of_steps(
    schedule, steps
):
    grid = Consistency().grid(schedule, steps)
    assert len(grid) == steps and grid.end.is_end and grid.is_connected
    exact = ExactEnds(schedule)
    mean, std = exact.oracle.marginal(grid.start)
    x = end(Consistency(), exact, mean + std * drawn(200_000, 1), grid)
    assert x.mean().item() == pytest.approx(0.3, abs=0.005)
    assert x.std().item() == pytest.approx(0.5, abs=0.005)


def test_the_grid_spans_the_schedule_and_the_levels_that_are_asked_for():
    """Two steps have the levels of the paper, and units scale with the data."""
    levels = lambda grid: [now.sigma / now.alpha for now, _ in grid]  # noqa: E731
    assert levels(Consistency().grid(Flow(), 2)) == pytest.approx([80.0, 0.821], rel=1e-3)
    assert levels(Consistency(1.0).grid(Flow(), 2)) == pytest.approx([160.0, 1.642], rel=1e-3)
    assert levels(Consistency().grid(VE(sigma_max=20.0), 1)) == pytest.approx([20.0])
    asked = levels(Consistency().grid(Flow(), 3, first=10.0, last="sigma=0.5"))
    assert asked[0] == pytest.approx(10.0) and asked[2] == pytest.approx(0.5)
    assert levels(Consistency().grid(EDM(), 1000))[-1] > 0.002
    with pytest.raises(ValueError, match="sigma_data above 0, got 0. Fix: take 0.5"):
        Consistency(0)


def test_lcm_runs_on_a_consistency_model():
    """Its boundary condition leaves what a consistency model says."""
    exact = ExactEnds(Sigmoid())
    for steps in (1, 2, 4):
        grid = grid_of_times(exact.schedule, distilled_times(steps))
        x = end(LCM(), exact, drawn(200_000, 1) * grid.start.sigma, grid)
        assert x.mean().item() == pytest.approx(0.3, abs=0.01)
        assert x.std().item() == pytest.approx(0.5, abs=0.01)


def test_a_model_trains_with_it_and_samples_in_two_calls():
    diffusion = GaussianDiffusion(tiny_unet(self_condition=False), loss="consistency")
    loss = diffusion(torch.rand(4, 1, 8, 8))
    loss.backward()
    assert math.isfinite(loss.item())
    levels = [now.sigma / now.alpha for now, _ in diffusion.walk(1).grid]
    assert levels == pytest.approx([80.0, 0.821], rel=1e-3)
    assert torch.isfinite(diffusion.sample(2, calls=1, show_progress=False)).all()
    assert torch.isfinite(diffusion.sample(2, sampler="lcm", calls=3, show_progress=False)).all()
