"""Guidance that does not fit is refused in one line with a remedy."""

import pytest
import torch
from demonstrations import behaviour_cloning
from mixtures import ExactMixture, exact_diffusion, levels, points

from diffusion_framework import EDM, Cosine, GaussianDiffusion
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


def guided(guidance, **options):
    diffusion = exact_diffusion(**options)
    return diffusion.denoiser(labels=LABELS, guidance=guidance)(points(), levels()[0])


def by_another(**options):
    parts = {"objective": "x0", "space": Unbounded(mean=0.0, std=1.0), "conditions": {}}
    parts["noise_schedule"] = Cosine()
    network = ExactMixture(by_label=False)
    return Autoguidance(GaussianDiffusion(network, **{**parts, **options}).eval())


class Wide(ExactMixture):
    sample_shape = (3,)


CASES = [
    (lambda: guided("Intervall"), "kind of guidance, got 'Intervall'. Fix: write 'Interval'"),
    (lambda: guided([2.0]), "guidance as a number"),
    (lambda: guided(2.0, dropout=0.0), "trained with dropout, got none"),
    (lambda: guided(CFGZero(2.0), dropout=0.0), "trained with dropout, got none"),
    (lambda: guided(PerCondition({"labels": 2.0}), dropout=0.0), "dropout, got labels"),
    (lambda: guided(PerCondition({"lables": 2.0})), "Fix: write 'labels'"),
    (lambda: guided(ClassifierFree(2.0, conditions=("lables",))), "Fix: write 'labels'"),
    (lambda: guided(ClassifierFree(2.0, conditions=("x",))), "conditions labels, got 'x'"),
    (lambda: guided(ClassifierFree(2.0, negative={"lables": 1})), "Fix: write 'labels'"),
    (lambda: guided(ClassifierFree(2.0, negative={"labels": 7})), "got 7 in sample 0"),
    (lambda: guided(ClassifierFree(2.0, negative={"labels": [1, 2]})), "each of 5 samples, got 2"),
    (lambda: guided(ClassifierFree(2.0, (), {"labels": 1})), "conditions that guidance leaves out"),
    (lambda: PerCondition({}), "a scale for a condition, got none"),
    (lambda: PerCondition({"labels": float("inf")}), "finite guidance scale, got inf"),
    (lambda: PerCondition({"labels": 2.0}, {"text": "x"}), "with a scale, labels, got .*'text'"),
    (lambda: Interval(2.0, low=1.0, high=1.0), "low < high, got low 1.0 and high 1.0"),
    (lambda: Interval(2.0, unit="time"), "'sigma' or 'log_snr', got 'time'"),
    (lambda: Interval(2.0, ClassifierFree()), "scale or inner of Interval, got both"),
    (lambda: Rescale(float("nan")), "finite guidance scale, got nan"),
    (lambda: Rescale(share=1.5), r"share in \[0, 1\], got 1.5"),
    (lambda: APG(momentum=1.0), "momentum=1.0"),
    (lambda: APG(max_norm=0.0), "max_norm=0.0"),
    (lambda: Sum(()), "members of a sum of guidance, got none"),
    (lambda: ClassifierGuidance(), "Expected a function"),
    (lambda: ClassifierGuidance(len, of="noise"), "of='clean' or of='noisy', got 'noise'"),
    (lambda: guided(ClassifierGuidance(lambda x0: x0)), r"log-probabilities \[5\].*got \[5, 2\]"),
    (
        lambda: guided(ClassifierGuidance(lambda x0: x0.detach().sum(1))),
        "Fix: return one differentiable number",
    ),
    (lambda: guided(by_another(noise_schedule=EDM())), "the same schedule"),
    (lambda: guided(by_another(space=Unbounded(mean=1.0, std=1.0))), "space, with the same stat"),
    (lambda: guided(Autoguidance(exact_diffusion(network=Wide()))), r"sample_shape .*\[2\].*\[3\]"),
    (
        lambda: guided(Autoguidance(exact_diffusion().train())),
        r"training mode. Fix: .*eval\(\)",
    ),
    (lambda: guided(Autoguidance(behaviour_cloning().eval())), "diffusion .*BehaviourCloning"),
    (lambda: guided(Autoguidance("/no/such/run")), "/no/such/run: expected a results folder"),
    (lambda: Autoguidance("run", float("nan")), "finite guidance scale, got nan"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[message for _, message in CASES])
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    text = str(error.value)
    assert "\n" not in text and "Fix: " in text and len(text) < 500


def test_gradients_need_a_mode_that_allows_them():
    guidance = ClassifierGuidance(lambda x0: x0.sum(1))
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="sample under torch.no_grad"),
    ):
        guided(guidance)


@pytest.mark.parametrize("as_path", [False, True])
def test_a_weaker_model_of_an_own_class_is_opened_with_trust_and_then_given(as_path, tmp_path):
    weaker = exact_diffusion(blur=0.4)
    folder = tmp_path / "weaker"
    with pytest.warns(UserWarning, match="a class of mixtures"):
        weaker.save_pretrained(folder)
    run = folder if as_path else str(folder)
    with pytest.raises(ValueError, match="mixtures"):  # a class of the test
        guided(Autoguidance(run))
    with pytest.raises(TypeError, match="trust"):  # a file of guidance could ask for it
        Autoguidance(run, trust=("mixtures",))
    opened = GaussianDiffusion.from_pretrained(run, trust=("mixtures",))
    found, expected = guided(Autoguidance(opened)), guided(Autoguidance(weaker))
    assert torch.equal(found.x0, expected.x0)
