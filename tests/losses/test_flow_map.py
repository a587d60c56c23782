"""The flow map loss against the exact flow of Gaussian data, and its sampler."""

from types import SimpleNamespace

import pytest
import torch
from oracles import GaussianOracle
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.denoisers import Clip, NetworkSignature, TransformX0
from diffusion_framework.losses import FlowMapLoss, NoisedBatch, SimpleLoss
from diffusion_framework.losses.flow_map import guided, jump, jump_target
from diffusion_framework.models import RIN, DiT, ResidualMLP, Transformer1D, UNet1D
from diffusion_framework.models.layers import TimeEmbedding
from diffusion_framework.process.noise import noise_source
from diffusion_framework.process.objectives import X0, Eps, V, Velocity
from diffusion_framework.process.schedules import EDM, Cosine, Flow, Sigmoid
from diffusion_framework.samplers import FlowMap, trajectory
from diffusion_framework.samplers.grids import spaced_grid

CASES = pytest.mark.parametrize(
    ("schedule", "objective"),
    [(Flow(), Velocity()), (Cosine(), V()), (Sigmoid(), V()), (EDM(), Eps())],
    ids=lambda part: type(part).__name__,
)


class ExactMap:
    """Network that knows the exact jumps of Gaussian data."""

    def __init__(self, schedule, objective, mean=0.3):
        self.schedule, self.objective = schedule, objective
        self.oracle = GaussianOracle(mean, schedule=schedule)

    def output(self, x, at, to):
        here, there = at.expand_to(x), to.expand_to(x)
        mean, std = here.alpha * self.oracle.mean, self._std(here)
        flowed = there.alpha * self.oracle.mean + (x - mean) * self._std(there) / std
        kept, share = jump(self.objective, here, there)
        return (flowed - kept * x) / share, None

    def __call__(self, x, at, to=None):
        (mean, std), (to_mean, to_std) = self.oracle.marginal(at), self.oracle.marginal(to)
        kept, share = jump(self.objective, at, to)
        output = (to_mean + (x - mean) * to_std / std - kept * x) / share
        return self.objective.prediction(output, x, at)

    def _std(self, at):
        return (at.alpha**2 * self.oracle.std**2 + at.sigma**2).sqrt()


class GuidedMap:
    """Network that knows the exact guided jumps of two classes of Gaussian data.

    Classes have means .3 and -.7, and "none" has mean .1. Estimates of the clean data of Gaussians
    with equal deviations are on a line with their means, so the guided flow is that of a Gaussian.
    """

    def __init__(self, schedule, objective, guidance, label):
        self.schedule, self.objective, self.guidance = schedule, objective, guidance
        self.conditions = SimpleNamespace(keywords={"classes": label[:, None].float()})
        self.label = label

    def without(self):
        none = torch.full_like(self.label, -1)
        return GuidedMap(self.schedule, self.objective, self.guidance, none)

    def output(self, x, at, to=None):
        found = torch.zeros_like(x)
        for label, mean in ((0, 0.3), (1, -0.7), (-1, 0.1)):
            guided = 0.1 if label == -1 else self.guidance * mean + (1 - self.guidance) * 0.1
            exact = ExactMap(self.schedule, self.objective, guided)
            if to is None:  # a jump without length
                estimate = exact.oracle(x, at)
                output = self.objective.target(estimate.x0, estimate.eps, at)
            else:
                output, _ = exact.output(x, at, to)
            found = torch.where(self.label[:, None] == label, output, found)
        return found, None


def expected_batch(schedule, t, count=64):
    """A batch whose clean data and noise are those to expect for its x; its targets are means."""
    at = schedule.at(torch.full((count,), t, dtype=torch.float64))
    here = at.expand_to(torch.zeros(count, 2))
    x = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = here.alpha * 0.3 + x * (here.alpha**2 * 0.25 + here.sigma**2).sqrt()
    prediction = GaussianOracle(schedule=schedule)(x, at)
    return NoisedBatch(prediction.x0, prediction.eps, x, at)


@CASES
def test_the_target_tends_to_the_exact_jump_with_the_share_of_the_way(schedule, objective):
    exact, batch = ExactMap(schedule, objective), expected_batch(schedule, 0.7)
    to = schedule.at(torch.full((64,), 0.2, dtype=torch.float64))
    velocity = objective.target(batch.x0, batch.eps, batch.at)
    wanted, _ = exact.output(batch.x, batch.at, to)
    errors = [
        (jump_target(exact, batch, to, a, velocity) - wanted).abs().max().item()
        for a in (0.1, 0.01, 0.001)
    ]
    # a step along the known noise has an error of second order, so the bias of training is of first
    assert 50 < errors[0] / errors[1] < 200 and 80 < errors[1] / errors[2] < 120


@CASES
def test_a_jump_without_length_has_the_target_of_flow_matching(schedule, objective):
    exact, batch = ExactMap(schedule, objective), expected_batch(schedule, 0.4)
    velocity = objective.target(batch.x0, batch.eps, batch.at)
    target = jump_target(exact, batch, batch.at, 0.3, velocity)
    torch.testing.assert_close(target, velocity, rtol=1e-12, atol=1e-12)


@CASES
def test_guidance_in_the_target_leads_where_guided_sampling_does(schedule, objective):
    """Samples of both classes follow the guided flow, and those without a class the plain one."""
    label = torch.arange(64) % 3 - 1
    exact = GuidedMap(schedule, objective, 1.7, label)
    at = schedule.at(torch.full((64,), 0.7, dtype=torch.float64))
    to = schedule.at(torch.full((64,), 0.2, dtype=torch.float64))
    means = torch.tensor([0.3, -0.7, 0.1], dtype=torch.float64)[label][:, None]
    x = at.expand_to(means).alpha * means + at.expand_to(means).sigma * torch.randn(64, 2).double()
    plain = GaussianOracle(means, schedule=schedule)(x, at)
    batch = NoisedBatch(plain.x0, plain.eps, x, at)
    velocity = objective.target(batch.x0, batch.eps, at)
    turned = guided(exact, batch, velocity, 1.7)
    assert torch.equal(turned[label == -1], velocity[label == -1])
    wanted, _ = exact.output(x, at, to)
    errors = [
        (jump_target(exact, batch, to, a, turned) - wanted).abs().max().item()
        for a in (0.1, 0.01, 0.001)
    ]
    assert 50 < errors[0] / errors[1] < 200 and 80 < errors[1] / errors[2] < 120


def test_without_guidance_the_known_noise_is_followed_bit_for_bit():
    seen = []

    class Seen(ExactMap):
        def output(self, x, at, to):
            seen.append((x, at))
            return super().output(x, at, to)

    batch = expected_batch(Cosine(), 0.7)
    FlowMapLoss()(Seen(Cosine(), V()), batch)
    (x, at), _ = seen
    level = at.expand_to(x)
    assert torch.equal(x, level.alpha * batch.x0 + level.sigma * batch.eps)


def test_guidance_calls_the_network_once_more_and_needs_dropped_conditions():
    network = tiny_unet(second_time=True, num_classes=2, self_condition=False)
    told = {"labels": torch.tensor([0, 1, 1, 0])}
    diffusion = GaussianDiffusion(network, loss=FlowMapLoss(guidance=2.0))
    loss = diffusion(torch.rand(4, 1, 8, 8), **told)
    loss.backward()
    assert torch.isfinite(loss)
    match = "with dropout for a flow map with guidance=2, got none. Fix: .*condition_dropout 0.1"
    with pytest.raises(ValueError, match=match):
        GaussianDiffusion(network, loss=FlowMapLoss(guidance=2.0), condition_dropout=0.0)
    with pytest.raises(ValueError, match=match):
        GaussianDiffusion(tiny_unet(second_time=True), loss=FlowMapLoss(guidance=2.0))


@CASES
def test_exact_jumps_compose(schedule, objective):
    """One jump leads where many do: the law u(t, s) then u(s, r) = u(t, r)."""
    exact = ExactMap(schedule, objective)
    x = torch.randn(8, 2, dtype=torch.float64) * schedule.at(1.0).sigma
    ends = []
    for steps in (1, 2, 7):
        grid = spaced_grid(schedule, steps, "time")
        noise = noise_source(0, None, 8, torch.device("cpu"))
        *_, last = trajectory(FlowMap(), exact, x, grid, noise)
        ends.append(last.x)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-9, atol=1e-9)


def test_the_first_share_of_training_is_flow_matching_bit_for_bit():
    class Plain:
        objective, schedule = V(), Cosine()

        def output(self, x, at, to=None):
            return 0.3 * x, None

    batch = expected_batch(Cosine(), 0.6)
    plain = SimpleLoss()(Plain(), batch)
    early = NoisedBatch(batch.x0, batch.eps, batch.x, batch.at, progress=0.1)
    assert torch.equal(FlowMapLoss(power=0.0)(Plain(), early), plain)
    weighted = plain / (plain + 1e-3) ** 0.5
    assert torch.equal(FlowMapLoss()(Plain(), early), weighted)


def test_only_the_plain_error_leads_to_the_mean_of_few_numbers():
    """Weights by each sample's error lead to a median: of two plans, the one that most take."""

    class Constant:
        objective, schedule, value = X0(), Flow(), torch.tensor(0.4, requires_grad=True)

        def output(self, x, at, to=None):
            return self.value.expand_as(x), None

    x0 = torch.tensor([1.0] * 7 + [-1.0] * 3)[:, None]  # their mean is 0.4
    batch = NoisedBatch(x0, x0, x0, Flow().at(torch.full((10,), 0.9)), progress=0.1)
    slopes = [
        torch.autograd.grad(FlowMapLoss(power=power)(Constant(), batch).mean(), Constant.value)[0]
        for power in (0.0, 0.5)
    ]
    assert slopes[0].abs() < 1e-6 and slopes[1] < -0.3


def test_the_share_falls_from_1_to_the_smallest():
    loss = FlowMapLoss(warm_up=0.2, settled=0.8, smallest=0.01)
    shares = [loss.share(p) for p in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert shares == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_jumps_end_between_the_data_and_their_start():
    at = Flow().at(torch.rand(4000, dtype=torch.float64))
    zeros = torch.zeros(4000, 1)
    generator = torch.Generator().manual_seed(0)
    batch = NoisedBatch(zeros, zeros, zeros, at, generator=generator)
    ends = FlowMapLoss(same=0.25).ends(SimpleNamespace(schedule=Flow()), batch)
    assert bool((ends.t <= at.t).all()) and bool((ends.t > 0).all())
    assert (ends.t == at.t).double().mean().item() > 0.25 - 0.03


SEQUENCE = (8, 2, 2, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: tiny_unet(**o),
        lambda **o: DiT(16, 2, 2, 4, 1, 8, **o),
        lambda **o: RIN(16, 16, 4, 2, 1, 2, 4, 1, 8, **o),
        lambda **o: UNet1D(*SEQUENCE, down_dims=(8, 16), **o),
        lambda **o: Transformer1D(*SEQUENCE, dim=16, depth=1, **o),
        lambda **o: ResidualMLP(*SEQUENCE, dim=16, depth=1, **o),
    ],
    ids=["unet", "dit", "rin", "unet1d", "transformer1d", "residual_mlp"],
)
def test_networks_start_as_those_without_a_second_time_and_then_use_it(make):
    torch.manual_seed(0)
    without, with_second = make(), make(second_time=True)
    for parameter in without.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    fits = with_second.load_state_dict(without.state_dict(), strict=False)
    assert fits.missing_keys and all("second" in key for key in fits.missing_keys)
    shape = NetworkSignature.of(without).sample_shape
    x, time, end = torch.randn(2, *shape), torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.2])
    told = {"context": torch.randn(2, 2, 3)} if len(shape) == 2 else {}
    assert torch.equal(with_second(x, time, second_time=end, **told), without(x, time, **told))
    (embedding,) = (m for m in with_second.modules() if isinstance(m, TimeEmbedding))
    torch.nn.init.normal_(embedding.second_layers[-1].weight)
    jumped = with_second(x, time, second_time=end, **told)
    assert not torch.allclose(jumped, without(x, time, **told))
    still = with_second(x, time, second_time=time, **told)
    torch.testing.assert_close(with_second(x, time, **told), still)
    assert not torch.allclose(jumped, still)
    with pytest.raises(ValueError, match=r"Expected second_time of shape \[2\], got \[1\]"):
        with_second(x, time, second_time=end[:1], **told)


def test_a_model_trains_with_it_and_samples_by_jumps():
    network = tiny_unet(second_time=True, num_classes=2, self_condition=False)
    diffusion = GaussianDiffusion(network, loss="flow_map", timesteps=8)
    assert isinstance(diffusion.sampler, FlowMap)
    told = {"labels": torch.tensor([0, 1, 1, 0])}
    for progress in (0.0, 1.0):
        loss = diffusion(torch.rand(4, 1, 8, 8), progress=progress, **told)
        loss.backward()
        assert torch.isfinite(loss)
    drawn = diffusion.sample(2, labels=1, steps=1, guidance=2.0, show_progress=False)
    assert torch.isfinite(drawn).all()
    with pytest.raises(ValueError, match="takes a second time, got UNet. Fix: .*second_time true"):
        GaussianDiffusion(tiny_unet(), loss="flow_map")
    with pytest.raises(ValueError, match="Expected 0 <= warm_up < settled"):
        FlowMapLoss(warm_up=0.9)


def test_only_estimates_of_clean_data_are_clipped():
    schedule = Cosine()
    exact = ExactMap(schedule, V())
    clipping = TransformX0(exact, Clip(-0.1, 0.1))
    x, at = torch.randn(4, 2).double(), schedule.at(0.9)
    end = [*spaced_grid(schedule, 1, "time")][-1][1]
    assert clipping(x, at, end).x0.abs().max() <= 0.1
    jumped = clipping(x, at, schedule.at(0.4))
    assert torch.equal(jumped.x0, exact(x, at, schedule.at(0.4)).x0)
