import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracles import GaussianOracle, MixtureOracle
from torch import nn
from toys import Latent, Plain, SelfConditioned, tiny_diffusion, tiny_unet

from diffusion_framework import (
    DDIM,
    DDPM,
    LMS,
    Cosine,
    DPMSolver,
    GaussianDiffusion,
    Heun,
    MinSNR,
    Sigmoid,
    UniPC,
)
from diffusion_framework.denoisers import Preconditioning, Threshold
from diffusion_framework.losses import Uniform, output_weight
from diffusion_framework.process.noise import generator_noise, sample_seeds
from diffusion_framework.process.objectives import Eps, V
from diffusion_framework.process.schedules import Linear
from diffusion_framework.samplers import (
    DPM2,
    RK45,
    AdaptiveDPMSolver,
    Auto,
    Euler,
    KarrasVE,
    SinglestepDPM,
    Snapshot,
    checked,
    trajectory,
)
from diffusion_framework.samplers.choosing import count_calls
from diffusion_framework.storage.config import from_config, to_config


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("objective", ["v", "x0", "eps"])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss_equals_its_definition(objective, weighted):
    network = Plain()
    diffusion = GaussianDiffusion(
        network, objective=objective, min_snr_loss_weight=weighted, min_snr_gamma=3.0
    )
    images = torch.rand(6, 1, 4, 4)
    loss = diffusion(images, generator=generator())

    source = generator()
    times = Uniform().uniform(6, images.device, source)
    eps = generator_noise(source)(images)
    losses = []
    for image, t, noise in zip(images, times.tolist(), eps, strict=True):
        gamma = 1 / (1 + math.exp(-Sigmoid().at(t).log_snr))
        alpha, sigma, snr = math.sqrt(gamma), math.sqrt(1 - gamma), gamma / (1 - gamma)
        x0 = 2 * image - 1
        out = network.conv((alpha * x0 + sigma * noise)[None])[0]
        target, unit = {
            "v": (alpha * noise - sigma * x0, snr + 1),
            "x0": (x0, 1.0),
            "eps": (noise, snr),
        }[objective]
        losses.append(F.mse_loss(out, target) * (min(snr, 3.0) / unit if weighted else 1.0))
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_the_network_sees_time_in_float32_between_0_and_1():
    network = Plain()
    GaussianDiffusion(network)(torch.rand(500, 1, 4, 4))
    ((_, time),) = network.seen
    assert time.shape == (500,) and time.dtype == torch.float32
    assert 0 < time.min() < 0.05 and 0.95 < time.max() <= 1


def test_self_conditioning_sees_the_estimate_from_the_noised_image():
    network = SelfConditioned()
    diffusion = GaussianDiffusion(
        network, scale=0.5
    )  # below 1: what the network sees is not what was noised
    images = torch.rand(3, 1, 4, 4)
    diffusion(images, generator=generator(), self_condition_draw=0.0)
    (seen_first, first), (seen_second, second) = network.seen
    assert not first.any()
    assert torch.equal(seen_first, seen_second)

    source = generator()
    at = diffusion.schedule.at(Uniform().uniform(3, images.device, source))
    level = at.expand_to(images)
    x = level.alpha * (2 * images - 1) + level.sigma * generator_noise(source)(images)
    std = x.flatten(1).std(dim=1, correction=0)
    torch.testing.assert_close(seen_first, x / std[:, None, None, None])
    estimate = diffusion.objective.prediction(network.conv(seen_first), x, at).x0.clamp(-1, 1)
    torch.testing.assert_close(second, estimate)
    assert not second.requires_grad


def test_scale_one_leaves_the_input_alone():
    network = Plain()
    GaussianDiffusion(network)(torch.ones(4, 1, 4, 4), generator=generator())
    source = generator()
    at = (
        Sigmoid()
        .at(Uniform().uniform(4, torch.device("cpu"), source))
        .expand_to(torch.ones(4, 1, 4, 4))
    )
    torch.testing.assert_close(
        network.seen[0][0], at.alpha + at.sigma * generator_noise(source)(torch.ones(4, 1, 4, 4))
    )


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_self_conditioning_happens_with_its_probability(probability, share):
    network = SelfConditioned()
    diffusion = GaussianDiffusion(network, train_prob_self_cond=probability)
    runs = 300
    for _ in range(runs):
        diffusion(torch.rand(1, 1, 4, 4))
    extra = len(network.seen) - runs
    assert abs(extra / runs - share) < 5 * math.sqrt(max(share * (1 - share), 0) / runs) + 1e-9


def test_networks_without_feedback_are_called_once_and_with_what_they_take():
    network = Plain()
    GaussianDiffusion(network)(torch.rand(2, 1, 4, 4), self_condition_draw=0.0)
    assert len(network.seen) == 1
    assert GaussianDiffusion(tiny_unet(self_condition=False)).parts.estimate is None
    assert GaussianDiffusion(tiny_unet()).parts.estimate == "self_cond"
    assert GaussianDiffusion(tiny_unet(), train_prob_self_cond=0.0).parts.estimate is None


def test_latents_are_carried_while_training_without_their_gradient():
    network = Latent()
    loss = GaussianDiffusion(network)(torch.rand(2, 1, 4, 4), self_condition_draw=0.0)
    (_, none), (_, latents) = network.seen
    assert none is None
    assert torch.equal(latents, torch.ones(2, 3)) and not latents.requires_grad
    loss.backward()
    assert network.conv.weight.grad is not None


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()], ids=repr)
def test_estimates_and_latents_are_carried_while_sampling(sampler):
    network = Latent()
    diffusion = GaussianDiffusion(network)
    walk = diffusion.walk(2, sampler=sampler, steps=4, seed=0, self_conditioning=1)
    snapshots = list(diffusion.trajectory(walk))
    assert [None if latents is None else latents[0, 0].item() for _, latents in network.seen] == [
        None,
        1,
        2,
        3,
    ]
    for (self_cond, _), snapshot in zip(network.seen[1:], snapshots[:-1], strict=True):
        torch.testing.assert_close(self_cond, snapshot.x0)
    diffusion.sample(2, steps=1, show_progress=False)
    assert not network.seen[-1][0].any() and network.seen[-1][1] is None, (
        "a second run must not start from the first one's estimate"
    )


def test_samples_are_images():
    images = tiny_diffusion().sample(3, seed=0, show_progress=False)
    assert images.shape == (3, 1, 8, 8)
    assert not images.requires_grad


@pytest.mark.parametrize("schedule", ["sigmoid", "cosine", "linear"])
@pytest.mark.parametrize(
    "sampler",
    [
        Heun(),
        DPM2(),
        Euler(),
        DPMSolver(),
        UniPC(),
        UniPC(3, predict="v"),
        KarrasVE(),
        SinglestepDPM(),
    ],
    ids=repr,
)
def test_every_sampler_is_as_good_as_ddim_on_the_default_grid(sampler, schedule):
    """From pure noise at t = 1 the first step is the longest: no method may blow up there."""
    diffusion = GaussianDiffusion(Plain(), noise_schedule=schedule)
    oracle = MixtureOracle(schedule=diffusion.schedule)
    x = torch.randn(4000, dtype=torch.float64)

    def distance(sampler):
        noise = generator_noise(generator(1))
        end = list(trajectory(sampler, oracle, x, diffusion.grid(20), noise))[-1].x.sort().values
        return (oracle.cdf(end) - torch.arange(1, 4001) / 4000).abs().max().item()

    assert distance(sampler) < 1.2 * distance(DDIM()) + 0.02


def test_defaults_of_sampling():
    assert tiny_diffusion().sampler == Auto(sigma_data=0.5)
    assert tiny_diffusion(use_ddim=True).sampler == DDIM(eta=0.0)
    assert tiny_diffusion(use_ddim=False).sampler == DDPM()
    assert tiny_diffusion(time_difference=0.1).sampler == DDIM(), "UniPC needs steps that join"
    previous = tiny_diffusion(objective="previous_x", noise_schedule="linear_beta")
    assert previous.sampler == DDPM()
    assert len(tiny_diffusion(timesteps=7).grid()) == 7
    assert len(tiny_diffusion(timesteps=7).walk(1).grid) == 7
    assert len(tiny_diffusion(timesteps=7).walk(1, steps=3).grid) == 3


@pytest.mark.parametrize("schedule", ["sigmoid", "linear_beta", "flow", "edm", "ve"])
def test_sampling_without_a_word_takes_20_calls_with_any_schedule(schedule):
    network = Plain()
    diffusion = GaussianDiffusion(network, noise_schedule=schedule)
    assert torch.isfinite(diffusion.sample(1, seed=0, show_progress=False)).all()
    assert len(network.seen) == 20


@pytest.mark.parametrize(
    ("sampler", "calls"), [("ddim", 50), ("heun", 20), ("lcm", 4), ("ddpm", 1000), ("unipc", 20)]
)
def test_each_sampler_has_a_number_of_calls_that_suits_it(sampler, calls):
    diffusion = tiny_diffusion(timesteps=1000)
    grid = diffusion.walk(1, sampler=sampler).grid
    counted = count_calls(diffusion.walk(1, sampler=sampler).sampler, diffusion.schedule, grid)
    assert calls - 1 <= counted <= calls
    assert len(diffusion.walk(1, sampler="rk45").grid) == 1, "it chooses its own steps"


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()], ids=repr)
def test_image_i_is_the_same_for_every_batch_size(sampler):
    diffusion = tiny_diffusion()
    nn.init.normal_(diffusion.model.conv_out.weight, std=0.1)
    five = diffusion.sample(5, sampler=sampler, seed=3, show_progress=False)
    two = diffusion.sample(2, sampler=sampler, seed=3, show_progress=False)
    torch.testing.assert_close(five[:2], two, rtol=0, atol=1e-5)
    own = diffusion.sample(2, sampler=sampler, seed=sample_seeds(3, [4, 1]), show_progress=False)
    torch.testing.assert_close(five[[4, 1]], own, rtol=0, atol=1e-5)
    assert not torch.allclose(
        five, diffusion.sample(5, sampler=sampler, seed=4, show_progress=False)
    )


def test_sampling_does_not_touch_the_global_generator_or_the_mode():
    diffusion = tiny_diffusion().train()
    before = torch.get_rng_state()
    diffusion.sample(2, sampler=DDPM(), seed=0, show_progress=False)
    assert torch.equal(before, torch.get_rng_state())
    assert diffusion.training
    walk = diffusion.trajectory(diffusion.walk(2))
    next(walk)
    assert not diffusion.model.training
    walk.close()
    assert diffusion.model.training


def test_snapshots_end_at_the_sample():
    diffusion = tiny_diffusion(use_ddim=False)
    walk = diffusion.walk(2, seed=1)
    *_, last = diffusion.trajectory(walk)
    assert torch.equal(
        walk.decode(last.x, last.to), diffusion.sample(2, seed=1, show_progress=False)
    )
    assert last.to.is_end and last.index == 3


def test_sampling_from_an_exact_network_gives_the_data():
    """The whole path: a network that answers v exactly for data N(mean, std²) must give that data
    back.
    """

    class Exact(nn.Module):
        channels, image_size = 1, 32

        def forward(self, x, time):
            oracle = GaussianOracle(mean=0.2, std=0.15)
            at = Sigmoid().at(time[0].item())
            prediction = oracle(x, at)
            return at.alpha * prediction.eps - at.sigma * prediction.x0

    class Wrapped(Exact):
        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

    for use_ddim, steps in ((None, None), (True, 1000), (False, None)):
        images = GaussianDiffusion(Wrapped(), timesteps=1000, use_ddim=use_ddim).sample(
            16, seed=0, steps=steps, show_progress=False
        )
        pixels = images.flatten() * 2 - 1
        assert pixels.mean().item() == pytest.approx(0.2, abs=0.01)
        assert pixels.std().item() == pytest.approx(0.15, rel=0.04)


def test_clipping_keeps_estimates_in_range():
    diffusion = tiny_diffusion()
    nn.init.normal_(diffusion.model.conv_out.weight, std=3)
    clipped = list(diffusion.trajectory(diffusion.walk(2, seed=0)))
    assert max(s.x0.abs().max() for s in clipped) <= 1
    free = list(diffusion.trajectory(diffusion.walk(2, seed=0, clip_denoised=False)))
    assert max(s.x0.abs().max() for s in free) > 1


def test_clean_data_is_kept_in_range_as_told():
    diffusion = tiny_diffusion()
    nn.init.normal_(diffusion.model.conv_out.weight, std=3)

    def end(how):
        *_, last = diffusion.trajectory(diffusion.walk(2, seed=0, clip_denoised=how))
        return last.x0

    assert torch.equal(end(True), end(lambda x0: x0.clamp(-1, 1)))
    assert torch.equal(end("dynamic"), end(Threshold()))
    assert end("dynamic").abs().max() <= 1 and not torch.equal(end("dynamic"), end(True))
    assert end(lambda x0: x0.clamp(0.1, 0.2)).min() >= 0.1
    with pytest.raises(ValueError, match="'dynamic' or a function of the clean data, got 'hard'"):
        end("hard")


def test_names_and_objects_serve_alike():
    by_name = tiny_diffusion(noise_schedule="cosine", schedule_kwargs={"tau": 2.0}, objective="eps")
    assert by_name.schedule == Cosine(tau=2.0) and by_name.objective == Eps()
    by_object = tiny_diffusion(noise_schedule=Linear(), objective=V())
    assert by_object.schedule == Linear() and by_object.objective == V()


def test_defaults_are_those_of_the_original_api():
    diffusion = GaussianDiffusion(tiny_unet())
    assert (diffusion.timesteps, diffusion.schedule, diffusion.objective) == (1000, Sigmoid(), V())
    assert diffusion.loss_weight == MinSNR(5) and diffusion.train_prob_self_cond == 0.9
    assert diffusion.time_difference == 0
    assert diffusion.sampler == Auto()
    assert diffusion.preconditioning == Preconditioning()


def test_a_grid_of_ones_own_is_walked():
    diffusion = tiny_diffusion()
    own = diffusion.grid(5, sampler=diffusion.sampler)
    ends = [
        diffusion.sample(2, seed=0, show_progress=False, **where)
        for where in ({"grid": own}, {"steps": 5})
    ]
    assert torch.equal(*ends)
    with pytest.raises(ValueError, match="one of steps, calls and grid, got steps and grid"):
        diffusion.sample(2, steps=5, grid=own, show_progress=False)


def test_spacings():
    diffusion = tiny_diffusion(timesteps=100)
    for spacing in ("time", "log_snr", "optimal"):
        grid = diffusion.grid(9, spacing)
        assert len(grid) == 9 and grid.start.t == pytest.approx(1.0) and grid.end.is_end
    gaps = [to.log_snr - now.log_snr for now, to in diffusion.grid(9, "log_snr", first=80)[:-1]]
    assert gaps == pytest.approx([gaps[0]] * 8)
    pure, *gaps = [to.log_snr - now.log_snr for now, to in diffusion.grid(9, "log_snr")[:-1]]
    assert gaps == pytest.approx([gaps[0]] * 7) and pure > gaps[0]
    angles = [math.atan2(now.sigma, 0.9 * now.alpha) for now, _ in diffusion.grid(9, "optimal")]
    turns = [a - b for a, b in itertools.pairwise(angles)]
    assert turns == pytest.approx([turns[0]] * 8)
    assert [now.t for now, _ in diffusion.grid("ddim50")] == pytest.approx(
        [(i + 1) / 100 for i in range(98, -1, -2)]
    )
    with pytest.raises(ValueError, match="'time', 'log_snr' or 'optimal', got 'even'"):
        diffusion.grid(9, "even")
    with pytest.raises(ValueError, match="'10,15,20' or 'ddim50', got 'many'"):
        diffusion.grid("many")


def test_time_difference_reaches_the_grid():
    now, to = tiny_diffusion(timesteps=10, time_difference=0.04).grid()[2]
    assert (now.t, to.t) == (pytest.approx(0.8), pytest.approx(0.66))


def test_config_round_trip():
    diffusion = tiny_diffusion(noise_schedule=Cosine(tau=1.5), objective="eps", min_snr_gamma=3.0)
    again = from_config(to_config(diffusion), GaussianDiffusion)
    assert to_config(again) == to_config(diffusion)
    assert again.schedule == diffusion.schedule and again.objective == diffusion.objective
    with pytest.raises(ValueError, match="a class of diffusion_framework, got os.system") as error:
        from_config(
            {"class_path": "os.system", "init_args": {"command": "true"}}, GaussianDiffusion
        )
    assert "\n" not in str(error.value)


def test_learned_variance_comes_out_of_the_denoiser():
    diffusion = GaussianDiffusion(tiny_unet(learned_variance=True))
    x = torch.randn(2, 1, 8, 8)
    prediction = diffusion.denoiser()(x, diffusion.schedule.at(0.5))
    assert prediction.x0.shape == x.shape
    torch.testing.assert_close(
        prediction.variance, torch.full_like(x, 0.5)
    )  # an output of 0 is half way
    assert torch.isfinite(diffusion(torch.rand(2, 1, 8, 8)))


def test_the_coin_of_self_conditioning_follows_the_generator():
    network = SelfConditioned()
    diffusion = GaussianDiffusion(network, train_prob_self_cond=0.5)
    images = torch.rand(2, 1, 4, 4)
    assert len({diffusion(images, generator=generator(3)).item() for _ in range(10)}) == 1


def test_modules_frozen_in_evaluation_mode_stay_so():
    diffusion = tiny_diffusion().train()
    diffusion.model.middle_out.eval()
    diffusion.sample(1, steps=1, show_progress=False)
    assert diffusion.training and diffusion.model.conv_in.training
    assert not diffusion.model.middle_out.training


def test_labels_reach_the_network():
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), timesteps=2)
    for parameter in diffusion.parameters():
        nn.init.normal_(parameter, std=0.2)
    one, two = (
        diffusion.sample(1, seed=0, labels=torch.tensor([c]), show_progress=False) for c in (0, 1)
    )
    assert not torch.allclose(one, two)
    losses = [
        diffusion(torch.ones(2, 1, 8, 8), generator=generator(), labels=torch.tensor(c))
        for c in ([0, 0], [1, 1])
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tiny_diffusion(noise_schedule="cosin"),
            "expected a noise schedule, got 'cosin'. Fix: write 'Cosine'",
        ),
        (
            lambda: tiny_diffusion(noise_schedule="scaled"),
            "as Scaled needs schedule, scale, got the name 'scaled'. Fix: give Scaled",
        ),
        (lambda: tiny_diffusion(noise_schedule=Linear), "got the class Linear"),
        (
            lambda: tiny_diffusion(objective="noise"),
            "expected an objective, got 'noise'. Fix: choose one of V, X0",
        ),
        (
            lambda: tiny_diffusion(noise_schedule=Linear(), schedule_kwargs={"tau": 1.0}),
            "schedule given by name",
        ),
        (lambda: tiny_diffusion(timesteps=0), "timesteps from 1 to 100000, got 0"),
        (lambda: tiny_diffusion(timesteps=10.5), "an integer for timesteps, got 10.5"),
        (lambda: tiny_diffusion(timesteps="10"), "an integer for timesteps, got '10'"),
        (lambda: tiny_diffusion(scale=0.0), r"\(0, 1\], got 0"),
        (lambda: tiny_diffusion(train_prob_self_cond=1.1), r"\[0, 1\], got 1.1"),
        (lambda: tiny_diffusion(time_difference=-0.1), "got -0.1"),
        (lambda: tiny_diffusion(min_snr_gamma=-1.0), "finite gamma above 0, got -1"),
        (lambda: GaussianDiffusion(nn.Linear(2, 2)), r"forward\(x, time, ...\) in Linear"),
        (
            lambda: tiny_diffusion()(torch.rand(2, 3, 8, 8)),
            r"\[batch, 1, 8, 8\] for UNet, got \[2, 3, 8, 8\]",
        ),
        (
            lambda: tiny_diffusion().sample(0, show_progress=False),
            "batch_size of at least 1, got 0",
        ),
        (
            lambda: tiny_diffusion().sample(2, steps=0, show_progress=False),
            "from 1 to 100000, got 0",
        ),
        (
            lambda: tiny_diffusion().sample(3, seed=[1, 2], show_progress=False),
            "each of 3 samples, got 2",
        ),
        (
            lambda: tiny_diffusion(time_difference=0.1).sample(
                1, sampler=LMS(), show_progress=False
            ),
            "without memory",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class NanBelow(nn.Module):
    """A network that fails at low noise, on a device of one's choice."""

    channels, image_size = 1, 4

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, time):
        self.calls += 1
        return x * torch.where(time < 0.45, torch.nan, 0.1)[:, None, None, None]


def test_nan_from_the_network_is_an_error_that_names_the_step():
    network = NanBelow()
    diffusion = GaussianDiffusion(network, timesteps=10)
    with pytest.raises(
        FloatingPointError,
        match=r"NaN or infinity in step 7 of sampling, at time 0.4. Fix: take an earlier",
    ):
        diffusion.sample(2, show_progress=False)
    assert network.calls == 7  # and ends there
    for sampler in (RK45(), AdaptiveDPMSolver()):
        with pytest.raises(FloatingPointError, match="NaN or infinity") as error:
            diffusion.sample(2, sampler=sampler, steps=1, show_progress=False)
        assert "\n" not in str(error.value)


def test_nan_is_looked_for_once_where_asking_would_wait():
    """On a device that answers late: all snapshots come, then the error, with the first step that
    was wrong.
    """
    at = Sigmoid().at(0.5)
    good, bad = torch.zeros(2, 3), torch.tensor([[1.0, torch.nan]])

    class Late(torch.Tensor):
        device = SimpleNamespace(type="late")

    walk = [
        Snapshot(i, at, at, x.as_subclass(Late), x) for i, x in enumerate([good, bad, bad, good])
    ]
    seen = []
    with pytest.raises(FloatingPointError, match="in step 2 of"):
        seen.extend(checked(walk))
    assert len(seen) == 4


def test_wrong_types_are_refused_at_the_door():
    with pytest.raises(Exception, match="data"):
        tiny_diffusion()([0.5])
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], uint8 or uint16, got torch.int64"):
        tiny_diffusion()(torch.zeros(2, 1, 8, 8, dtype=torch.int64))


def test_weight_is_used_per_sample():
    at = Sigmoid().at(torch.tensor([0.1, 0.9], dtype=torch.float64))
    weight = output_weight(MinSNR(), V(), at)
    assert weight.shape == (2,) and weight[0] != weight[1]


@pytest.mark.parametrize("sampler", [LMS(2), DPMSolver(2), UniPC(2)], ids=repr)
@pytest.mark.parametrize("schedule", [Cosine(tau=2.0), Sigmoid(clip_min=1e-2)], ids=repr)
def test_samplers_walk_schedules_that_stand_still_at_their_end(sampler, schedule):
    diffusion = tiny_diffusion(noise_schedule=schedule, timesteps=300)
    assert len(diffusion.grid()) < 300
    assert torch.isfinite(diffusion.sample(1, sampler=sampler, seed=0, show_progress=False)).all()
