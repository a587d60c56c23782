"""The groups of the Trainer's options: their checks and their effects."""

from __future__ import annotations

import dataclasses
import inspect
import re

import numpy as np
import pytest
import torch
from runs import trainer
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer, training
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.training import (
    EMA,
    LearningRate,
    Loading,
    Logging,
    Previews,
    Saving,
    ValidationOptions,
)

DATACLASSES = {value for value in vars(training).values() if dataclasses.is_dataclass(value)}
GROUPS = sorted(DATACLASSES - {training.Run}, key=lambda group: group.__name__)


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (EMA, {"inv_gamma": float("nan")}, "Expected ema.inv_gamma above 0, got nan. Fix: "),
        (EMA, {"power": 0.0}, "Expected ema.power above 0, got 0.0. Fix: "),
        (LearningRate, {"schedule": "step"}, "among constant, linear, cosine, got 'step'. Fix: "),
        (
            LearningRate,
            {"warmup_steps": -1},
            "learning_rate.warmup_steps of at least 0, got -1. Fix: ",
        ),
        (Loading, {"num_workers": -1}, "loading.num_workers of at least 0, got -1. Fix: "),
        (
            Loading,
            {"cache": False},
            "loading.cache among auto, memory, disk, off, got False. Fix: ",
        ),
        (Logging, {"every": 0}, "logging.every of at least 1, got 0. Fix: "),
        (Previews, {"every": -1}, "previews.every of at least 0, got -1. Fix: "),
        (Previews, {"sampling_steps": 0}, "previews.sampling_steps of at least 1, got 0. Fix: "),
        (Saving, {"keep_newest": 0}, "saving.keep_newest of at least 1, got 0. Fix: "),
        (Saving, {"keep_best": -1}, "saving.keep_best of at least 0, got -1. Fix: "),
        (ValidationOptions, {"every": -1}, "validation_options.every of at least 0, got -1. Fix: "),
        (
            ValidationOptions,
            {"samples": 0},
            "validation_options.samples of at least 1, got 0. Fix: ",
        ),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(group, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        group(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"previews": False}, "previews as Previews, got False. Fix: .*every=0. switches it off"),
        ({"previews": None}, "previews as Previews, got None"),
        ({"validation_options": False}, "ValidationOptions.every=0. switches it off"),
        ({"saving": {"keep_newest": 1}}, "saving as Saving, got {'keep_newest': 1}. Fix: give Sav"),
        ({"ema": 0.99}, "ema as EMA, got 0.99"),
        ({"previews": Previews(sampling_steps=2.5)}, "previews.sampling_steps as a whole number"),
        ({"previews": Previews(every=1.5)}, "previews.every as a whole number, got 1.5"),
        ({"validation_options": ValidationOptions(samples=9.5)}, "samples as a whole number"),
        ({"saving": Saving(keep_newest=1.5)}, "saving.keep_newest as a whole number, got 1.5"),
        ({"logging": True}, "logging as Logging, got True. Fix: give Logging[^;]*$"),
        ({"train_num_steps": 2.5}, "train_num_steps as a whole number, got 2.5. Fix"),
        ({"train_num_steps": True}, "train_num_steps as a whole number, got True. Fix"),
        ({"seed": "a"}, "seed as a whole number, got 'a'"),
        ({"train_lr": "1e-4"}, "train_lr as a number, got '1e-4'"),
        ({"split_batches": "false"}, "split_batches as true or false, got 'false'"),
        ({"minutes": "5"}, "minutes as a number, got '5'"),
        ({"betas": 0.9}, "betas as two numbers, got 0.9"),
        ({"betas": (0.9,)}, "betas as two numbers"),
        ({"mixed_precision": "bf-16"}, "among auto, no, fp16, bf16, got 'bf-16'. Fix"),
    ],
)
def test_a_wrong_type_is_refused_before_the_first_step(ten_images, tmp_path, options, message):
    """Not at the first preview, which would lose the steps before it."""
    with pytest.raises(ValueError, match=message) as caught:
        trainer(ten_images, tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", [tiny_unet(), GaussianDiffusion], ids=["network", "class"])
def test_only_a_trainable_model_is_trained(model, tmp_path):
    with pytest.raises(ValueError, match="a model to train, got '.*. Fix: wrap the network, as in"):
        Trainer(model, [torch.rand(1, 8, 8)] * 4, results_folder=tmp_path / "run")


def test_numbers_of_numpy_are_options(ten_images, tmp_path):
    numbers = {"train_num_steps": np.int64(1), "train_lr": np.float32(1e-3), "seed": np.uint8(3)}
    trainer(ten_images, tmp_path, **numbers, train_batch_size=np.int64(2)).train()
    assert Checkpoint.find(tmp_path).step == 1


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_a_group_is_a_frozen_value_and_documents_each_field(group):
    assert group() == group() and hash(group()) == hash(group())
    for field in dataclasses.fields(group):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group(), field.name, field.default)
        assert f"\n        {field.name}: " in group.__doc__


def test_the_trainer_has_each_group_as_an_argument():
    parameters = inspect.signature(Trainer.__init__).parameters.values()
    assert {type(p.default) for p in parameters} >= set(GROUPS)


def previewed(run):
    return sorted(int(path.stem.removeprefix("step-")) for path in run.glob("samples/*.png"))


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [3, 6, 7]), (2, [2, 4, 6, 7]), (4, [4, 7]), (0, [])]
)
def test_previews_follow_their_interval(ten_images, tmp_path, every, steps):
    previews = Previews(every=every, sampling_steps=1)
    trainer(ten_images, tmp_path, train_num_steps=7, previews=previews).train()
    assert previewed(tmp_path) == steps


def test_a_resumed_run_names_changed_options(ten_images, tmp_path):
    trainer(ten_images, tmp_path, loading=Loading(0, "off")).train()
    config = Checkpoint.find(tmp_path).config["trainer"]
    in_file = {"inv_gamma": 1.0, "power": 2 / 3, "profiles": [], "snapshots": 16}
    assert config["ema"] == in_file, "in the form of a config file"
    changed = {"ema": EMA(power=0.75), "learning_rate": LearningRate("linear", warmup_steps=1)}
    with pytest.warns(UserWarning, match="The resumed run differs from before: ") as warned:
        trainer(ten_images, tmp_path, **changed).train(resume=True)
    (message,) = {str(w.message) for w in warned if "differs from before" in str(w.message)}
    for part in (
        "ema.power: 0.6666666666666666 before, 0.75 now",
        "learning_rate.schedule: constant before, linear now",
        "learning_rate.warmup_steps: 0 before, 1 now",
    ):
        assert part in message
    assert "loading" not in message, "loading changes no result"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"saving": Saving(keep_best=1, best_metric="validation_los")},
            "among validation_loss, got 'validation_los'. Fix: write validation_loss",
        ),
        (
            {"saving": Saving(best_metric="fid")},
            "saving.best_metric among validation_loss, got 'fid'. Fix: choose one of these",
        ),
        (
            {"validation": None},
            "Expected validation data where saving.keep_best is set, got None. Fix: ",
        ),
        (
            {"validation_options": ValidationOptions(every=2)},
            "every that divides save_and_sample_every 3",
        ),
        (
            {"validation_options": ValidationOptions(every=0)},
            "every that divides save_and_sample_every 3",
        ),
    ],
)
def test_keeping_the_best_needs_validation_at_each_checkpoint(
    ten_images, tmp_path, options, message
):
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer(
            ten_images,
            tmp_path / "run",
            **{"validation": ten_images, "saving": Saving(keep_best=1), **options},
        )
    assert not (tmp_path / "run").exists()


def test_validation_can_be_switched_off(ten_images, tmp_path):
    off = ValidationOptions(every=0)
    held_out = ImageFolder(ten_images, 8, 1)
    trainer(ten_images, tmp_path, validation=held_out, validation_options=off).train()
    assert not (tmp_path / "validation.csv").exists()


def test_validation_follows_its_interval(ten_images, tmp_path):
    often = ValidationOptions(every=2, samples=4)
    held_out = ImageFolder(ten_images, 8, 1)
    trainer(ten_images, tmp_path, validation=held_out, validation_options=often).train()
    rows = (tmp_path / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4", "6"]
    metrics = [Checkpoint.open(path).state["metrics"] for path in list_checkpoints(tmp_path)]
    measured = [list(m)[:1] for m in metrics]
    assert measured == [[], ["validation_loss"]], "step 3 is not validated"
