"""Every kind of guidance against its formula, in float64 and with exact denoisers."""

import math

import pytest
import torch
from mixtures import ExactMixture, exact_diffusion, levels, points

from diffusion_framework.conditions import Labels
from diffusion_framework.denoisers import (
    APG,
    Autoguidance,
    CFGZero,
    ClassifierFree,
    ClassifierGuidance,
    Interval,
    PerCondition,
    Rescale,
    Sum,
)
from diffusion_framework.spaces import Unbounded

LABELS = torch.tensor([0, 1, 2, 0, 1])


def exactly(one, other):
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def x0(diffusion, x, at, labels=LABELS, **options):
    return diffusion.denoiser(labels=labels, **options)(x, at).x0


def pair(diffusion, x, at):
    """The conditional and the unconditional clean data."""
    return x0(diffusion, x, at), x0(diffusion, x, at, torch.full_like(LABELS, 3))


def likes_class(diffusion, labels):
    """The exact log p(class | x)."""

    def log_probability(x, at):
        scores = diffusion.model.class_scores(x, at.alpha, at.sigma).log_softmax(1)
        return scores.gather(1, labels[:, None])[:, 0]

    return log_probability


def kinds(scale):
    weaker = exact_diffusion(blur=0.4)
    return [
        ClassifierFree(scale),
        PerCondition({"labels": scale}),
        CFGZero(scale),
        Autoguidance(weaker, scale),
        Interval(scale),
        Rescale(scale),
        APG(scale),
        Sum((ClassifierFree(scale), Autoguidance(weaker, scale))),
        Rescale(inner=APG(inner=Autoguidance(weaker, scale)), share=0.5),
    ]


@pytest.mark.parametrize("guidance", kinds(1.0), ids=repr)
def test_scale_1_is_no_guidance_bit_for_bit(guidance):
    diffusion, x = exact_diffusion(), points()
    for at in levels():
        assert torch.equal(x0(diffusion, x, at, guidance=guidance), x0(diffusion, x, at))
    walk = {"labels": LABELS, "seed": 3, "show_progress": False, "steps": 6}
    assert torch.equal(diffusion.sample(5, guidance=guidance, **walk), diffusion.sample(5, **walk))


@pytest.mark.parametrize("guidance", kinds(3.0), ids=repr)
def test_clean_data_and_noise_add_up_to_x(guidance):
    diffusion, x = exact_diffusion(), points()
    for at in levels():
        prediction = diffusion.denoiser(labels=LABELS, guidance=guidance)(x, at)
        exactly(at.alpha * prediction.x0 + at.sigma * prediction.eps, x)
        assert not torch.allclose(prediction.x0, x0(diffusion, x, at))


@pytest.mark.parametrize("guidance", kinds(3.0), ids=repr)
def test_a_sample_does_not_depend_on_the_others_of_its_batch(guidance):
    diffusion = exact_diffusion()
    walk = {"guidance": guidance, "show_progress": False, "steps": 5}
    together = diffusion.sample(5, labels=LABELS, seed=[0, 1, 2, 3, 4], **walk)
    alone = [diffusion.sample(1, labels=LABELS[i : i + 1], seed=[i], **walk) for i in range(5)]
    exactly(together, torch.cat(alone))


@pytest.mark.parametrize("scale", [0.0, 2.5, -1.0])
def test_classifier_free_guidance_and_one_scale_per_condition(scale):
    diffusion, x = exact_diffusion(), points()
    for at in levels():
        given, free = pair(diffusion, x, at)
        for guidance in (scale, ClassifierFree(scale), PerCondition({"labels": scale})):
            exactly(x0(diffusion, x, at, guidance=guidance), free + scale * (given - free))


def test_negative_values_take_the_place_of_none():
    diffusion, x = exact_diffusion(dropout=0.0), points()  # they need no dropout
    for at in levels():
        given = x0(diffusion, x, at)
        for negative in (2, torch.full_like(LABELS, 2)):
            away = x0(diffusion, x, at, torch.full_like(LABELS, 2))
            for guidance in (
                ClassifierFree(2.5, negative={"labels": negative}),
                PerCondition({"labels": 2.5}, negative={"labels": negative}),
            ):
                guided = x0(diffusion, x, at, guidance=guidance)
                exactly(guided, away + 2.5 * (given - away))


def test_an_interval_guides_inside_and_calls_the_network_alone_outside():
    diffusion, x = exact_diffusion(), points()
    noisy, middle, clean = levels()
    sigmas = {at: math.exp(-at.log_snr / 2) for at in levels()}
    for interval in (
        Interval(3.0, low=sigmas[clean] * 1.01, high=sigmas[middle] * 1.01),
        Interval(inner=ClassifierFree(3.0), low=0.5, high=3.0, unit="log_snr"),
        Interval(3.0, low=1 / math.sqrt(math.exp(3.25)) + 1e-9, high=1.0),
    ):
        for at in levels():
            diffusion.model.sizes.clear()
            guided = x0(diffusion, x, at, guidance=interval)
            assert diffusion.model.sizes == [10 if at == middle else 5]
            assert torch.equal(guided, x0(diffusion, x, at, guidance=3.0 if at == middle else 1))
    for guidance in (Interval(3.0), Interval(3.0, low=0.1), Interval(3.0, high=50.0)):
        assert torch.equal(
            x0(diffusion, x, noisy, guidance=guidance), x0(diffusion, x, noisy, guidance=3.0)
        )


def test_the_ends_of_an_interval():
    """Sigma is guided in (low, high]."""
    diffusion, (noisy, middle, _) = exact_diffusion(), levels()
    ends = [(at.sigma / at.alpha) for at in (middle, noisy)]
    interval = Interval(2.0, low=ends[0], high=ends[1])
    assert interval.holds(noisy) and not interval.holds(middle)
    interval = Interval(2.0, low=noisy.log_snr, high=middle.log_snr, unit="log_snr")
    assert interval.holds(noisy) and not interval.holds(middle)
    assert not interval.holds(diffusion.schedule.clean)


def test_rescaling_brings_the_standard_deviation_back():
    diffusion, x = exact_diffusion(), points()
    for at in levels():
        given, free = pair(diffusion, x, at)
        guided = free + 4 * (given - free)
        ratio = given.std(1, keepdim=True) / guided.std(1, keepdim=True)
        for share in (1.0, 0.3):
            found = x0(diffusion, x, at, guidance=Rescale(4.0, share=share))
            exactly(found, share * guided * ratio + (1 - share) * guided)
        off = x0(diffusion, x, at, guidance=Rescale(4.0, share=0.0))
        assert torch.equal(off, x0(diffusion, x, at, guidance=4.0))
        full = x0(diffusion, x, at, guidance=Rescale(4.0, share=1.0))
        exactly(full.std(1), given.std(1))


def test_apg_without_its_three_changes_is_classifier_free_guidance():
    diffusion, x = exact_diffusion(), points()
    plain = APG(4.0, eta=1.0, momentum=0.0)
    for at in levels():
        exactly(x0(diffusion, x, at, guidance=plain), x0(diffusion, x, at, guidance=4.0))


def test_apg_follows_its_formula_along_a_trajectory():
    diffusion, x, scale, limit = exact_diffusion(), points(), 4.0, 0.3
    guidance = APG(scale, eta=0.25, momentum=-0.5, max_norm=limit * (scale - 1))
    denoise, average = diffusion.denoiser(labels=LABELS, guidance=guidance), torch.zeros(5, 2)
    for at in levels():
        given, free = pair(diffusion, x, at)
        average = given - free - 0.5 * average
        norm = average.norm(dim=1, keepdim=True)
        update = average * (limit / norm).clamp(max=1)
        unit = given / given.norm(dim=1, keepdim=True)
        parallel = (update * unit).sum(1, keepdim=True) * unit
        expected = given + (scale - 1) * (update - parallel + 0.25 * parallel)
        exactly(denoise(x, at).x0, expected)
    first = levels()[0]
    fresh = diffusion.denoiser(labels=LABELS, guidance=guidance)
    one = diffusion.denoiser(labels=LABELS, guidance=guidance)(x, first).x0
    assert torch.equal(fresh(x, first).x0, one), "each trajectory begins without momentum"


def test_cfg_zero_fits_the_velocity():
    diffusion, x = exact_diffusion(), points()
    for at in levels():
        total = at.alpha + at.sigma
        given, free = pair(diffusion, x, at)
        v, u = ((x - at.alpha * clean) / at.sigma - clean for clean in (given, free))
        fit = (v * u).sum(1, keepdim=True) / (u * u).sum(1, keepdim=True)
        velocity = fit * u + 3.0 * (v - fit * u)
        exactly(x0(diffusion, x, at, guidance=CFGZero(3.0)), (x - at.sigma * velocity) / total)


def test_cfg_zero_may_stay_at_its_first_level():
    diffusion, x = exact_diffusion(), points()
    noisy, middle, _ = levels()
    denoise = diffusion.denoiser(labels=LABELS, guidance=CFGZero(3.0, zero_first=True))
    first = denoise(x, noisy)
    exactly(first.x0, first.eps)
    exactly(denoise(x, middle).x0, x0(diffusion, x, middle, guidance=CFGZero(3.0)))


def test_autoguidance_leads_away_from_a_weaker_model():
    diffusion, weaker, x = exact_diffusion(), exact_diffusion(blur=0.4), points()
    for at in levels():
        given, weak = x0(diffusion, x, at), x0(weaker, x, at)
        exactly(
            x0(diffusion, x, at, guidance=Autoguidance(weaker, 2.5)), weak + 2.5 * (given - weak)
        )
        exactly(x0(diffusion, x, at, guidance=Autoguidance(diffusion, 2.5)), given)


def test_a_model_without_conditions_can_guide_and_be_guided():
    told, untold, x = exact_diffusion(), exact_diffusion(by_label=False), points()
    blurred = exact_diffusion(by_label=False, blur=0.4)
    for at in levels():
        guided = x0(told, x, at, guidance=Autoguidance(untold, 3.0))
        exactly(guided, x0(told, x, at, guidance=3.0))  # D without the label, by another network
        free, weak = (model.denoiser()(x, at).x0 for model in (untold, blurred))
        guided = untold.denoiser(guidance=Autoguidance(blurred, 2.0))(x, at).x0
        exactly(guided, 2 * free - weak)


def test_an_exact_classifier_makes_the_exact_conditional_denoiser():
    told, untold, x = exact_diffusion(), exact_diffusion(by_label=False), points()
    guidance = ClassifierGuidance(likes_class(untold, LABELS), of="noisy")
    for at in levels():
        with torch.no_grad():
            guided = untold.denoiser(guidance=guidance)(x, at)
        torch.testing.assert_close(guided.x0, x0(told, x, at), rtol=1e-10, atol=1e-10)
        assert not guided.x0.requires_grad
        exactly(at.alpha * guided.x0 + at.sigma * guided.eps, x)
    walk = {"seed": 3, "show_progress": False, "steps": 6}
    torch.testing.assert_close(
        untold.sample(5, guidance=guidance, **walk),
        told.sample(5, labels=LABELS, **walk),
        rtol=1e-5,  # the network's time is float32
        atol=1e-5,
    )


def test_gradients_flow_through_the_gradient_of_a_classifier():
    """The likelihood by the probability flow needs the Jacobian of the guided denoiser."""
    told, untold, x = exact_diffusion(), exact_diffusion(by_label=False), points(1)
    guidance = ClassifierGuidance(likes_class(untold, LABELS[:1]), of="noisy")
    for at in levels():

        def jacobian(diffusion, at=at, **options):
            denoise = diffusion.denoiser(**options)
            return torch.autograd.functional.jacobian(lambda x: denoise(x, at).x0, x)

        guided = jacobian(untold, guidance=guidance)
        torch.testing.assert_close(guided, jacobian(told, labels=LABELS[:1]), rtol=1e-8, atol=1e-8)


def test_a_classifier_scales_like_classifier_free_guidance():
    """`D + s sigma² / alpha grad log p(y | x) = D_c + (w - 1) (D_c - D_u)` for s = w - 1."""
    diffusion, x = exact_diffusion(), points()
    guidance = ClassifierGuidance(likes_class(diffusion, LABELS), scale=1.5, of="noisy")
    for at in levels():
        exactly(x0(diffusion, x, at, guidance=guidance), x0(diffusion, x, at, guidance=2.5))
    off = ClassifierGuidance(likes_class(diffusion, LABELS), scale=0.0, of="noisy")
    assert torch.equal(x0(diffusion, x, at, guidance=off), x0(diffusion, x, at))


def test_a_function_of_clean_data_is_differentiated_through_the_network():
    """A single Gaussian tilted by exp(tilt · data) has a closed form."""
    untold, x = exact_diffusion(by_label=False), points()
    with torch.no_grad():  # all classes the same
        untold.model.centres[:] = torch.tensor([0.4, -0.7])
        untold.model.variances[:] = 0.3
    untold.space = Unbounded(mean=5.0, std=2.0).eval()  # the function is given the user's units
    tilt, seen = torch.tensor([0.5, -1.0], dtype=torch.float64), []

    def score(data):
        seen.append(data.detach())
        return data @ tilt

    for at in levels():
        plain = untold.denoiser()(x, at).x0
        guided = untold.denoiser(guidance=ClassifierGuidance(score))(x, at).x0
        variance = at.sigma**2 * 0.3 / (at.alpha**2 * 0.3 + at.sigma**2)
        exactly(guided, plain + variance * 2.0 * tilt)
        exactly(seen[-1], 5.0 + 2.0 * plain)


def test_a_sum_adds_what_its_members_change():
    diffusion, weaker, x = exact_diffusion(), exact_diffusion(blur=0.4), points()
    members = (ClassifierFree(3.0), Interval(2.0, low=0.5), Autoguidance(weaker, 1.5))
    noisy, _, clean = levels()
    for at, count in ((noisy, 10), (clean, 10)):
        plain = x0(diffusion, x, at)
        changes = [x0(diffusion, x, at, guidance=each) - plain for each in members]
        diffusion.model.sizes.clear()
        guided = x0(diffusion, x, at, guidance=Sum(members))
        exactly(guided, plain + sum(changes))
        assert diffusion.model.sizes[0] >= count and len(diffusion.model.sizes) == 1
    everything = Interval(
        inner=Rescale(inner=Sum((*members, ClassifierGuidance(likes_class(diffusion, LABELS),
                                                              of="noisy")))), low=0.1
    )  # fmt: skip
    assert x0(diffusion, x, noisy, guidance=everything).isfinite().all()


class TwoConditions(ExactMixture):
    """An exact mixture whose answer also depends on a second condition."""

    def forward(self, x, time, labels, other):
        return super().forward(x, time, labels) + 0.1 * (other[:, None] + 1) * x


def test_scales_per_condition_add_conditions_one_after_the_other():
    network, x = TwoConditions(), points()
    conditions = {"labels": Labels(3, dropout=0.1)}
    conditions["other"] = Labels(4, dropout=0.1, keyword="other")
    diffusion = exact_diffusion(network=network, conditions=conditions)
    values = {"labels": LABELS, "other": torch.tensor([0, 1, 2, 3, 0])}
    none = {"labels": torch.full_like(LABELS, 3), "other": torch.full_like(LABELS, 4)}
    for at in levels():

        def clean(at=at, guidance=None, **told):
            return diffusion.denoiser(guidance=guidance, **{**none, **told})(x, at).x0

        full, free = clean(**values), clean()
        for first, second in (("labels", "other"), ("other", "labels")):
            one = clean(**{first: values[first]})
            network.sizes.clear()
            found = clean(guidance=PerCondition({first: 3.0, second: 1.5}), **values)
            exactly(found, free + 3.0 * (one - free) + 1.5 * (full - one))
            assert network.sizes == [15]
            network.sizes.clear()
            found = clean(guidance=PerCondition({second: 2.5}), **values)
            exactly(found, one + 2.5 * (full - one))
            assert network.sizes == [10]
            other = ClassifierFree(2.5, conditions=(second,))
            exactly(clean(guidance=other, **values), found)
        equal = PerCondition({"labels": 2.5, "other": 2.5})
        exactly(clean(guidance=equal, **values), clean(guidance=2.5, **values))
