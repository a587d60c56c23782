"""Tests of the losses within GaussianDiffusion, with all parts of a training step."""

import math
from dataclasses import dataclass

import pytest
import torch
from oracles import GaussianOracle
from torch import nn
from toys import Plain, tiny_diffusion, tiny_unet

from diffusion_framework import Cosine, Flow, GaussianDiffusion, Sigmoid
from diffusion_framework.losses import (
    HybridLoss,
    LossAware,
    NoisedBatch,
    Steps,
    VariationalLoss,
)
from diffusion_framework.losses.variational import bound_term
from diffusion_framework.process.objectives import Eps, PreviousX
from diffusion_framework.process.posterior import log_variance
from diffusion_framework.process.schedules import VE
from diffusion_framework.spaces import Unbounded


@dataclass
class Answers:
    """Denoiser whose network returns fixed outputs."""

    schedule: object
    objective: object
    answer: torch.Tensor
    variance: torch.Tensor

    def output(self, x, at, to=None):
        return self.answer, self.variance


def noised(schedule, steps):
    """Returns a batch with one sample for each process step, and outputs for it, in float64."""
    count = schedule.step_count(steps)
    uniform = (torch.arange(count, dtype=torch.float64) + 1) / count
    at = Steps(steps).draw(schedule, uniform).at
    x0, eps, output, raw = torch.randn(4, len(uniform), 1, 4, 4, dtype=torch.float64)
    x0 = ((x0 / 3).clamp(-1, 1) * 127.5).round() / 127.5
    level = at.expand_to(x0)
    batch = NoisedBatch(x0, eps, level.alpha * x0 + level.sigma * eps, at, steps=steps)
    objective = GaussianDiffusion(tiny_unet(), noise_schedule=schedule).objective
    return batch, Answers(schedule, objective, output, torch.sigmoid(raw))


@pytest.mark.parametrize("schedule", [Cosine(), VE(0.05, 3.0), Flow()], ids=repr)
@pytest.mark.parametrize("variance", ["small", "large", "learned", "learned_range"])
def test_the_rescaled_bound_is_the_sum_over_the_grid(schedule, variance):
    steps = 6
    batch, answers = noised(schedule, steps)
    total = 0.0
    grid = GaussianDiffusion(tiny_unet(), noise_schedule=schedule, timesteps=steps).grid()
    assert len(grid) == len(batch.x0)
    befores = [grid.start, *(now for now, _ in grid)]
    for i, ((now, to), before) in enumerate(
        zip(reversed(grid), befores[len(grid) - 1 :: -1], strict=True)
    ):
        one = slice(i, i + 1)
        prediction = answers.objective.prediction(
            answers.answer[one], batch.x[one], now, answers.variance[one]
        )
        total += bound_term(
            batch.x0[one], batch.x[one], prediction, now, to, variance, before
        ).item()
    losses = VariationalLoss(variance)(answers, batch)
    assert losses.shape == (len(grid),)
    assert losses.mean().item() == pytest.approx(total, rel=1e-6)
    plain = VariationalLoss(variance, rescaled=False)(answers, batch)
    assert plain.sum().item() == pytest.approx(total, rel=1e-6)


def test_the_bound_in_the_hybrid_loss_does_not_train_the_mean():
    network = tiny_unet(learned_variance=True)
    nn.init.normal_(network.conv_out.weight, std=0.1)

    images = torch.rand(8, 1, 8, 8)
    parts = {"timesteps": 5, "times": "steps", "objective": "eps", "min_snr_loss_weight": False}

    def gradient(loss):
        network.zero_grad()
        diffusion = GaussianDiffusion(network, loss=loss, **parts)
        value = diffusion(
            images, generator=torch.Generator().manual_seed(0), self_condition_draw=0.99
        )
        value.backward()
        return value.item(), network.conv_out.weight.grad.clone()

    simple, of_simple = gradient("simple")
    bound, of_bound = gradient("bound")
    hybrid, of_hybrid = gradient(HybridLoss(share=0.01))
    assert hybrid == pytest.approx(simple + 0.01 * bound, rel=1e-5)
    rounding = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums differ in their order
    torch.testing.assert_close(of_hybrid[:1], of_simple[:1], **rounding)
    torch.testing.assert_close(of_hybrid[1:], 0.01 * of_bound[1:], **rounding)
    assert of_bound[:1].abs().max() > 0 and of_simple[1:].abs().max() == 0


class GaussianHead(nn.Module):
    """Network that predicts the exact noise of Gaussian data and learns one variance per step."""

    channels, image_size, learned_variance = 1, 4, True

    def __init__(self, oracle, steps):
        super().__init__()
        self.oracle, self.raw = oracle, nn.Parameter(torch.zeros(steps))

    def forward(self, x, time):
        at = self.oracle.schedule.at(time.double())
        eps = self.oracle(x.double(), at.expand_to(x.double())).eps.to(x)
        raw = self.raw[(time * len(self.raw)).round().long() - 1]
        return torch.cat([eps, raw.reshape(-1, 1, 1, 1).expand_as(x)], dim=1)


@pytest.mark.parametrize(
    "loss", [HybridLoss(bins=None, share=1.0), VariationalLoss(bins=None)], ids=repr
)
@pytest.mark.parametrize("schedule", [Cosine(), Sigmoid()], ids=repr)
def test_learned_range_recovers_the_best_variance_of_gaussian_data(schedule, loss):
    steps, oracle = 6, GaussianOracle(mean=0.1, std=0.4, schedule=schedule)
    head = GaussianHead(oracle, steps)
    parts = {"noise_schedule": schedule, "objective": "eps", "timesteps": steps, "times": "steps"}
    parts["space"] = Unbounded(0.0, 1.0)
    diffusion = GaussianDiffusion(head, loss=loss, **parts)
    data = 0.1 + 0.4 * torch.randn(8000, 1, 4, 4)
    optimizer = torch.optim.LBFGS(
        head.parameters(), tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = diffusion(data, generator=torch.Generator().manual_seed(0))
        value.backward()
        return value

    optimizer.step(closure)
    grid = diffusion.grid()
    x = torch.zeros(1, 1, 4, 4)
    for step in range(steps):
        now, to = grid[-1 - step]
        before = grid[max(len(grid) - 2 - step, 0)][0]
        (_, std_now), (_, std_to) = oracle.marginal(now), oracle.marginal(to)
        exact = std_to**2 * (1 - (now.alpha / to.alpha * std_to / std_now) ** 2)
        prediction = diffusion.denoiser()(x, now)
        learned = math.exp(
            log_variance("learned_range", prediction, now, to, before).flatten()[0].item()
        )
        assert learned == pytest.approx(exact, rel=0.03), step


def bound_gradients(diffusion, images, count):
    """Returns gradients of the bound, each estimated from one image, [count, parameters]."""
    rows = []
    for i in range(count):
        diffusion.zero_grad()
        diffusion(images[i % len(images)][None], self_condition_draw=0.99).backward()
        rows.append(torch.cat([p.grad.flatten() for p in diffusion.parameters()]))
    return torch.stack(rows)


def test_loss_aware_times_reduce_the_variance_of_the_bounds_gradient():
    options = {"timesteps": 20, "loss": VariationalLoss("small")}
    aware = GaussianDiffusion(Plain(), times=LossAware(20, history=5), **options)
    images = torch.rand(64, 1, 4, 4)
    while (aware.time_memory < 0).any():
        aware(images, self_condition_draw=0.99)
    aware.eval()
    uniform = GaussianDiffusion(aware.model, times="steps", **options).eval()
    of_aware, of_uniform = (
        bound_gradients(diffusion, images, 200) for diffusion in (aware, uniform)
    )
    variance, uniform_variance = (g.var(dim=0).sum().item() for g in (of_aware, of_uniform))
    assert variance < 0.7 * uniform_variance
    gap = (of_aware.mean(0) - of_uniform.mean(0)).square().sum().item()
    assert gap < 4 * (variance + uniform_variance) / 200, "the expectation must stay"


def test_only_training_updates_the_memory_of_losses():
    diffusion = tiny_diffusion(times="loss_aware", timesteps=3)
    before = diffusion.time_memory.clone()
    diffusion.eval()(torch.rand(4, 1, 8, 8))
    assert torch.equal(diffusion.time_memory, before)
    diffusion.train()(torch.rand(4, 1, 8, 8))
    assert (diffusion.time_memory[:, 1:] >= 0).sum() == 4
    again = tiny_diffusion(times="loss_aware", timesteps=3)
    again.load_state_dict(diffusion.state_dict())
    assert torch.equal(again.time_memory, diffusion.time_memory)
    assert tiny_diffusion(times="steps").time_memory is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tiny_diffusion(loss="bound", times="uniform"),
            "is a sum.*set times to 'steps' or 'loss_aware'",
        ),
        (lambda: tiny_diffusion(loss="hybrid", times="steps"), "set its learned_variance to true"),
        (
            lambda: GaussianDiffusion(
                tiny_unet(learned_variance=True), loss="hybrid", times="log_normal"
            ),
            "set times to 'steps'",
        ),
        (
            lambda: tiny_diffusion(
                loss=VariationalLoss("small"),
                times="steps",
                timesteps=50,
                noise_schedule=Cosine(clip_min=0.01),
            ),
            "got 3 steps in which .* is constant.*lower clip_min",
        ),
        (
            lambda: tiny_diffusion(
                objective="previous_x", timesteps=10**5, noise_schedule="cosine"
            ),
            "fall in each of",
        ),
        (lambda: tiny_diffusion(objective=PreviousX(Cosine(), 4)), "model's schedule, Sigmoid"),
        (lambda: HybridLoss(variance="small"), "to train, got variance='small'"),
        (lambda: HybridLoss(share=0.0), "above 0, got 0"),
        (
            lambda: tiny_diffusion(loss="kl"),
            "expected a loss, got 'kl'. Fix: choose one of SimpleLoss",
        ),
        (
            lambda: tiny_diffusion(times="often"),
            "time sampler, got 'often'. Fix: choose one of Uniform",
        ),
        (lambda: tiny_diffusion(loss_weight="snr"), "loss weight, got 'snr'. Fix: write 'MinSNR'"),
        (
            lambda: tiny_diffusion(time_input="s"),
            "a time input, got 's'. Fix: choose one of UnitTime",
        ),
        (
            lambda: tiny_diffusion(input_scaling="s"),
            "an input scaling, got 's'. Fix: choose one of Unscaled",
        ),
        (
            lambda: tiny_diffusion(schedule_kwargs={"tua": 1.0}),
            "among start, end, tau, clip_min, got 'tua'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_built(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_parts_given_by_name_receive_the_options_of_the_model():
    diffusion = tiny_diffusion(
        noise_schedule="cosine",
        timesteps=9,
        times="loss_aware",
        time_input="steps",
        loss_weight="likelihood",
    )
    assert (diffusion.times.steps, diffusion.preconditioning.time_input.steps) == (9, 9)
    assert diffusion.loss_weight.schedule == Cosine()
    assert tiny_diffusion(objective="eps", loss_weight="uniform").loss_weight.objective == Eps()
    assert (
        tiny_diffusion(objective="previous_x", timesteps=9, scale=0.5).objective.schedule.scale
        == 0.5
    )
