"""Validation with each checkpoint, and the best checkpoints."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from toys import QUIET, tiny_diffusion

from diffusion_framework import DiffusionPolicy, Trainer
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP
from diffusion_framework.policies import ForkDemonstrations
from diffusion_framework.process.noise import keyed_generator, mix
from diffusion_framework.storage.checkpoint import list_checkpoints
from diffusion_framework.training import Previews, Saving

OPTIONS = {"train_batch_size": 4, "save_and_sample_every": 1, "num_samples": 1, **QUIET}


def images(count: int, seed: int = 0) -> list[torch.Tensor]:
    return list(torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))


def trainer(folder, steps: int, **options) -> Trainer:
    torch.manual_seed(0)
    held_out = {"validation": images(7, seed=1), **options}
    return Trainer(
        tiny_diffusion(),
        images(8),
        train_num_steps=steps,
        results_folder=folder,
        previews=Previews(sampling_steps=1),
        **OPTIONS,
        **held_out,
    )


def rows(folder) -> list[dict[str, str]]:
    with open(folder / "validation.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_loss_is_measured_by_the_averaged_weights_on_all_held_out_samples(tmp_path):
    one = trainer(tmp_path, 2, train_lr=1e-2)
    one.train()
    written = rows(tmp_path)
    assert [row["step"] for row in written] == ["1", "2"]
    average = one.averaged.eval()
    held_out, total = images(7, seed=1), 0.0
    for first in (0, 4):
        batch = torch.stack(held_out[first : first + 4])
        with torch.no_grad():
            loss = average(
                batch, generator=keyed_generator("cpu", mix(0, first), 0), self_condition_draw=0.0
            )
        total += loss.item() * len(batch)
    assert float(written[1]["validation_loss"]) == pytest.approx(total / 7, rel=1e-4)


def test_a_resumed_run_validates_like_an_uninterrupted_one(tmp_path):
    trainer(tmp_path / "whole", 4, saving=Saving(1, 2)).train()
    trainer(tmp_path / "parts", 2, saving=Saving(1, 2)).train()
    trainer(tmp_path / "parts", 4, saving=Saving(1, 2)).train(resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    kept = [
        [path.name for path in list_checkpoints(tmp_path / part)] for part in ("whole", "parts")
    ]
    assert kept[0] == kept[1]  # the metrics are read from the checkpoints


def test_the_best_and_the_newest_checkpoints_are_kept_and_nan_is_never_best(tmp_path, monkeypatch):
    losses = {1: 3.0, 2: 1.0, 3: math.nan, 4: 2.0, 5: 5.0, 6: 4.0}
    one = trainer(tmp_path, 6, saving=Saving(1, 2))
    measured = lambda log, together: {"validation_loss": losses[one.state.step]}  # noqa: E731
    monkeypatch.setattr(one.tasks, "_validate", measured)
    one.train()
    assert [int(path.name[-2:]) for path in list_checkpoints(tmp_path)] == [2, 4, 6]
    assert Saving(keep_best=2).best_steps(tmp_path, 7, {"validation_loss": 0.5}) == [7, 2]
    assert Saving(keep_best=9).best_steps(tmp_path, 7, {"validation_loss": math.nan}) == [2, 4, 6]
    assert Saving(keep_best=0).best_steps(tmp_path, 7, {"validation_loss": 0.5}) == []
    state = json.loads((list_checkpoints(tmp_path)[0] / "state.json").read_text())
    assert state["metrics"] == {"validation_loss": 1.0}


def test_a_policy_also_measures_the_error_of_its_actions(tmp_path):
    data = {
        s: ForkDemonstrations(60, split=s, validation_share=0.2) for s in ("train", "validation")
    }
    policy = DiffusionPolicy(
        ResidualMLP(16, 2, 2, 4, dim=8, depth=1), Observations({"state": 4}), plan_steps=2
    )
    one = Trainer(
        policy,
        data["train"],
        validation=data["validation"],
        train_num_steps=1,
        results_folder=tmp_path,
        saving=Saving(keep_best=1, best_metric="action_error"),
        **OPTIONS,
    )
    one.train()
    (row,) = rows(tmp_path)
    assert 0 < float(row["action_error"]) < 1
    assert not (tmp_path / "samples").exists()  # no images to show
    actions, condition = data["validation"].take(torch.arange(5).numpy())
    perfect = DiffusionPolicy(policy.diffusion)
    perfect.plan = lambda observations, **options: actions
    error = perfect.validation_metrics(actions, **condition)["action_error"]
    assert error == 0
    perfect.plan = lambda observations, **options: actions + 0.5 * ~condition["mask"][:, :, None]
    assert (
        perfect.validation_metrics(actions, **condition)["action_error"] == 0
    )  # padding does not count


def test_contradictory_options_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="Expected validation data where saving.keep_best is set, got None"
    ):
        Trainer(
            tiny_diffusion(),
            images(8),
            results_folder=tmp_path,
            saving=Saving(keep_best=1),
            **OPTIONS,
        )
    with pytest.raises(
        ValueError, match="Expected saving.best_metric among validation_loss, got 'accuracy'"
    ):
        trainer(tmp_path, 1, saving=Saving(keep_best=1, best_metric="accuracy")).train()
