"""Averages of any width, made after a run from the averages that it tracked (post-hoc EMA)."""

import json
import os
import shutil

import commands
import pytest
import torch
from runs import assert_resumes_exactly, rewrite, trainer, weights
from torch import nn
from toys import tiny_diffusion

from diffusion_framework import GaussianDiffusion, UniPC
from diffusion_framework.averaging import PowerProfile
from diffusion_framework.denoisers import Autoguidance
from diffusion_framework.samplers.tuned import Tuned
from diffusion_framework.samplers.tuned_file import TunedCalls, TunedFile
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.storage.config import to_config
from diffusion_framework.storage.description import Description
from diffusion_framework.storage.exporting import export_run
from diffusion_framework.storage.post_hoc_ema import StoredAverages
from diffusion_framework.trainable import Trainable
from diffusion_framework.training import EMA, Previews, post_hoc_ema
from diffusion_framework.training.profiles import TrackedProfiles

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
ONE_LINE = r"\A[^\n]*{}[^\n]* Fix: [^\n]+\Z"


def run_of(results, steps=24, profiles=(0.05, 0.1), snapshots=8, **options):
    ema = EMA(profiles=profiles, snapshots=snapshots)
    fast = {"save_and_sample_every": 12, "previews": Previews(every=0), "train_lr": 3e-3}
    return trainer(IMAGES, results, ema=ema, train_num_steps=steps, **{**fast, **options})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averages") / "run"
    run_of(folder).train()
    return folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The same run with more profiles, which keeps its snapshots in memory in full precision."""
    run = run_of(tmp_path_factory.mktemp("exact"), profiles=(0.05, 0.1, 0.07, 0.15))
    run.kept = []

    def keep(folder, tensors):
        copies = {f: {k: v.clone() for k, v in group.items()} for f, group in tensors.items()}
        run.kept.append(copies)
        return "0" * 64

    run.state.profiles.write_snapshot = keep
    run.train()
    return run


def snapshots(results):
    return [path.name for path in list_checkpoints(results, "ema")]


def apart(one, other):
    return sum((one[name] - other[name]).norm() ** 2 for name in one) ** 0.5


class Weights(Trainable):
    """A model of weights that the tests set."""

    sample_shape, networks = (1,), ()

    def __init__(self, size):
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(size))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, data, **_):
        raise NotImplementedError

    def validation_metrics(self, data, **_):
        raise NotImplementedError


@pytest.mark.parametrize("every", [1, 5])
def test_each_step_takes_its_part_of_the_profile_in_an_average(every):
    """The weights of step i are the i-th unit vector, so that an average is its own profile."""
    model, profile, count = Weights(60), PowerProfile(0.1), 60
    tracked = TrackedProfiles(model, [profile], every, 4)
    for step in range(1, count + 1):
        model.trained.data.zero_()[step - 1] = 1
        tracked.update(step)
    edges = torch.arange(0, count + 1, every, dtype=torch.float64) / count
    (averages,) = tracked.tensors().values()
    assert averages.keys() == {"trained"}, "what is not trained is not averaged"
    exact = (edges ** (profile.gamma + 1)).diff().float()
    torch.testing.assert_close(averages["trained"][every - 1 :: every], exact)
    assert averages["trained"].count_nonzero() <= count // every


def test_an_update_waits_for_nothing():
    """On the meta device, an operation that reads a value raises."""
    model = tiny_diffusion().to("meta")
    tracked = TrackedProfiles(model, [PowerProfile(0.05), PowerProfile(0.1)], 2, 4)
    for step in range(1, 7):
        tracked.update(step)
    assert tracked.step == 6
    assert all(v.is_meta for group in tracked.tensors().values() for v in group.values())


def test_profiles_change_nothing_else_and_snapshots_keep_their_interval(results, tmp_path):
    run_of(tmp_path, steps=12, profiles=()).train()
    assert not (tmp_path / "ema").exists()
    first, _ = list_checkpoints(results)
    for name in ("model", "ema", "optimizer"):
        plain, tracked = weights(tmp_path, name), weights(first, name)
        assert all(torch.equal(value, tracked[key]) for key, value in plain.items())
    assert snapshots(results) == [f"step-{step:08d}" for step in range(3, 25, 3)]


def test_an_average_that_was_tracked_comes_back_exactly(results):
    for width in (0.05, 0.1):
        stored, made = weights(results, f"profile-{width}"), post_hoc_ema(results, width)
        assert stored and all(torch.equal(value, made[name]) for name, value in stored.items())
        opened = GaussianDiffusion.from_pretrained(results, weights=width).state_dict()
        assert all(torch.equal(value, opened[name]) for name, value in made.items())
        assert made.keys() == weights(results, "ema").keys()
    weaker = Autoguidance(results, weights=0.1).model.state_dict()
    assert all(torch.equal(value, weaker[name]) for name, value in made.items())


@pytest.mark.parametrize("width", [0.07, 0.15])
def test_a_made_average_nears_one_that_was_tracked_in_a_run(results, exact, tmp_path, width):
    tracked, last, errors = weights(exact.results_folder, f"profile-{width}"), weights(results), []
    for kept in (4, 8):  # of the snapshots
        copy = shutil.copytree(results, tmp_path / f"kept {kept}")
        for path in list_checkpoints(copy, "ema")[::-1][kept:]:
            shutil.rmtree(path)
        errors.append(apart(tracked, post_hoc_ema(copy, width)) / apart(tracked, last))
    assert errors[1] < errors[0] < 0.2
    assert errors[1] < 0.02


def test_half_precision_adds_an_error_within_its_bound(results, exact):
    """Each snapshot is off by at most 2^-11 of its values, and by its share of that in the sum."""
    made = post_hoc_ema(results, 0.08)
    shares = StoredAverages.of(Checkpoint.find(results)).combine(PowerProfile(0.08)).coefficients
    files = ("profile-0.05", "profile-0.1")
    parts = [tensors[file] for tensors in exact.kept[:-1] for file in files]
    parts += [weights(results, file) for file in files]
    assert len(parts) == len(shares)
    worst = 0.0
    for name in parts[0]:
        pairs = [(share, part[name].double()) for share, part in zip(shares, parts, strict=True)]
        whole = sum(share * part for share, part in pairs)
        bound = sum(abs(share) * (part.abs() * 2**-11 + 2**-24) for share, part in pairs)
        off = (made[name].double() - whole).abs()
        assert bool((off <= bound * 1.01).all())
        worst = max(worst, float((off / bound).max()))
    assert worst > 0.01, "the bound is of the order of the error"


def test_a_resumed_run_keeps_its_averages_bit_for_bit(tmp_path):
    ema, quick = EMA(profiles=(0.05, 0.1), snapshots=3), Previews(every=0)
    cut = assert_resumes_exactly(IMAGES, tmp_path, ema=ema, ema_update_every=2, previews=quick)
    for folder in (tmp_path / "whole", cut):
        assert snapshots(folder) == ["step-00000002", "step-00000004", "step-00000006"]
        assert weights(folder, "profile-0.1")
    one, other = (post_hoc_ema(folder, 0.07) for folder in (tmp_path / "whole", cut))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_snapshots_of_an_abandoned_future_are_moved_aside_and_never_read(results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "run")
    other = {"train_lr": 0.03, "seed": 1, "snapshots": 4}  # every 6 steps
    with pytest.warns(UserWarning, match="are now in"):
        run_of(copy, **other).train(resume_from=12)
    steps = [3, 6, 9, 12, 18, 24]
    assert snapshots(copy) == [f"step-{step:08d}" for step in steps]
    aside = next(copy.glob("checkpoints/after-*"))
    assert [path.name for path in list_checkpoints(aside, "ema")] == [
        f"step-{step:08d}" for step in (15, 18, 21, 24)
    ]
    made = post_hoc_ema(copy, 0.07)
    for path in list_checkpoints(aside, "ema"):
        if not (copy / "ema" / path.name).exists():
            shutil.copytree(path, copy / "ema" / path.name)
    again = post_hoc_ema(copy, 0.07)
    assert all(torch.equal(value, again[name]) for name, value in made.items())


def flipped(file):
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)


def piped(file):
    file.unlink()
    os.mkfifo(file)


def of_another_run(file):
    manifest = file.parent / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["step"] == 21
    rewrite(file.parent, file.name, file.read_bytes())
    rewrite(file.parent, "state.json", b'{"another": 1}')


DAMAGE = {
    "flipped bit": (flipped, "got damage: the checksum of profile-0.1.safetensors differs"),
    "missing file": (lambda file: file.unlink(), "profile-0.1.safetensors is missing"),
    "a pipe": (piped, ""),
    "no manifest": (lambda file: (file.parent / "manifest.json").unlink(), "no manifest.json"),
    "another run": (of_another_run, "got damage: it is not the one that this run wrote"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_foreign_snapshot_is_refused_in_one_line(results, tmp_path, kind):
    copy = shutil.copytree(results, tmp_path / "run")
    damage, message = DAMAGE[kind]
    damage(copy / "ema" / "step-00000021" / "profile-0.1.safetensors")
    with pytest.raises((ValueError, OSError), match=ONE_LINE.format(message)):
        post_hoc_ema(copy, 0.07)
    shutil.rmtree(copy / "ema" / "step-00000021")
    assert post_hoc_ema(copy, 0.07), "what is missing is done without"


@pytest.mark.parametrize(
    "change",
    [
        7,
        {"widths": [0.05]},
        {"widths": ["x"], "step": 24, "snapshots": {}},
        {"widths": [0.5], "step": 24, "snapshots": {}},
        {"widths": [], "step": 24, "snapshots": {}},
        {"widths": [0.05] * 1001, "step": 24, "snapshots": {}},
        {"widths": [0.05], "step": 25, "snapshots": {}},
        {"widths": [0.05], "step": -1, "snapshots": {}},
        {"widths": [0.05], "step": True, "snapshots": {}},
        {"widths": [0.05], "step": 24, "snapshots": {"0": "x"}},
        {"widths": [0.05], "step": 24, "snapshots": {"../1": "x"}},
        {"widths": [0.05], "step": 24, "snapshots": ["1"]},
        {"widths": [0.07], "step": 24, "snapshots": {}},
    ],
    ids=str,
)
def test_a_state_of_another_form_is_refused_in_one_line(results, tmp_path, change):
    copy = shutil.copytree(results, tmp_path / "run")
    checkpoint = list_checkpoints(copy)[-1]
    state = json.loads((checkpoint / "state.json").read_text())
    rewrite(checkpoint, "state.json", json.dumps({**state, "profiles": change}).encode())
    with pytest.raises(ValueError, match=ONE_LINE.format("")):
        post_hoc_ema(copy, 0.07)
    with pytest.raises(ValueError, match=ONE_LINE.format("")):
        run_of(copy, steps=25).train(resume=True)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0.5, r"expected a width of the average in \[0.001, 0.2887\), got 0.5"),
        (0.002, "expected a width from 0.0.* which 7 snapshots can make, got 0.002"),
        (0.27, "expected a width from 0.0.* which 7 snapshots can make, got 0.27"),
    ],
)
def test_a_width_that_cannot_be_made_is_refused_in_one_line(results, width, message):
    with pytest.raises(ValueError, match="(?i)" + ONE_LINE.format(message)):
        GaussianDiffusion.from_pretrained(results, weights=width)


def test_a_run_without_profiles_says_how_to_train_with_some(tmp_path):
    run_of(tmp_path / "run", steps=1, profiles=()).train()
    with pytest.raises(
        ValueError, match=r"\A[^\n]* without. Fix: train with --trainer.ema.profiles [^\n]+\Z"
    ):
        post_hoc_ema(tmp_path / "run", 0.08)
    with pytest.raises(ValueError, match=ONE_LINE.format(r"as before, \[\], got \[0.05, 0.1\]")):
        run_of(tmp_path / "run", steps=2).train(resume=True)
    run_of(tmp_path / "early", steps=1, ema_update_every=2).train()
    assert Description.of(Checkpoint.find(tmp_path / "early")).averages["widths"] == []
    with pytest.raises(ValueError, match=ONE_LINE.format("before the first one")):
        post_hoc_ema(tmp_path / "early", 0.08)


def test_a_run_may_stop_tracking(results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "run")
    with pytest.warns(UserWarning, match=r"ema.profiles: \[0.05, 0.1\] before, \[\] now"):
        run_of(copy, steps=25, profiles=()).train(resume=True)
    with pytest.raises(ValueError, match="got one without"):
        post_hoc_ema(copy, 0.08)
    assert post_hoc_ema(list_checkpoints(copy)[-2], 0.08)


def test_an_export_holds_an_average_of_any_width(results, tmp_path):
    made = post_hoc_ema(results, 0.08)
    assert export_run(results, tmp_path / "export", 0.08).weights == ["ema-0.08"]
    for name in ("ema", 0.08):
        opened = GaussianDiffusion.from_pretrained(tmp_path / "export", weights=name).state_dict()
        assert all(torch.equal(value, opened[key]) for key, value in made.items())
    with pytest.raises(ValueError, match=ONE_LINE.format("weights 0.05, got one of ema-0.08")):
        GaussianDiffusion.from_pretrained(tmp_path / "export", weights=0.05)
    moved = shutil.copytree(list_checkpoints(results)[-1], tmp_path / "step-00000024")
    assert post_hoc_ema(moved, 0.05), "a checkpoint alone has the averages that were tracked"


def test_tuning_is_for_the_weights_of_one_width(results, tmp_path):
    copy = shutil.copytree(results, tmp_path / "run")
    plain = GaussianDiffusion.from_pretrained(copy)
    found = TunedCalls(Tuned(UniPC(), (-1.0, 0.5, 3.0)), 0.01, 0.02)
    parts = to_config(plain.schedule), to_config(plain.objective)
    TunedFile(*parts, "ema-0.07", 24, 1.0, (found,)).write(copy)
    opened = [GaussianDiffusion.from_pretrained(copy, weights=w) for w in ("ema", 0.07, 0.08)]
    assert [bool(model.sampler.tuned) for model in opened] == [False, True, False]
    export_run(copy, tmp_path / "export", 0.07)
    assert GaussianDiffusion.from_pretrained(tmp_path / "export").sampler.tuned


def said(capsys, command, *words):
    command([str(word) for word in words])
    return " ".join(capsys.readouterr().out.split())


def test_the_commands_take_widths_and_tell_them(results, tmp_path, capsys):
    averages = json.loads(said(capsys, commands.info, results, "--json"))["averages"]
    low, high = averages["widths"]
    assert averages["profiles"] == [0.05, 0.1] and averages["snapshots"] == 7
    assert all(post_hoc_ema(results, width) for width in (low, high))
    for outside in (0.9 * low, 1.1 * high):
        with pytest.raises(ValueError, match=f"from {low} to {high}"):
            post_hoc_ema(results, outside)
    told = said(capsys, commands.info, results)
    assert f"--weights {low} to {high}, from the profiles 0.05, 0.1 and 7 snapshots" in told
    said(capsys, commands.export, results, tmp_path / "export", "--weights", ".07")
    assert "(ema-0.07)" in said(capsys, commands.info, tmp_path / "export")
    quick = ["--num_samples=2", "--steps=1", "--output", tmp_path / "images"]
    assert "done: " in said(capsys, commands.sample, results, "--weights", 0.07, *quick)
    quick = ["--num_images=2", "--steps=1", "--terms=1", "--tolerance=9", "--device=cpu"]
    words = [results, "--likelihood", "--weights=ema,.07", "--data=Digits", *quick]
    table = said(capsys, commands.evaluate, *words, "--output", tmp_path / "table")
    assert " run-ema " in table and " run-0.07 " in table
    for weights_, message in ((0.27, f"expected a width from {low} to {high}"), ("emo", "weights")):
        with pytest.raises(SystemExit) as end:
            commands.sample([str(results), "--weights", str(weights_), "--output", str(tmp_path)])
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count("\n") == 1
        assert message in error and "Fix: " in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profiles": (0.5,)}, "a width of the average"),
        ({"profiles": 0.05}, "ema.profiles as a list of widths, got 0.05"),
        ({"profiles": ("x",)}, "ema.profiles as a list of widths"),
        ({"profiles": (0.05, 0.05)}, "different ema.profiles"),
        ({"snapshots": -1}, r"ema.snapshots in \[0, 256\]"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=ONE_LINE.format(message)):
        EMA(**options)
