"""Trackers of accelerate get the numbers of a run; without TensorBoard it runs all the same."""

from typing import ClassVar

import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from runs import trainer

from diffusion_framework.training import Callback, Logging

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Recording(GeneralTracker):
    name, requires_logging_directory = "wandb", False  # a tracker that takes images
    made: ClassVar[list] = []

    def __init__(self, project, **options):
        super().__init__()
        self.project, self.options, self.rows, self.images, self.ended = project, options, [], [], 0
        self.made.append(self)

    tracker = None

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step, **_):
        self.rows.append((step, values))

    def log_images(self, values, step, **_):
        self.images.append((step, values["samples"][0].shape))

    def finish(self):
        self.ended += 1


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recording)
    monkeypatch.setattr(tracking, "_available_trackers", ["tensorboard", "wandb"])
    monkeypatch.setattr(Recording, "made", [])
    return Recording.made


def test_each_chosen_tracker_gets_all_numbers_pictures_and_the_config(tmp_path, recording):
    class Own(Callback):
        def on_step(self, run):
            run.log({"mine": run.step / 2})

    logging = Logging(every=2, progress=False, trackers=("wandb", "tensorboard"), project="mine")
    run = trainer(IMAGES, tmp_path / "a run", logging=logging, validation=IMAGES, callbacks=[Own()])
    run.train()
    (tracker,) = recording
    assert tracker.project == "mine" and tracker.options["name"] == "a run" and tracker.ended == 1
    assert tracker.config["trainer.train_batch_size"] == 4
    assert tracker.config["diffusion.init_args.model.init_args.dim"] == 8
    logged = {(step, name) for step, values in tracker.rows for name in values}
    assert logged >= {(2, "loss"), (6, "lr"), (3, "validation_loss"), (1, "mine")}
    assert [step for step, shape in tracker.images if shape[2] == 3] == [3, 6]
    assert [*(tmp_path / "a run" / "tensorboard").glob("events*")]


def test_without_tensorboard_the_log_is_a_table_and_a_hint(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "_available_trackers", [])
    trainer(IMAGES, tmp_path / "run", logging=Logging(every=2)).train()
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") > 3
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert capsys.readouterr().err.count("pip install tensorboard") == 1
    with pytest.raises(ValueError, match="Fix: install it with pip install tensorboard"):
        Logging(trackers=("tensorboard",))


def test_no_tracker_writes_nothing(tmp_path, capsys):
    trainer(IMAGES, tmp_path / "run", logging=Logging(every=2, trackers=())).train()
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert "tensorboard" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (("wandbb",), "logging.trackers among aim, .*, got 'wandbb'. Fix: write 'wandb'"),
        (("all",), "got 'all'. Fix: "),
        ("wandb", r"logging.trackers as names in a tuple, got 'wandb'. Fix: give \('wandb',\)"),
        (("comet_ml",), "the package of the tracker comet_ml, got 'none'. Fix: .* comet-ml"),
    ],
)
def test_a_tracker_that_does_not_exist_is_refused(trackers, message):
    with pytest.raises(ValueError, match=message):
        Logging(trackers=trackers)
