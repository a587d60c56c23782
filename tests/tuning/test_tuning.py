"""Tuning of a model whose denoiser is exact."""

import dataclasses

import pytest
import torch
from mixtures import exact_diffusion
from toys import tiny_diffusion

from diffusion_framework.process.level import Prediction
from diffusion_framework.samplers import LowerOrderFinal, UniPC
from diffusion_framework.tuning import Search, plot_tuning, table, tune
from diffusion_framework.tuning.paths import Paths, rms
from diffusion_framework.tuning.teacher import Teacher

CALLS = [6, 8]
SEARCH = Search(paths=256, batch_size=256, teacher_calls=20, show_progress=False)


@pytest.fixture(scope="module")
def model():
    return exact_diffusion(by_label=False)


@pytest.fixture(scope="module")
def tuning(model):
    return tune(model, CALLS, SEARCH)


def test_errors_on_other_noise_become_smaller(model, tuning):
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(5))
    options = {"noise": noise, "show_progress": False}
    goal = model.sample(1000, calls=60, **options)
    tuned = dataclasses.replace(model.sampler, tuned=tuple(one.tuned for one in tuning.found))
    for count, one in zip(CALLS, tuning.found, strict=True):
        before, after = (
            rms(model.sample(1000, calls=count, sampler=sampler, **options) - goal)
            for sampler in (model.sampler.untuned(), tuned)
        )
        assert after < before and one.error < one.default_error


def test_grids_rise_from_the_start_of_the_schedule_to_the_clean_end(model, tuning):
    for count, one in zip(CALLS, tuning.found, strict=True):
        grid = one.tuned.grid(model.schedule)
        assert len(grid) == count and grid.is_connected
        assert grid.start == model.schedule.at(1.0) and grid.end == model.schedule.clean
        assert all(now.log_snr < to.log_snr for now, to in grid)


def test_the_same_seed_finds_the_same(model):
    few = dataclasses.replace(SEARCH, paths=8, batch_size=8)
    assert tune(model, [3], few) == tune(model, [3], few)


def test_a_last_level_stays(model):
    few = dataclasses.replace(SEARCH, paths=8, batch_size=8, last=0.3)
    tuned = tune(model, [3], few).found[0].tuned
    last = tuned.grid(model.schedule)[-1][0]
    assert last.sigma / last.alpha == pytest.approx(0.3)


@pytest.mark.parametrize("sampler", [UniPC(2, predict="v"), LowerOrderFinal(UniPC(3))], ids=str)
def test_errors_of_steps_along_the_path_are_those_of_the_sampler(model, sampler):
    paths = Paths.draw(
        model,
        range(8),
        seed=0,
        batch_size=8,
        guidance=None,
        condition=lambda indices: {},
        count=lambda calls: None,
    )
    fine = model.grid(24, sampler=model.sampler)
    teacher, ends = Teacher.walk(paths, model.sampler, fine, 6)
    costs = teacher.costs(sampler, model.schedule)
    snapshots = list(paths.snapshots(paths.batches[0], model.sampler, fine))
    assert len(teacher.levels) == 7 and teacher.levels[-1].is_end
    # Two steps, the second to the end, from the path of the teacher itself
    values = [teacher.levels[i] for i in (0, 4, 6)]
    at = {now.log_snr: n for n, (now, _) in enumerate(fine)}

    def denoise(x, now, to=None):
        return Prediction.from_x0(snapshots[at[now.log_snr]].x0, x, now)

    denoise.schedule = model.schedule
    start = paths.batches[0].noise * fine.start.sigma
    _, state = sampler.step(denoise, start, values[0], values[1], sampler.init(2), torch.zeros_like)
    path = snapshots[at[values[1].log_snr] - 1].x
    x, _ = sampler.step(denoise, path, values[1], values[2], state, torch.zeros_like)
    assert costs[0, 4, 6].item() == pytest.approx(
        (x - ends).square().mean().sqrt().item(), rel=1e-4
    )


def test_the_table_and_the_picture(model, tuning, tmp_path):
    rows = table(tuning, model.schedule).splitlines()
    assert [row.split()[0] for row in rows[1:3]] == ["6", "8"] and "UniPC" in rows[1]
    plot_tuning(tuning, model.schedule, tmp_path / "tuned.png")
    assert (tmp_path / "tuned.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_tuned_is_refused(model):
    with pytest.raises(ValueError, match=r"own sampler is auto, got DDIM.*Fix:"):
        tune(tiny_diffusion(use_ddim=True), CALLS, SEARCH)
    for wrong in ([], [1], [11]):
        with pytest.raises(ValueError, match=r"Expected numbers of calls from 2 to 10.*Fix:"):
            tune(model, wrong, SEARCH)
    with pytest.raises(ValueError, match=r"Expected at least 2 paths.*Fix:"):
        Search(paths=1)
