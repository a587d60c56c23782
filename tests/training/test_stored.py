"""Tests of checkpoints whose checksums hold and whose content does not fit the run."""

import json

import pytest
import torch
from runs import rewrite, trainer
from safetensors.torch import load_file, save

from diffusion_framework.storage.checkpoint import list_checkpoints

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def run_of(results, steps):
    return trainer(IMAGES, results, train_num_steps=steps, save_and_sample_every=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "run"
    run_of(folder, steps=2).train()
    return folder


@pytest.fixture
def checkpoint(results):
    """The checkpoint of the run, which is put back afterwards."""
    folder = list_checkpoints(results)[-1]
    before = {file: file.read_bytes() for file in folder.iterdir()}
    yield folder
    for file, data in before.items():
        file.write_bytes(data)


def resume_fails(results, message):
    run = run_of(results, steps=4)
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]* Fix: [^\n]+\Z"):
        run.train(resume=True)


def first(slots, ending):
    return next(name for name in slots if name.endswith(ending))


SLOTS = {
    "another shape": lambda s: s.update({first(s, ".exp_avg"): torch.zeros(1)}),
    "a scalar": lambda s: s.update({first(s, ".exp_avg_sq"): torch.zeros(())}),
    "NaN": lambda s: s[first(s, ".exp_avg")].fill_(torch.nan),
    "integers": lambda s: s.update({first(s, ".exp_avg"): s[first(s, ".exp_avg")].long()}),
    "a step of many": lambda s: s.update({first(s, ".step"): torch.zeros(5)}),
    "an unknown slot": lambda s: s.update({first(s, ".exp_avg") + "x": torch.zeros(1)}),
    "an unknown parameter": lambda s: s.update({"model.nothing.exp_avg": torch.zeros(1)}),
    "a name without slot": lambda s: s.update({"x": torch.zeros(1)}),
    "a missing slot": lambda s: s.pop(first(s, ".exp_avg_sq")),
}


@pytest.mark.parametrize("change", SLOTS)
def test_optimizer_state_that_does_not_fit_is_refused(results, checkpoint, change):
    slots = load_file(checkpoint / "optimizer.safetensors")
    SLOTS[change](slots)
    rewrite(checkpoint, "optimizer.safetensors", save(slots))
    resume_fails(results, "optimizer state")


@pytest.mark.parametrize(
    "change",
    [
        {"ema_step": None},
        {"ema_step": "1"},
        {"ema_step": -1},
        {"ema_step": 10**400},
        {"unwritten": [[10**400, 1.0]]},
        {"scaler": 3},
        {"environment": 3},
        {"order": []},
        {"metrics": {"validation_loss": "x"}},
        {"unwritten": [[1.0]]},
        {"unwritten": [["a", "b"]]},
        {"unwritten": 7},
        {"left": "preview"},
        {"left": [["preview"]]},
    ],
    ids=str,
)
def test_a_state_of_another_form_is_refused(results, checkpoint, change):
    state = json.loads((checkpoint / "state.json").read_text())
    rewrite(checkpoint, "state.json", json.dumps({**state, **change}).encode())
    resume_fails(results, "state.json")


@pytest.mark.parametrize("part", ["diffusion", "trainer"])
def test_a_config_without_a_part_is_refused(results, checkpoint, part):
    rewrite(checkpoint, "config.yaml", json.dumps({part: {}}).encode())
    resume_fails(results, "config.yaml has no")


def test_what_was_refused_was_not_changed(results):
    run_of(results, steps=4).train(resume=True)
    assert [folder.name for folder in list_checkpoints(results)] == [
        "step-00000002",
        "step-00000004",
    ]
