"""The quality of samples during training, and the table and picture of all metrics."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.data import Digits
from diffusion_framework.evaluation.features import Own
from diffusion_framework.evaluation.quality import QualityMeter, frechet_distance
from diffusion_framework.losses import LEVEL_NAMES
from diffusion_framework.storage.checkpoint import list_checkpoints
from diffusion_framework.training import Previews, SampleQuality, Saving, ValidationOptions
from diffusion_framework.training.curves import add_row, draw_curves


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def trainer(folder, steps=2, **options):
    options = {"quality": SampleQuality(20, Own(steps=1)), **options}
    return Trainer(
        diffusion(),
        Digits(split="train"),
        validation=Digits(split="test"),
        train_batch_size=4,
        train_num_steps=steps,
        save_and_sample_every=1,
        num_samples=1,
        train_lr=0.05,  # so that each step changes the samples
        ema_update_every=1,
        ema_decay=0.1,
        previews=Previews(sampling_steps=2),
        validation_options=ValidationOptions(samples=16),
        results_folder=folder,
        **options,
    )


def diffusion():
    return GaussianDiffusion(tiny_unet(image_size=8, channels=1), timesteps=4)


def table(folder):
    with open(folder / "validation.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_distance_is_that_of_the_samples_drawn(tmp_path):
    run = trainer(tmp_path / "run", steps=1)
    drawn = []
    draw = Previews.draw

    def noted(self, *args):
        drawn.append(draw(self, *args))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Previews, "draw", noted)
        run.train()
    samples = (drawn[0] * 255).round().byte()
    network = Own(steps=1).network(Digits(split="train"), torch.device("cpu"), show_progress=False)
    meter = QualityMeter(network, Digits(split="test"), show_progress=False)
    (row,) = table(tmp_path / "run")
    exact = frechet_distance(meter.features(samples), meter.reference)
    assert float(row["frechet"]) == pytest.approx(exact, rel=1e-4)
    assert len(samples) == 20 and {"kernel", "validation_loss", *LEVEL_NAMES} <= set(row)


def test_the_best_checkpoint_by_distance_is_kept_also_over_a_resume(tmp_path):
    keep = Saving(keep_newest=1, keep_best=1, best_metric="frechet")
    trainer(tmp_path / "run", steps=2, saving=keep).train()
    with pytest.warns(UserWarning, match="train_num_steps"):
        trainer(tmp_path / "run", steps=4, saving=keep).train(resume=True)
    rows = table(tmp_path / "run")
    assert len({row["frechet"] for row in rows}) == 4
    best = min(rows, key=lambda row: float(row["frechet"]))
    kept = {int(path.name.split("-")[1]) for path in list_checkpoints(tmp_path / "run")}
    assert kept == {4, int(best["step"])}
    picture = np.asarray(Image.open(tmp_path / "run" / "validation.png"))
    assert picture.std() > 5


def test_without_samples_nothing_is_drawn_for_it(tmp_path):
    trainer(tmp_path / "run", steps=1, quality=SampleQuality()).train()
    (row,) = table(tmp_path / "run")
    assert "frechet" not in row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": SampleQuality(20), "validation": None}, "validation images of 8 bits"),
        ({"quality": SampleQuality(20), "data": torch.zeros(40, 1, 8, 8)}, "training images of 8"),
        ({"saving": Saving(1, 1, "frechet")}, "saving.best_metric among validation_loss"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_start(options, message, tmp_path):
    data = options.pop("data", Digits(split="train"))
    held_out = options.pop("validation", Digits(split="test"))
    with pytest.raises(ValueError, match=message):
        Trainer(
            diffusion(),
            data,
            validation=held_out,
            results_folder=tmp_path / "run",
            **options,
        )
    assert not (tmp_path / "run").exists()


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match=r"quality.samples of 0, or at least 10, got 3. Fix: "):
        SampleQuality(3)


def test_new_metrics_get_new_columns(tmp_path):
    path = tmp_path / "table.csv"
    add_row(path, 1, {"a": 0.5})
    add_row(path, 2, {"a": 0.25, "b": 3.0})
    add_row(path, 3, {"b": 4.0})
    assert path.read_text().split() == ["step,a,b", "1,0.5,", "2,0.25,3", "3,,4"]


def test_the_picture_has_a_panel_for_each_metric_and_one_for_the_levels(tmp_path):
    widths = []
    for metrics in ({"validation_loss": 1.0}, dict.fromkeys(("validation_loss", *LEVEL_NAMES), 1)):
        path = tmp_path / f"{len(metrics)}.csv"
        for step in range(1, 8):
            add_row(path, step, dict.fromkeys(metrics, 1 / step))
        assert draw_curves(path, tmp_path / "x.png")
        widths.append(Image.open(tmp_path / "x.png").width)
    assert widths[1] == 2 * widths[0]
