"""Small training runs, their results, and checkpoints written by hand."""

import csv
import hashlib
import json

import torch
from toys import tiny_diffusion

from diffusion_framework import Trainer
from diffusion_framework.process.noise import mix
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.manifest import sealed
from diffusion_framework.storage.writing import write_checkpoint
from diffusion_framework.training import Callback, Loading, Logging, Previews
from diffusion_framework.training.seeds import Purpose


def trainer(folder, results, **options):
    defaults = {
        "train_batch_size": 4,
        "train_num_steps": 6,
        "save_and_sample_every": 3,
        "num_samples": 5,
        "previews": Previews(sampling_steps=2),
        "ema_update_every": 1,
        "loading": Loading(num_workers=0),
        "logging": Logging(every=2, progress=False),
    }
    torch.manual_seed(0)
    return Trainer(tiny_diffusion(), folder, results_folder=results, **{**defaults, **options})


class StopAfter(Callback):
    """Ends a run early, with the learning rates of the whole run."""

    def __init__(self, steps):
        self.steps = steps

    def on_step(self, run):
        if run.step == self.steps:
            run.stop()


def stop_after(run, steps):
    run.callbacks.each = (StopAfter(steps),)


def batches_of(run):
    """The batches of a run from its first step on."""
    seed = mix(run.seed, Purpose.ORDER)
    return run.loading.batches(run.dataset, run.batch_size, seed, 0, run.accelerator)


def weights(results, name="model"):
    return Checkpoint.find(results).tensors(name)


def assert_same_run(a, b):
    one, other = Checkpoint.find(a), Checkpoint.find(b)
    assert one.kinds() == other.kinds() and {"model", "ema", "optimizer"} <= {*one.kinds()}
    assert one.state["profiles"] == other.state["profiles"], "the same snapshots"
    for name in one.kinds():
        first, second = one.tensors(name), other.tensors(name)
        assert first.keys() == second.keys()
        for key in first:
            assert torch.equal(first[key], second[key]), (name, key)
    # all columns but the speed
    rows = [[row[:4] for row in csv.reader((folder / "log.csv").open())] for folder in (a, b)]
    assert rows[0] == rows[1]


def assert_resumes_exactly(data, folder, **options):
    """Trains to the end at once, and again with a stop after step 3; returns the second folder."""
    trainer(data, folder / "whole", **options).train()
    cut = trainer(data, folder / "cut", **options)
    stop_after(cut, 3)
    cut.train()
    trainer(data, folder / "cut", **options).train(resume=True)
    assert_same_run(folder / "whole", folder / "cut")
    return folder / "cut"


def reseal(manifest, content):
    """Writes a manifest with a valid seal, as somebody who changes a checkpoint on purpose can."""
    content.pop("seal", None)
    manifest.write_text(sealed(json.dumps(content, indent=1)))


def rewrite(checkpoint, name, data):
    """Replaces a file of a checkpoint, with a valid checksum."""
    (checkpoint / name).write_bytes(data)
    manifest = checkpoint / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(manifest, content)


def write(results, step, keep=9):
    tensors = {"model": {"w": torch.full((3,), float(step))}}
    return write_checkpoint(results, step, tensors, {"a": [1, 2]}, {"n": 1}, keep)
