"""Sampling options, resolved by `Walk`."""

import math

import numpy as np
import pytest
import torch
from oracles import GaussianOracle
from toys import Plain, tiny_diffusion

from diffusion_framework import DDIM, LCM, GaussianDiffusion, Heun, UniPC
from diffusion_framework.samplers import RK45, SinglestepDPM, trajectory
from diffusion_framework.samplers.choosing import count_calls
from diffusion_framework.samplers.grids import spaced_grid
from diffusion_framework.spaces import Unbounded


class Counting(GaussianOracle):
    """An exact denoiser that counts its calls."""

    calls = 0

    def __call__(self, x, at, to=None):
        self.calls += 1
        return super().__call__(x, at, to)


@pytest.mark.parametrize("sampler", [DDIM(), Heun(), UniPC(), SinglestepDPM(3)], ids=repr)
@pytest.mark.parametrize("schedule", ["sigmoid", "edm"])
@pytest.mark.parametrize("calls", [6, 10, 25])
def test_a_budget_of_calls_is_used_and_not_exceeded(sampler, schedule, calls):
    diffusion = GaussianDiffusion(Plain(), noise_schedule=schedule)
    grid = diffusion.walk(1, sampler=sampler, calls=calls).grid
    oracle = Counting(schedule=diffusion.schedule)
    x = torch.randn(2, 3, dtype=torch.float64) * grid.start.sigma
    list(trajectory(sampler, oracle, x, grid, torch.randn_like))
    assert oracle.calls == count_calls(sampler, diffusion.schedule, grid) <= calls
    longer = diffusion.grid(len(grid) + 1)
    assert count_calls(sampler, diffusion.schedule, longer) > calls


def test_the_first_and_the_last_step_start_at_first_and_last():
    schedule = GaussianDiffusion(Plain()).schedule
    first, last = schedule.at(0.9), schedule.at(0.05)
    for spacing in ("time", "log_snr", "optimal"):
        grid = spaced_grid(schedule, 6, spacing, first=first, last=last)
        assert len(grid) == 6 and grid.end.is_end
        starts = [grid.start.log_snr, grid[-1][0].log_snr]
        assert starts == pytest.approx([first.log_snr, last.log_snr])
    gaps = [now.t - to.t for now, to in spaced_grid(schedule, 6, first=first, last=last)[:-1]]
    assert gaps == pytest.approx([0.17] * 5)
    with pytest.raises(ValueError, match="noisier than the last, got times 0.05 and 0.9"):
        spaced_grid(schedule, 6, first=last, last=first)


def test_first_and_last_are_levels_in_a_unit():
    diffusion = tiny_diffusion()
    schedule = diffusion.schedule
    for same in (
        {"first": 8.0, "last": 0.5},
        {"first": "8", "last": np.float32(0.5)},
        {"first": "sigma=8", "last": "sigma = .5"},
        {"first": f"log_snr={-2 * math.log(8)}", "last": f"log_snr={2 * math.log(2)}"},
        {"first": f"time={schedule.at_log_snr(-2 * math.log(8)).t!r}", "last": 0.5},
    ):
        for spacing in ("time", "log_snr", "optimal", None):
            grid = diffusion.grid(6, spacing, sampler=diffusion.sampler, **same)
            sigmas = [now.sigma / now.alpha for now, _ in grid]
            assert sigmas[0] == pytest.approx(8) and sigmas[-1] == pytest.approx(0.5)
            assert len(grid) == 6 and grid.end.is_end
            assert diffusion.walk(1, steps=6, spacing=spacing, **same).grid == grid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"first": 1e9},
            "first with noise and on the schedule, .* is 3.162e.04 to 0, got 1",
        ),
        ({"last": 0.0}, "last with noise"),
        ({"last": "log_snr=inf"}, "last with noise"),
        ({"first": math.nan}, "first with noise"),
        ({"first": "loud"}, "first as sigma / alpha, or as 'sigma=80', .* got 'loud'. Fix"),
        ({"first": "snr=3"}, "got 'snr=3'"),
        ({"first": "time=1.5"}, "got 'time=1.5'"),
        ({"first": 0.5, "last": 8.0}, "a first level noisier than the last"),
        ({"steps": 1, "last": 0.5}, "at least two steps with a last level, got one"),
        ({"steps": "ddim2", "last": 0.5}, "a number of steps with last, got 'ddim2'"),
        ({"steps": "2", "spacing": "log_snr"}, "a number of steps with spacing, got '2'"),
    ],
)
def test_levels_that_are_none_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny_diffusion().walk(1, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("schedule", ["sigmoid", "cosine", "flow", "ve", "edm"])
@pytest.mark.parametrize("spacing", ["time", "log_snr", "optimal"])
def test_a_grid_has_as_many_steps_as_asked(schedule, spacing):
    diffusion = GaussianDiffusion(Plain(), noise_schedule=schedule, timesteps=6)
    for steps in (1, 2, 3, 7, 40):
        grid = diffusion.grid(steps, spacing)
        assert len(grid) == steps and grid.start == diffusion.schedule.at(1.0)
        assert grid.end.is_end and grid.is_connected
    assert len(diffusion.grid(spacing=spacing)) == 6
    assert len(diffusion.grid()) == diffusion.schedule.step_count(6)  # the process itself


def test_consistency_sampling_walks_the_steps_of_its_distillation():
    diffusion = tiny_diffusion(timesteps=1000)
    for options in ({"steps": 4}, {"calls": 4}):
        times = [now.t for now, _ in diffusion.walk(1, sampler=LCM(), **options).grid]
        assert [round(t * 1000) - 1 for t in times] == [999, 759, 499, 259]
    own = diffusion.walk(1, sampler=LCM(timesteps=100, original_steps=10), steps=2).grid
    assert [now.t for now, _ in own] == [1.0, 0.5]
    even = diffusion.walk(1, sampler="lcm", steps=4, spacing="time").grid
    assert [now.t for now, _ in even] == [1.0, 0.75, 0.5, 0.25]
    assert diffusion.walk(1, sampler=LCM()).grid == diffusion.walk(1, sampler=LCM(), steps=4).grid
    with pytest.raises(ValueError, match="1 to 50 sampler steps.*got 1000. Fix: change steps"):
        diffusion.sample(1, sampler=LCM(), steps=1000)


def test_a_sampler_can_be_given_by_name():
    diffusion = tiny_diffusion()
    for name, sampler in (("heun", Heun()), ("UniPC", UniPC()), ("ddim", DDIM())):
        assert diffusion.walk(1, sampler=name).sampler == sampler
    with pytest.raises(
        ValueError, match="sampler: expected a sampler, got 'hein'. Fix: write 'Heun'"
    ):
        diffusion.walk(1, sampler="hein")


def test_noise_comes_from_seeds_from_a_generator_or_as_a_tensor():
    diffusion = tiny_diffusion()
    by_seed = diffusion.walk(3, seed=5).start
    for seed in (np.int64(5), np.array(5), torch.tensor(5)):
        assert torch.equal(diffusion.walk(3, seed=seed).start, by_seed)
    assert torch.equal(
        diffusion.walk(2, seed=np.array([5, 6])).start, diffusion.walk(2, seed=[5, 6]).start
    )
    one, other = (diffusion.walk(3, generator=torch.Generator().manual_seed(1)).start for _ in "ab")
    assert torch.equal(one, other) and not torch.equal(one, by_seed)
    noise = torch.randn(3, 1, 8, 8)
    walk = diffusion.walk(3, noise=noise)
    assert torch.equal(walk.start, noise * walk.grid.start.sigma)
    assert torch.equal(diffusion.walk(3, noise=noise.numpy()).start, walk.start)
    assert torch.equal(diffusion.walk(3, seed=5, noise_device="cpu").start, by_seed)


def test_start_is_noised_to_the_level_of_strength():
    diffusion = tiny_diffusion(timesteps=10)
    data, noise = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    walk = diffusion.walk(2, start=data, noise=noise, strength=0.6)
    level = walk.grid.start
    assert level.t == pytest.approx(0.6) and len(walk.grid) == 6
    torch.testing.assert_close(walk.start, level.alpha * (2 * data - 1) + level.sigma * noise)
    arrays = {"start": data.numpy(), "noise": noise.numpy(), "strength": np.float64(0.6)}
    assert torch.equal(diffusion.walk(np.int64(2), **arrays).start, walk.start)


def test_numbers_of_steps_may_be_of_any_integer_type():
    diffusion = tiny_diffusion(timesteps=10)
    for options in ({"steps": 6}, {"calls": 6}):
        ((name, number),) = options.items()
        for one in (np.int64(number), np.uint8(number), torch.tensor(number)):
            walk = diffusion.walk(1, **{name: one})
            assert [*walk.grid] == [*diffusion.walk(1, **options).grid]


def test_samples_are_divided_by_the_last_alpha():
    """With `scale`, the last x is scale * x0."""

    class Grey(Plain):
        """Always predicts 0.8 as the clean data."""

        def forward(self, x, time):
            return torch.full_like(x, 0.8) + 0 * self.conv(x)

    for options in ({}, {"scale": 0.5}):
        diffusion = GaussianDiffusion(Grey(), objective="x0", timesteps=5, **options)
        images = diffusion.sample(2, sampler="ddim", show_progress=False)
        torch.testing.assert_close(images, torch.full_like(images, 0.9))
        walk = diffusion.walk(2)
        for snapshot in diffusion.trajectory(walk):
            torch.testing.assert_close(walk.decode(snapshot.x0), images)


def test_data_without_bounds_is_not_clipped():
    diffusion = tiny_diffusion(space=Unbounded(10.0, 5.0))
    torch.nn.init.normal_(diffusion.model.conv_out.weight, std=3)
    data = diffusion.sample(4, seed=0, show_progress=False)
    assert data.min() < 0 < 10 < data.max() and (data - 10).abs().max() > 15
    with pytest.raises(ValueError, match="a space with bounds for clip_denoised=True"):
        diffusion.sample(1, clip_denoised=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "calls": 3}, "one of steps, calls and grid, got steps and calls"),
        ({"calls": 0}, "network calls for at least one step, got calls=0"),
        ({"calls": 5, "sampler": RK45()}, "a fixed number of network calls, got RK45"),
        ({"seed": 1, "generator": torch.Generator()}, "a seed or a generator, got both"),
        ({"noise": torch.zeros(1, 8, 8)}, r"noise \[2, 1, 8, 8\], got \[1, 8, 8\]"),
        ({"strength": 0.0}, "got 0"),
        ({"generatr": 1}, "an option or a condition, got 'generatr'. Fix: write generator="),
        ({"sampelr": "ddim"}, "write sampler="),
        ({"show_progres": False}, "write show_progress="),
        ({"guidance_scale": 2.0}, "write guidance="),
        ({"eta": 0.3}, "got 'eta'. Fix: give it to the sampler, as in sampler=DDIM"),
        ({"num_inference_steps": 3}, "choose one of batch_size, sampler, steps"),
        ({"image_size": None}, "got 'image_size'. Fix: "),
        ({"labels": [0, 1]}, "build the network with num_classes"),
        ({"generator": [torch.Generator()] * 2}, "one torch.Generator, got list"),
        ({"seed": 3.0}, "an integer for seed, got 3.0. Fix: pass int"),
        ({"seed": "3"}, "an integer for seed, got '3'"),
        ({"seed": [1, 2.5]}, "an integer for seed, got 2.5"),
        ({"seed": np.array([1, 2, 3])}, "one seed for each of 2 samples, got 3"),
        ({"steps": 2.0}, "an integer for steps, got 2.0"),
        ({"calls": 2.5}, "an integer for calls, got 2.5"),
        ({"start": torch.zeros(3, 1, 8, 8)}, r"start \[2, ...\], got \[3, 1, 8, 8\]"),
        ({"start": torch.tensor(0.5)}, r"start \[2, ...\], got \[\]"),
        ({"start": "cat.png"}, "samples .* for start, got 'cat.png'"),
        ({"noise": "gaussian"}, r"noise \[2, 1, 8, 8\], got 'gaussian'"),
        ({"guidance": 2.0}, "trained with dropout"),
        ({"guidance": "strong"}, "kind of guidance, got 'strong'. Fix: choose one of"),
        ({"guidance": [2.0]}, "guidance as a number or a Guidance, got .2.0."),
        ({"sampler": DDIM}, "got the class DDIM. Fix: make an object, as in DDIM\\(\\)"),
        ({"sampler": 3}, "a sampler or its name, got int"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny_diffusion().sample(2, show_progress=False, **options)
    assert "\n" not in str(error.value)
