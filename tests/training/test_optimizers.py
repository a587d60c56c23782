"""Any optimizer trains, and a resumed run goes on with it bit for bit."""

import json
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from runs import assert_resumes_exactly, rewrite, trainer
from torch import nn
from toys import tiny_diffusion

from diffusion_framework import Trainer
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.trainable import Trainable
from diffusion_framework.training import LearningRate, Previews
from diffusion_framework.training.ema import EMA
from diffusion_framework.training.optimizers import NAMED, ChosenOptimizer
from diffusion_framework.training.state import TrainingState

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))

QUICK = {"previews": Previews(every=0)}


class Matrices(Trainable):
    """A model of matrices, which every optimizer takes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5, 2))

    sample_shape, networks = (3, 4), ()

    def forward(self, data, **_):
        return self.a.square().sum() * data + self.b.sin().sum()

    def validation_metrics(self, data, **_):
        return {}


class Own(torch.optim.Optimizer):
    """Keeps its state in every way that a checkpoint can hold."""

    def __init__(self, params, lr=0.1, decay=0.5):
        super().__init__(params, {"lr": lr, "decay": decay, "mean": 1.0, "pair": (0, 0.0)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["mean"] = group["mean"] * group["decay"] + 0.1
            group["pair"] = (group["pair"][0] + 1, group["mean"])
            for p in group["params"]:
                slots = self.state[p]
                slots["count"] = slots.get("count", 0) + 1
                slots["rows"] = slots.get("rows", torch.zeros(len(p))) + p.grad.sum(dim=1)
                slots["whole"] = torch.tensor(slots["count"])
                p -= group["lr"] * group["mean"] * group["pair"][0] * slots["rows"][:, None]


def state_of(choice):
    accelerator, model = Accelerator(cpu=True), Matrices()
    chosen = ChosenOptimizer(choice, {}, 0.01, {})
    average = partial(EMA().average, decay=0.9, update_every=1)
    options = {"compile": False, "shard": False, "track": partial(EMA().track, update_every=1)}
    return TrainingState(model, accelerator, average=average, optimizer=chosen.make, **options)


def step(state):
    state.loss(1.0 + state.step).backward()
    state.advance(None)


@pytest.mark.parametrize(
    "choice",
    [*NAMED, Own, lambda params: Own(params, lr=0.3)],
    ids=[*map(str, NAMED), "class", "function"],
)
def test_the_state_of_every_optimizer_is_restored_exactly(choice):
    whole, cut, again = state_of(choice), state_of(choice), state_of(choice)
    for _ in range(5):
        step(whole)
    for _ in range(2):
        step(cut)
    again.model.load_state_dict(cut.model.state_dict())
    again.slots.load(cut.slots.tensors(), json.loads(json.dumps(cut.slots.numbers())))
    again.step = 2
    for _ in range(3):
        step(again)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[k]) for k, value in again.model.state_dict().items())
    assert not torch.equal(expected["a"], cut.model.state_dict()["a"])
    assert whole.slots.numbers() == again.slots.numbers()


def sgd(params):
    return torch.optim.SGD(params, lr=0.03, momentum=0.9)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"optimizer": "radam", "optimizer_options": {"eps": 1e-6}}, "RAdam"),
        ({"optimizer": torch.optim.Adafactor}, "Adafactor"),
        ({"optimizer": sgd}, "SGD(lr=0.03, momentum=0.9)"),
        ({"optimizer": "muon", "optimizer_options": {"momentum": 0.9}}, "Muon"),
    ],
    ids=["name", "class", "function", "muon"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, options, name):
    options = {**options, **QUICK}
    assert_resumes_exactly(IMAGES, tmp_path, **options)
    assert Checkpoint.find(tmp_path / "cut").config["trainer"]["optimizer"] == name
    refused = "expected|Expected the optimizer of .*, got 'torch.optim.adamw.AdamW'. Fix: give opt"
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=refused):
        trainer(IMAGES, tmp_path / "cut").train(resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_an_optimizer_object_brings_the_rates_of_its_groups(tmp_path):
    """The schedule scales each of them; train_lr is not used."""

    def make(params):
        return torch.optim.SGD([{"params": params[:1], "lr": 0.5}, {"params": params[1:]}], lr=0.25)

    halves = LearningRate(lambda share: 0.5)
    run = trainer(IMAGES, tmp_path, optimizer=make, learning_rate=halves, **QUICK)
    run.train()
    assert [group["lr"] for group in run.state.optimizer.param_groups] == [0.25, 0.125]
    assert (tmp_path / "log.csv").read_text().splitlines()[-1].split(",")[3] == "0.25"


def test_an_object_trains_the_model_it_belongs_to(tmp_path):
    model, options = tiny_diffusion(), {"train_batch_size": 4, "results_folder": tmp_path / "run"}
    Trainer(model, IMAGES, optimizer=torch.optim.Adagrad(model.parameters()), **options)
    others = torch.optim.Adagrad(tiny_diffusion().parameters())
    with pytest.raises(ValueError, match="of the model's parameters, got 'Adagrad of others'. Fix"):
        Trainer(model, IMAGES, optimizer=others, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "AdmW"}, "optimizer of torch.optim, got 'AdmW'. Fix: write 'AdamW'"),
        ({"optimizer": "LBFGS"}, "got 'LBFGS'. Fix: "),
        ({"optimizer": torch.optim.LBFGS}, "an optimizer whose step needs no closure, got 'LBFGS'"),
        ({"optimizer": 3}, "an optimizer, got 3. Fix: give a name in torch.optim"),
        ({"optimizer": lambda params: params}, "an optimizer, got 'list'. Fix: return a torch.opt"),
        (
            {"optimizer": "SGD", "optimizer_options": {"nesterov": True}},
            "that torch.optim.*SGD takes, got an error .*momentum",
        ),
        (
            {"optimizer": "SGD", "optimizer_options": {"momentun": 0.9}},
            r"options and parameters that .*SGD takes, got an error .*momentun.* Fix: ",
        ),
        (
            {"optimizer_options": {"eps": 1e-6}},
            "optimizer_options of an optimizer, got .* Fix: ",
        ),
        ({"optimizer": sgd, "optimizer_options": {"eps": 1}}, "no optimizer_options with an opt"),
        ({"optimizer": "SGD", "weight_decay": 0.1}, "no weight_decay with another optimizer, got"),
        ({"optimizer": "SGD", "betas": (0.5, 0.9)}, "no betas with another optimizer"),
    ],
)
def test_what_is_not_an_optimizer_is_refused_in_one_line(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        trainer(IMAGES, tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_state_that_no_checkpoint_holds_ends_the_first_step(tmp_path):
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            self.param_groups[0]["pair"] = {1, 2}

    run = trainer(IMAGES, tmp_path, optimizer=lambda params: Odd(params, lr=1e-9))
    with pytest.raises(ValueError, match="state group 0: pair that a checkpoint can hold, got 's"):
        run.train()


def test_a_changed_state_of_another_optimizer_is_refused(tmp_path):
    options = {"optimizer": "NAdam", "train_num_steps": 1, **QUICK}
    trainer(IMAGES, tmp_path, **options).train()
    checkpoint = list_checkpoints(tmp_path)[-1]
    state = json.loads((checkpoint / "state.json").read_text())
    for change in (
        {"groups": [{"params": []}]},
        {"groups": [{"eps": [1]}]},
        {"groups": [{}, {}]},
        {"groups": 3},
        {"slots": {"model.nothing.x": 3}},
        {"slots": []},
    ):
        changed = {**state, "optimizer": {**state["optimizer"], **change}}
        rewrite(checkpoint, "state.json", json.dumps(changed).encode())
        with pytest.raises(ValueError, match=r"\A[^\n]*damage[^\n]*Fix: [^\n]+\Z"):
            trainer(IMAGES, tmp_path, **{**options, "train_num_steps": 2}).train(resume=True)
