"""`from_pretrained` opens the folders that training runs and `save_pretrained` write."""

import json
import runpy
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from runs import reseal, trainer
from torch import nn
from toys import QUIET, Plain, tiny_diffusion, tiny_unet

from diffusion_framework import DiffusionPolicy, GaussianDiffusion, Trainer
from diffusion_framework.spaces import ImageSpace, Unbounded
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.trainable import Trainable
from diffusion_framework.training import Previews


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = tmp_path_factory.mktemp("opened") / "run"
    images = [torch.rand(1, 8, 8) for _ in range(10)]
    trainer(images, results, train_num_steps=2, save_and_sample_every=1).train()
    return results


def assert_same(one, other):
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_its_checkpoint_and_its_export_open_as_the_same_model(run, tmp_path):
    opened = GaussianDiffusion.from_pretrained(run)
    assert not opened.training
    assert_same(opened, GaussianDiffusion.from_pretrained(list_checkpoints(run)[-1]))
    assert_same(opened, Trainable.from_pretrained(run))
    opened.save_pretrained(tmp_path / "export")
    again = GaussianDiffusion.from_pretrained(str(tmp_path / "export"))
    assert_same(opened, again)
    images = [model.sample(2, steps=3, seed=0, show_progress=False) for model in (opened, again)]
    assert torch.equal(*images)


def test_network_and_space_can_be_replaced(run):
    network = GaussianDiffusion.from_pretrained(run).model
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    opened = GaussianDiffusion.from_pretrained(
        run, model=network, space=ImageSpace((0, 4095), bins=None)
    )
    assert opened.model is network and any(parameter.any() for parameter in network.parameters())
    assert opened.sample(1, steps=2, seed=0, show_progress=False).max() > 1
    with pytest.raises(ValueError, match="expected weights of shape .*, as in the config, got"):
        GaussianDiffusion.from_pretrained(run, space=Unbounded())


def test_an_export_never_replaces_an_existing_folder(tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(ValueError, match="expected a new folder"):
        tiny_diffusion().save_pretrained(tmp_path / "export")
    assert not list((tmp_path / "export").iterdir())


def test_an_export_that_cannot_be_described_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_framework.storage.files.write_yaml", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny_diffusion().save_pretrained(tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_network_without_recorded_arguments_must_be_passed(tmp_path):
    class Net(nn.Module):
        channels, image_size = 1, 8

        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, width, padding=width // 2)

        def forward(self, x, time):
            return self.conv(x)

    way = (
        r"Net does not record its arguments.*: GaussianDiffusion.from_pretrained\(RUN, model=Net\("
    )
    with pytest.warns(UserWarning, match=way) as caught:
        GaussianDiffusion(Net(3)).save_pretrained(tmp_path / "export")
    assert {one.filename for one in caught} == {__file__}, "the line of the user"
    with pytest.raises(ValueError, match="model="):
        GaussianDiffusion.from_pretrained(tmp_path / "export")
    opened = GaussianDiffusion.from_pretrained(tmp_path / "export", model=Net(3))
    assert isinstance(opened.model, Net)
    with pytest.raises(
        ValueError, match="expected weights of shape .* for model.conv.weight, as in the config"
    ):
        GaussianDiffusion.from_pretrained(tmp_path / "export", model=Net(5))


SCRIPT = """
import dataclasses
import torch
from toys import QUIET, Plain
from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.losses import LossWeight
from diffusion_framework.training import Previews

class Net(Plain):
    pass

@dataclasses.dataclass(frozen=True)
class OwnWeight(LossWeight):
    def log_weight(self, at):
        return 0 * at.log_snr

if __name__ == "__main__":
    options = {"results_folder": "run", "train_num_steps": 1, "previews": Previews(every=0)}
    data = list(torch.rand(4, 1, 4, 4))
    model = GaussianDiffusion(Net(), loss_weight=OwnWeight())
    Trainer(model, data, train_batch_size=4, **options, **QUIET).train()
"""


def test_a_class_of_the_script_that_trains_can_be_opened_again(tmp_path, monkeypatch):
    (tmp_path / "my_training.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="class of the script") as caught:
        runpy.run_path("my_training.py", run_name="__main__")
    texts = [str(one.message) for one in caught if "class of the script" in str(one.message)]
    assert len(texts) == 2 and all("trust my_training from the script's folder" in t for t in texts)
    assert [t.startswith("Net ") and "model=Net(...)" in t for t in texts] == [True, False]
    expected = Checkpoint.find("run").tensors("ema")
    for options in ({}, {"model": Plain()}):
        with pytest.raises(ValueError, match=r"which runs code of my_training\. Fix: .*trust"):
            GaussianDiffusion.from_pretrained("run", **options)
    opened = GaussianDiffusion.from_pretrained("run", trust=["my_training"])
    assert all(torch.equal(expected[k], v) for k, v in opened.state_dict().items())
    assert type(opened.loss_weight).__name__ == "OwnWeight"


def test_a_class_of_an_interactive_session_is_passed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    net = type("Net", (Plain,), {"__module__": "__main__"})
    GaussianDiffusion(net()).save_pretrained(tmp_path / "export")
    with pytest.raises(ValueError, match="a class of the script .* Fix: open it in Python"):
        GaussianDiffusion.from_pretrained(tmp_path / "export")
    GaussianDiffusion.from_pretrained(tmp_path / "export", model=net())


def test_each_class_of_the_users_is_told_at_construction_and_the_way_works(tmp_path):
    """With recorded arguments, trust is enough; without, the network is passed."""

    class Bare(nn.Module):  # a plain module without attributes
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x, time):
            return self.conv(x)

    def train(network, folder):
        model = GaussianDiffusion(network, sample_shape=(1, 8, 8))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = Trainer(model, torch.rand(8, 1, 8, 8), train_batch_size=4, train_num_steps=1,
                          results_folder=folder, previews=Previews(every=0), **QUIET)  # fmt: skip
        texts = {str(one.message) for one in caught if "To open its" in str(one.message)}
        assert {one.filename for one in caught if "To open" in str(one.message)} <= {__file__}
        run.train()
        return texts

    (told,) = train(Bare(), tmp_path / "bare")
    assert told.startswith("Bare does not record its arguments. To open its checkpoints: Gaussian")
    assert told.endswith("GaussianDiffusion.from_pretrained(RUN, model=Bare(...)).")
    opened = GaussianDiffusion.from_pretrained(tmp_path / "bare", model=Bare())
    assert opened.sample(1, steps=1, show_progress=False).shape == (1, 1, 8, 8)
    (told,) = train(Plain(image_size=8), tmp_path / "plain")
    assert "Plain is a class of toys" in told and "trust=['toys']), and --trust toys." in told
    GaussianDiffusion.from_pretrained(tmp_path / "plain", trust=["toys"])
    assert not train(tiny_unet(), tmp_path / "ours")


def test_a_model_of_another_class_is_refused_by_name(run):
    with pytest.raises(
        ValueError,
        match=r"expected a DiffusionPolicy, got a GaussianDiffusion\. Fix: open it with Gauss",
    ):
        DiffusionPolicy.from_pretrained(run)


def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path):
    tiny_diffusion().save_pretrained(tmp_path / "export")
    manifest = tmp_path / "export" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["files"]["../outside"] = {"size": 1, "sha256": "x"}
    (Path(tmp_path) / "outside").write_text("x")
    reseal(manifest, data)
    with pytest.raises(ValueError, match=r"names the file '\.\./outside'"):
        GaussianDiffusion.from_pretrained(tmp_path / "export")
