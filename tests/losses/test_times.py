"""Tests of time samplers."""

import math
import multiprocessing

import pytest
import torch

from diffusion_framework import EDM, Cosine, Flow, Sigmoid
from diffusion_framework.losses import LogitNormal, LogNormal, LossAware, Steps, Stratified, Uniform
from diffusion_framework.losses.times import SampledLevels
from diffusion_framework.process.schedules import VE

CPU = torch.device("cpu")


def drawn(times, schedule, count=100_000):
    uniform = times.uniform(count, CPU, torch.Generator().manual_seed(0))
    return times.draw(schedule, uniform, times.memory(schedule)).at


def assert_distributed(values, cdf):
    """Checks the Kolmogorov-Smirnov statistic, with a bound of 5 / sqrt(n)."""
    values = values.sort().values
    expected = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    assert (cdf(values) - expected).abs().max() < 5 / math.sqrt(len(values))


@pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=repr)
def test_times_have_their_distributions(schedule):
    uniform = drawn(Uniform(), schedule).t
    assert uniform.min() > 0 and uniform.max() <= 1
    assert_distributed(uniform, lambda t: t)
    log_sigma = -drawn(LogNormal(-0.5, 0.7), schedule).log_snr / 2
    assert_distributed(log_sigma, lambda x: torch.special.ndtr((x + 0.5) / 0.7))
    logits = torch.logit(drawn(LogitNormal(0.3, 0.8), schedule).t)
    assert_distributed(logits, lambda x: torch.special.ndtr((x - 0.3) / 0.8))
    stratified = -drawn(Stratified(LogNormal(-0.5, 0.7)), schedule).log_snr / 2
    assert_distributed(stratified, lambda x: torch.special.ndtr((x + 0.5) / 0.7))


def test_levels_stay_on_the_schedule():
    at = LogNormal(mean=0.0, std=20.0).draw(EDM(), Uniform().uniform(1000, CPU)).at
    assert at.sigma.min() == pytest.approx(0.002) and at.sigma.max() == pytest.approx(80)
    torch.testing.assert_close(EDM().at(at.t).sigma, at.sigma)
    last = torch.ones(1, dtype=torch.float64)
    for times in (Uniform(), LogNormal(), LogitNormal(), Steps(4), Stratified()):
        assert times.draw(Sigmoid(), last).at.log_snr.isfinite()


def test_each_stratum_has_one_time():
    for _ in range(20):
        uniform = Stratified().uniform(64, CPU)
        assert uniform.min() > 0 and uniform.max() <= 1
        assert sorted((uniform * 64).ceil().int().tolist()) == list(range(1, 65))


@pytest.mark.parametrize("times", [Steps(5), Stratified(Steps(5)), LossAware(5)], ids=repr)
def test_steps_are_uniform_over_the_grid(times):
    for schedule, expected in (
        (Sigmoid(), [0.2, 0.4, 0.6, 0.8, 1.0]),
        (VE(), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ):
        at = drawn(times, schedule, 60_000)
        values, counts = at.t.round(decimals=9).unique(return_counts=True)
        assert values.tolist() == pytest.approx(expected)
        assert (
            (counts - 60_000 / len(expected)).abs() < 5 * math.sqrt(60_000 / len(expected))
        ).all()
        assert times.fixed_steps == 5


def by_hand(history, steps, losses, length):
    """Updates a history as improved-diffusion does, by appending and dropping the oldest."""
    for step, loss in zip(steps, losses, strict=True):
        history[step] = [*history[step], loss][-length:]


def test_loss_aware_remembers_the_last_losses_of_each_step():
    times, length = LossAware(4, history=3), 3
    memory = times.memory(Sigmoid())
    history = {step: [] for step in range(4)}
    generator = torch.Generator().manual_seed(0)
    for batch in (5, 1, 9, 16, 3, 7):  # in some, one step has more losses than the history
        steps = torch.randint(0, 4, (batch,), generator=generator)
        losses = torch.rand(batch, generator=generator) + steps
        before = memory.clone()
        memory, old = times.remember(memory, SampledLevels(None, None, steps), losses), memory
        assert torch.equal(old, before), "the old memory must not change"
        by_hand(history, steps.tolist(), losses.tolist(), length)
        for step in range(4):
            kept = sorted(square for square in memory[step, 1:].tolist() if square >= 0)
            assert kept == pytest.approx(sorted(loss**2 for loss in history[step]), rel=1e-6)
    expected = torch.tensor(
        [math.sqrt(sum(loss**2 for loss in history[step]) / length) for step in range(4)]
    )
    shares = 0.999 * expected / expected.sum() + 0.001 / 4
    torch.testing.assert_close(times.probabilities(memory).float(), shares)


def test_loss_aware_is_uniform_until_every_step_has_been_seen():
    times = LossAware(3, history=2)
    memory = times.memory(Sigmoid())
    for step in (0, 0, 1, 1, 2):
        memory = times.remember(
            memory, SampledLevels(None, None, torch.tensor([step])), torch.tensor([1.0 + step])
        )
        assert times.probabilities(memory).tolist() == pytest.approx([1 / 3] * 3)
    memory = times.remember(
        memory, SampledLevels(None, None, torch.tensor([2])), torch.tensor([3.0])
    )
    assert times.probabilities(memory).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=1e-3)


def test_loss_aware_weights_keep_the_expectation():
    times, losses = LossAware(4, history=1, uniform_share=0.1), torch.tensor([8.0, 0.5, 1.0, 0.0])
    memory = times.remember(
        times.memory(Sigmoid()), SampledLevels(None, None, torch.arange(4)), losses
    )
    uniform = Stratified().uniform(400_000, CPU)
    draw = times.draw(Sigmoid(), uniform, memory)
    assert torch.equal((draw.at.t * 4).round().long() - 1, draw.step)
    shares = torch.bincount(draw.step, minlength=4) / len(uniform)
    torch.testing.assert_close(shares, times.probabilities(memory).float(), atol=1e-4, rtol=0)
    other = torch.tensor([3.0, 1.0, 4.0, 1.0], dtype=torch.float64)
    assert (draw.weight * other[draw.step]).mean().item() == pytest.approx(
        other.mean().item(), rel=1e-3
    )
    weighted = draw.weight * losses[draw.step]
    assert (
        weighted.std()
        < losses[Steps(4).draw(Sigmoid(), uniform).at.t.mul(4).round().long() - 1].std()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogNormal(std=0.0), "finite std above 0, got LogNormal.*std=0.0"),
        (lambda: LogitNormal(mean=math.nan), "finite mean"),
        (lambda: Steps(0), "steps of Steps from 1 to 100000"),
        (lambda: LossAware(3, history=0), "history of LossAware from 1 to 100000"),
        (lambda: LossAware(3, uniform_share=0.0), r"uniform_share in \(0, 1\], got 0"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def remember_on(rank, store, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    times = LossAware(4, history=3)
    memory = times.memory(Sigmoid())
    generator = torch.Generator().manual_seed(rank)
    for _ in range(5):
        steps = torch.randint(0, 4, (6,), generator=generator)
        memory = times.remember(
            memory, SampledLevels(None, None, steps), torch.rand(6, generator=generator)
        )
    results.put((rank, memory.tolist()))
    torch.distributed.destroy_process_group()


def test_all_processes_remember_the_same(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=remember_on, args=(rank, tmp_path / "store", results))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    (_, first), (_, second) = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert first == second
    assert (torch.tensor(first)[:, 1:] >= 0).all(), "losses of both processes must arrive"
