"""Runs that start from the weights of another run, or from an earlier checkpoint of their own."""

import re
import shutil
import warnings
from pathlib import Path

import faulty
import pytest
import soak
import torch
from runs import assert_same_run, trainer, weights
from toys import tiny_diffusion, tiny_dit, tiny_unet

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.conditions import Vectors
from diffusion_framework.spaces import Unbounded
from diffusion_framework.storage.checkpoint import list_checkpoints, step_of
from diffusion_framework.training import Compute, Loading, Logging, Previews, Saving
from diffusion_framework.training.starting import Start

KEEP = {"save_and_sample_every": 2, "saving": Saving(keep_newest=9)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of six steps, with checkpoints at 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    images = list(torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    trainer(images, folder / "run", **KEEP).train()
    return folder / "run"


def again(folder, **options):
    images = list(torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return trainer(images, folder, **{**KEEP, **options})


def steps(folder):
    return [step_of(path) for path in list_checkpoints(folder)]


def test_a_run_goes_on_from_an_earlier_checkpoint(whole, tmp_path):
    """The steps after it are repeated bit for bit, and no checkpoint is lost."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    with pytest.warns(UserWarning, match="after step 2 are now in .*after-step-00000002-1"):
        again(run).train(resume_from=2)
    assert_same_run(whole, run)
    aside = run / "checkpoints" / "after-step-00000002-1"
    assert sorted(path.name for path in aside.iterdir()) == ["step-00000004", "step-00000006"]
    assert steps(run) == [2, 4, 6]
    with pytest.warns(UserWarning, match="after step 4 are now in"):
        again(run, train_num_steps=8).train(resume_from=4)
    again(run, train_num_steps=8).train(resume=True)
    assert steps(run) == [2, 4, 6, 8], "a later resumption begins at the newest one that is left"


def test_the_newest_checkpoint_leaves_nothing_to_set_aside(whole, tmp_path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The checkpoints after")
        again(run, train_num_steps=7).train(resume_from=6)
    assert steps(run) == [2, 4, 6, 7]


def test_a_step_without_checkpoint_is_refused_and_nothing_moves(whole):
    with pytest.raises(ValueError, match="of step 3, got the steps 2, 4, 6. Fix: resume from one"):
        again(whole).train(resume_from=3)
    assert steps(whole) == [2, 4, 6]
    with pytest.raises(ValueError, match="of a checkpoint as resume_from, got '2'. Fix: give"):
        again(whole).train(resume_from="2")
    with pytest.raises(ValueError, match="resume_from or init_from, got 'both'"):
        again(whole).train(resume_from=2, init_from=whole)


def new_run(folder, model, **options):
    size = model.sample_shape[-1]
    return Trainer(
        model,
        list(torch.rand(4, 1, size, size)),
        results_folder=folder,
        **{
            "train_batch_size": 4,
            "train_num_steps": 1,
            "previews": Previews(every=0),
            "loading": Loading(num_workers=0),
            "logging": Logging(progress=False),
            **options,
        },
    )


@pytest.mark.parametrize("size", [8, 16])
def test_a_new_run_starts_from_the_averaged_weights_of_another(whole, tmp_path, size):
    """A step too small to change a float32 leaves them equal; the optimizer begins anew."""
    run = new_run(tmp_path, GaussianDiffusion(tiny_unet(image_size=size)), train_lr=1e-30)
    run.train(init_from=whole)
    source = weights(whole, "ema")
    for name in ("model", "ema"):
        assert source.keys() == weights(tmp_path, name).keys()
        assert all(torch.equal(source[k], v) for k, v in weights(tmp_path, name).items())
    moments = weights(tmp_path, "optimizer")
    assert {float(v) for k, v in moments.items() if k.endswith("step")} == {1.0}
    new_run(tmp_path, GaussianDiffusion(tiny_unet(image_size=size)), train_lr=1e-30).train(
        resume=True, init_from="nowhere"
    )  # once it has a checkpoint, a run resumes from that


def test_weights_of_another_shape_stay_new_and_are_named(whole):
    model = GaussianDiffusion(tiny_unet(num_classes=3, channels=2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match=r"of \d+ tensors fit .*: model.embed_cond.*conv_in"):
        initial = Start(init_from=whole).weights(model)
    initial.load_into(model, lambda values, own: values)
    source = weights(whole, "ema")
    for name, tensor in model.state_dict().items():
        same = name in source and source[name].shape == tensor.shape
        assert torch.equal(tensor, source[name] if same else before[name])


def test_weights_of_another_model_are_said_to_be_so(whole):
    """A network that predicted v would start as one of eps."""
    other = GaussianDiffusion(tiny_unet(), timesteps=4, objective="eps", noise_schedule="cosine")
    with pytest.warns(UserWarning, match="objective: v before, eps now") as caught:
        Start(init_from=whole).weights(other)
    assert "noise_schedule: sigmoid before, cosine now" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Start(init_from=whole).weights(GaussianDiffusion(tiny_unet(), timesteps=4))


def test_another_loss_on_the_same_weights_is_not_another_model(whole):
    tuned = GaussianDiffusion(tiny_unet(), timesteps=4, loss="consistency", train_prob_self_cond=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Start(init_from=whole).weights(tuned)
    with pytest.warns(UserWarning, match=r"Fix: .*its settings \(--config "):
        Start(init_from=whole).weights(GaussianDiffusion(tiny_unet(), objective="x0"))


def test_a_network_of_jumps_starts_as_the_run_bit_for_bit(whole):
    """Jumps of any length are those of the velocity, because the second time starts at 0."""
    model = GaussianDiffusion(tiny_unet(second_time=True), timesteps=4, loss="flow_map")
    with pytest.warns(UserWarning, match="keep their initial values: model.embed_time.second"):
        initial = Start(init_from=whole).weights(model)
    initial.load_into(model, lambda values, own: values)
    source = GaussianDiffusion.from_pretrained(whole)
    x, at = torch.randn(4, 1, 8, 8), model.schedule.at(torch.tensor([0.2, 0.5, 0.7, 1.0]))
    wanted, _ = source.told({}, 4).output(x, at)
    for to in (None, at, model.schedule.at(at.t / 2)):
        output, _ = model.eval().told({}, 4).output(x, at, to)
        assert torch.equal(output, wanted)


def test_an_export_serves_and_another_network_does_not(whole, tmp_path):
    GaussianDiffusion.from_pretrained(whole).save_pretrained(tmp_path / "export")
    initial = Start(init_from=tmp_path / "export").weights(GaussianDiffusion(tiny_unet()))
    assert initial.tensors.keys() == weights(whole, "ema").keys()
    with pytest.raises(ValueError, match="that fit the model, got 'none'. Fix: give a run of the"):
        Start(init_from=whole).weights(GaussianDiffusion(tiny_dit(dim=12)))
    run = new_run(tmp_path / "run", GaussianDiffusion(tiny_unet()))
    with pytest.raises(ValueError, match="expected a results folder, a checkpoint or an export"):
        run.train(init_from=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_statistics_come_from_the_new_data(tmp_path):
    class Told(torch.nn.Module):
        channels, image_size = 1, 4

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)

        def forward(self, x, time, pose):
            return self.conv(x) + pose.mean(dim=1)[:, None, None, None]

    def train(folder, mean, **start):
        space = Unbounded()
        model = GaussianDiffusion(
            Told(), space=space, conditions={"pose": Vectors(3, keyword="pose")}
        )
        data = [(mean + torch.randn(1, 4, 4), {"pose": mean + torch.randn(3)}) for _ in range(8)]
        options = {"results_folder": folder, "previews": Previews(every=0), "train_num_steps": 1}
        options |= {"loading": Loading(0), "logging": Logging(progress=False), "train_lr": 1e-30}
        Trainer(model, data, train_batch_size=4, **options).train(**start)
        return weights(folder, "ema")

    first = train(tmp_path / "a", 0.0)
    second = train(tmp_path / "b", 100.0, init_from=tmp_path / "a")
    assert torch.equal(first["model.conv.weight"], second["model.conv.weight"])
    means = [(first[k], second[k]) for k in first if k.endswith("mean")]
    assert len(means) == 2
    for before, after in means:
        assert before.abs().max() < 3 and (after - 100).abs().max() < 3


@pytest.mark.parametrize("found", [False, True])
def test_unused_weights_with_two_processes_name_the_option(tmp_path, found):
    errors, options = tmp_path / "errors", {"train_num_steps": 2, "save_and_sample_every": 2}
    options["compute"] = Compute(find_unused_parameters=found)
    run = faulty.with_an_unused_layer
    codes = soak.end(soak.start(tmp_path / "run", 2, target=run, errors=errors, **options))
    if found:
        assert codes == [0, 0]
        return
    assert 0 not in codes and not (tmp_path / "run" / "checkpoints").exists()
    message = "got no gradient of model.spare.weight, model.spare.bias. Fix: set compute.find_un"
    assert len(re.findall(message, errors.read_text())) == 2


def test_a_resumed_run_exists_or_may_start(tmp_path):
    with pytest.raises(ValueError, match=r"to resume in .*run, got no checkpoint\. Fix: .*auto"):
        new_run(tmp_path / "run", tiny_diffusion()).train(resume=True)
    assert not (tmp_path / "run").exists()
    new_run(tmp_path / "run", tiny_diffusion()).train(resume="auto")
    new_run(tmp_path / "run", tiny_diffusion()).train(resume="auto")  # at its end, it does nothing
    new_run(tmp_path / "run", tiny_diffusion()).train(resume=True)
