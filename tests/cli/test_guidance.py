"""Guidance on the command line: a scale, or a kind by name with its options."""

import pytest
import torch
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.cli.program import run_program
from diffusion_framework.cli.words import overlay
from diffusion_framework.denoisers import APG, Autoguidance, ClassifierFree, Interval, PerCondition


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guided") / "run"
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), timesteps=4, condition_dropout=0.1)
    diffusion.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "guidance"),
    [
        ("--guidance 2", 2.0),
        ("--guidance.scale 2", ClassifierFree(2.0)),
        (
            "--guidance.scale 2 --guidance.negative.labels 1",
            ClassifierFree(2.0, None, {"labels": 1}),
        ),
        (
            "--guidance ClassifierFree --guidance.conditions labels",
            ClassifierFree(2.0, ("labels",)),
        ),
        ("--guidance per_condition --guidance.scales.labels 3", PerCondition({"labels": 3.0})),
        (
            "--guidance Interval --guidance.scale 3 --guidance.low .2 --guidance.high 5",
            Interval(3.0, low=0.2, high=5.0),
        ),
        (
            "--guidance Interval --guidance.low -2 --guidance.unit log_snr --guidance.inner apg "
            "--guidance.inner.scale 3 --guidance.inner.max_norm 2",
            Interval(low=-2.0, unit="log_snr", inner=APG(3.0, max_norm=2.0)),
        ),
        ("--guidance Autoguidance --guidance.run RUN --guidance.scale 2", Autoguidance("RUN")),
    ],
)
def test_samples_are_guided_as_the_flags_say(words, guidance, run, tmp_path, monkeypatch):
    seen, original = [], GaussianDiffusion.sample
    monkeypatch.setattr(
        GaussianDiffusion, "sample", lambda self, *a, **k: seen.append(k) or original(self, *a, **k)
    )
    words = [run if word == "RUN" else word for word in words.split()]
    flags = ["--num_samples=2", "--steps=2", f"--output={tmp_path / 'samples'}", "--device=cpu"]
    run_program(["sample", run, *words, *flags])
    if isinstance(guidance, Autoguidance):
        guidance = Autoguidance(run)
    assert [options["guidance"] for options in seen] == [guidance]
    assert (tmp_path / "samples" / "00001.png").is_file()


def test_a_config_keeps_the_options_of_the_kind_that_flags_name_again(tmp_path, capsys):
    config = tmp_path / "guided.yaml"
    config.write_text("guidance:\n  class_path: Interval\n  init_args: {low: 0.2, scale: 3}\n")
    for words, shown in (
        ([], ["low: 0.2", "scale: 3.0"]),
        (["--guidance.high=5"], ["low: 0.2", "high: 5.0"]),
        (["--guidance=2.5"], ["guidance: 2.5"]),
        (["--guidance=APG"], ["class_path: APG"]),
    ):
        with pytest.raises(SystemExit):
            run_program(["sample", "RUN", f"--config={config}", *words, "--print_config"])
        printed = capsys.readouterr().out
        assert all(line in printed for line in shown), printed


def test_words_that_name_no_class_replace_a_part():
    part = {"class_path": "Interval", "init_args": {"low": 0.2}}
    assert overlay(part, "2.5") == "2.5"
    assert overlay(part, "null") == "null"
    assert overlay(part, "interval") == {**part, "class_path": "interval"}
    assert overlay(part, "APG") == {"class_path": "APG"}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--guidance=2"], "guidance: 2.0"),
        (["--guidance=Interval", "--guidance.high=3"], "class_path: Interval"),
        (["--sampler=null", "--guidance=null"], "guidance: null"),
    ],
)
def test_plans_of_policies_are_guided_by_flags_too(words, shown, capsys):
    with pytest.raises(SystemExit) as end:
        run_program(["rollout", "RUN", "--env=any/World-v0", *words, "--print_config"])
    assert end.value.code == 0 and shown in capsys.readouterr().out
