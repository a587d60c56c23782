"""The recipe `auto` chooses by the images, the device and the time, and flags stand."""

from functools import wraps

import pytest
from PIL import Image

from diffusion_framework import UNet
from diffusion_framework.cli import automatic, train
from diffusion_framework.cli.automatic import Facts, Speed, choose_size, choose_width, network
from diffusion_framework.cli.program import run_command

SLOW = Speed(seconds=1e-2, flops=automatic.operations(network(16, 32)))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (80, 70), (40 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def planned(monkeypatch):
    """Runs `diffusion train` up to its call, and returns the options of its parts."""
    seen = []
    monkeypatch.setattr(automatic, "measure_speed", lambda *_: SLOW)
    monkeypatch.setattr(train, "train", wraps(train.train)(lambda **options: seen.append(options)))

    def run(*words):
        run_command("train", [str(word) for word in words])
        options = seen.pop()
        return options["diffusion"].options, options["trainer"].options

    return run


@pytest.mark.parametrize(
    ("side", "device", "minutes", "chosen"),
    [
        (500, "cpu", 60, 32),
        (500, "cpu", 600, 64),
        (500, "cuda", 60, 64),
        (500, "cuda", 600, 128),
        (40, "cuda", 600, 32),
        (28, "cpu", 60, 28),
        (30, "cpu", 60, 28),
        (3, "cpu", 60, 8),
    ],
)
def test_the_size_is_what_the_time_allows_and_the_images_have(side, device, minutes, chosen):
    assert choose_size(Facts(100, side, device, minutes)) == chosen


@pytest.mark.parametrize("minutes", [0.01, 5, 20, 60, 300, 1e6])
@pytest.mark.parametrize("images", [None, 500_000])
def test_the_width_is_the_largest_that_sees_enough_images(minutes, images):
    facts = Facts(100, 64, "cpu", minutes, images)
    width = choose_width(facts, SLOW, 32, 3)
    widths = sorted(automatic._WIDTHS)
    enough = images or automatic._SEEN
    assert width == widths[0] or enough * SLOW.of(network(width, 32)) <= 60 * minutes
    if width != widths[-1]:
        wider = widths[widths.index(width) + 1]
        assert enough * SLOW.of(network(wider, 32)) > 60 * minutes


def test_the_speed_of_a_network_is_in_proportion_to_its_operations():
    assert SLOW.of(network(16, 32)) == pytest.approx(1e-2)
    assert SLOW.of(network(16, 64)) > 3 * SLOW.of(network(16, 32)), "four times the pixels"
    measured = automatic.measure_speed("cpu", 8, 1)
    assert measured.seconds > 0
    assert measured.flops == automatic.operations(network(16, 8, 1))


def test_a_folder_of_images_gets_settings_that_suit_it(photos, planned, capsys):
    diffusion, trainer = planned(photos)
    network, rate = diffusion["model"].options, trainer["learning_rate"].options
    assert (network["image_size"], network["dim"], network["augmentation"]) == (32, 32, True)
    assert (trainer["minutes"], rate["schedule"]) == (60.0, "cosine")
    assert trainer["train_batch_size"] == 4, "no more than the pictures"
    assert trainer["save_and_sample_every"] == 2000, "a tenth of 68,000 images in batches of 4"
    assert trainer["results_folder"] == "results/photos"
    told = capsys.readouterr().out
    assert "5 pictures, the median 70 pixels" in told
    assert "32 x 32 pixels by a UNet of width 32, which sees some" in told


def test_many_pictures_are_not_augmented(photos, planned, capsys):
    diffusion, _ = planned(photos, "--trainer.train_num_steps=3", "--trainer.train_batch_size=4")
    assert "augmentation" not in diffusion["model"].options
    assert "augmentation" not in capsys.readouterr().out


def test_flags_stand_and_are_taken_into_account(photos, planned, capsys):
    flags = "--diffusion.model.dim=8", "--diffusion.model.image_size=24", "--trainer.minutes=5"
    diffusion, trainer = planned(photos, *flags, "--trainer.train_lr=1e-5", "--config", "auto")
    network = diffusion["model"].options
    assert (network["dim"], network["image_size"]) == (8, 24)
    assert (trainer["minutes"], trainer["train_lr"]) == (5, 1e-5)
    assert trainer["ema_update_every"] == 1, "the others are those of the recipe"
    assert "24 x 24 pixels by a UNet of width 8 in 5 minutes" in capsys.readouterr().out
    _, trainer = planned(photos, "--trainer.train_num_steps=100")
    assert trainer["train_num_steps"] == 100
    assert "minutes" not in trainer


def test_the_length_that_is_given_last_counts(photos, planned, tmp_path):
    (tmp_path / "timed.yaml").write_text("trainer: {minutes: 7, train_lr: 0.1}")
    (tmp_path / "counted.yaml").write_text("trainer: {train_num_steps: 9}")
    timed, counted = ("--config", tmp_path / "timed.yaml"), ("--config", tmp_path / "counted.yaml")
    for words, length in (
        ([*timed], {"minutes": 7}),
        ([*timed, *counted], {"train_num_steps": 9}),
        ([*counted, *timed], {"minutes": 7}),
        ([*timed, "--trainer.train_num_steps=5"], {"train_num_steps": 5}),
        ([*counted, "--trainer.minutes=3"], {"minutes": 3}),
    ):
        _, trainer = planned(photos, *words)
        lengths = {k: v for k, v in trainer.items() if k in ("minutes", "train_num_steps")}
        assert lengths == length


@pytest.mark.parametrize(
    "flags",
    [["--config", "edm"], ["--diffusion.model", "DiT"], ["--diffusion.model.class_path=RIN"]],
)
def test_other_recipes_and_networks_keep_their_settings(photos, planned, capsys, flags):
    _, trainer = planned(photos, *flags)
    assert "minutes" not in trainer
    assert "auto " not in capsys.readouterr().out


def test_a_mistake_is_said_before_anything_is_measured(photos, planned, monkeypatch):
    monkeypatch.setattr(automatic, "measure_speed", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        planned(photos, "--trainer.train_lrate=1")
    with pytest.raises(SystemExit):
        planned(photos, "--diffusion.model.image_size=wide")


def test_every_choice_builds_its_network():
    for width in automatic._WIDTHS[-3:]:
        for side in (8, 28, 32, 64):
            UNet(**network(width, side, 1))
