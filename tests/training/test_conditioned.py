"""Models with any kind of condition train, validate and draw previews."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from runs import assert_same_run, weights
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.conditions import Conditioner, Images, Tokens, Vectors
from diffusion_framework.data import Digits, TrainingDataset
from diffusion_framework.data.loading.loader import to_device
from diffusion_framework.data.wrapped import as_dataset
from diffusion_framework.spaces import Unbounded
from diffusion_framework.training import Loading, Previews
from diffusion_framework.training.previews import preview_conditions

CPU = torch.device("cpu")


class ToldByImage(Plain):
    def forward(self, x, time, image):
        return self.conv(x) + image.mean()


class ToldByVector(Plain):
    def forward(self, x, time, vector):
        return self.conv(x) + vector.mean(dim=1)[:, None, None, None]


class ToldByTokens(Plain):
    def forward(self, x, time, tokens, token_mask):
        return (
            self.conv(x) + (tokens * token_mask[:, :, None]).mean(dim=(1, 2))[:, None, None, None]
        )


KINDS = {
    "sketch": (ToldByImage, lambda: Images(1, keyword="image"), lambda r: r(1, 4, 4)),
    "pose": (ToldByVector, lambda: Vectors(3), lambda r: 5 + 2 * r(3)),
    "text": (ToldByTokens, lambda: Tokens(2, 5), lambda r: r(3, 2)),
}


def diffusion(kind):
    torch.manual_seed(0)
    network, conditioner, _ = KINDS[kind]
    return GaussianDiffusion(network(), conditions={kind: conditioner()}, timesteps=3)


def samples(kind, count, seed):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return [(random(1, 4, 4), {kind: KINDS[kind][2](random)}) for _ in range(count)]


def train(kind, folder, steps, resume=False, **options):
    defaults = {"train_batch_size": 4, "save_and_sample_every": 2, "num_samples": 5}
    defaults |= {"previews": Previews(sampling_steps=2), **QUIET, **options}
    run = Trainer(
        diffusion(kind),
        samples(kind, 9, 0),
        results_folder=folder,
        train_num_steps=steps,
        **defaults,
    )
    run.train(resume)
    return run


@pytest.mark.parametrize("held_out", [True, False], ids=["held-out data", "training data only"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_validates_and_previews(kind, held_out, tmp_path):
    options = {"validation": samples(kind, 3, 1)} if held_out else {}
    train(kind, tmp_path / "whole", 4, **options)
    assert Image.open(tmp_path / "whole" / "samples" / "step-00000004.png").size[0] > 4
    if held_out:
        rows = [*csv.DictReader((tmp_path / "whole" / "validation.csv").open())]
        assert all(np.isfinite(float(row["validation_loss"])) for row in rows) and len(rows) == 2
    train(kind, tmp_path / "cut", 2, **options)
    with pytest.warns(UserWarning, match="train_num_steps: 2 before, 4 now"):
        train(kind, tmp_path / "cut", 4, resume=True, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_statistics_are_fitted_to_all_training_data_once(tmp_path):
    train("pose", tmp_path, 1)
    poses = torch.stack([given["pose"] for _, given in samples("pose", 9, 0)])
    for name in ("model", "ema"):
        tensors = weights(tmp_path, name)
        mean = next(value for key, value in tensors.items() if key.endswith("mean"))
        torch.testing.assert_close(mean.flatten().float(), poses.mean(0))
    again = GaussianDiffusion.from_pretrained(tmp_path, model=ToldByVector())
    assert not again.conditions.needs_fit


def test_previews_always_have_the_same_conditions():
    data = as_dataset(samples("pose", 9, 0))
    poses = torch.stack([given["pose"] for _, given in samples("pose", 9, 0)])
    for chosen in ([0, 1, 2, 3, 4], [3, 4]):
        told = preview_conditions(data, np.array(chosen), 5, CPU)["pose"]
        assert torch.equal(told, poses[[2 * i for i in chosen]]), "evenly spread over the data"


def test_classes_of_previews_take_turns():
    told = preview_conditions(Digits(labels=True), np.arange(12), 12, CPU)
    assert told["labels"].tolist() == [*range(10), 0, 1]


def test_classes_of_previews_take_turns_beside_other_conditions():
    class Posed(TrainingDataset):
        class_names = ("cat", "dog")

        def __len__(self):
            return 4

        def draw(self, index, epoch):
            return torch.zeros(1, 4, 4), {"labels": 1, "pose": torch.full((3,), float(index))}

        def fingerprint(self):
            return ""

    told = preview_conditions(Posed(), np.arange(4), 4, CPU)
    assert told["labels"].tolist() == [0, 1, 0, 1] and told["pose"][:, 0].tolist() == [0, 1, 2, 3]


def test_a_mask_is_not_a_condition():
    data = as_dataset([(torch.zeros(2, 2), {"pose": torch.ones(3), "mask": torch.ones(2)})])
    assert preview_conditions(data, np.arange(1), 1, CPU).keys() == {"pose"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.rand(1, 4, 4)] * 4, "sketch.*none"),
        ([(torch.rand(1, 4, 4), {"label": 3})] * 4, "Expected conditions sketch, got label"),
        ([(torch.rand(1, 4, 4) * 255, {"sketch": torch.rand(1, 4, 4)})] * 4, r"data in \[0, 1\]"),
        (
            [(torch.rand(3, 4, 4), {"sketch": torch.rand(1, 4, 4)})] * 4,
            r"Expected samples \[batch, 1",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_before_training(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        Trainer(diffusion("sketch"), data, train_batch_size=4, results_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Words(Conditioner):
    """Texts as vectors: the number of letters."""

    def __init__(self):
        super().__init__(("vector",))

    def encode(self, value):
        if not all(isinstance(text, str) for text in value):
            raise ValueError(f"Expected texts, got {value}. Fix: give one text for each sample.")
        lengths = torch.tensor([[float(len(text))] for text in value], device=self.device)
        return {"vector": lengths}

    def none(self, batch):
        return {"vector": torch.zeros(batch, 1)}


@pytest.mark.parametrize("workers", [0, 1])
def test_words_in_a_batch_reach_a_conditioner_that_takes_them(tmp_path, workers):
    data = [(torch.rand(1, 4, 4), {"text": "a cat"[: 1 + i % 5]}) for i in range(8)]
    model = GaussianDiffusion(ToldByVector(), conditions={"text": Words()}, timesteps=2)
    options = {"train_batch_size": 4, "train_num_steps": 2, "num_samples": 2, **QUIET}
    options |= {"loading": Loading(num_workers=workers), "validation": data[:2]}
    Trainer(model, data, results_folder=tmp_path, **options).train()
    assert (tmp_path / "samples").is_dir()


def test_words_are_refused_at_the_door_where_nothing_takes_them(tmp_path):
    data = [(torch.rand(1, 4, 4), {"text": "a cat"})] * 4
    for model, message in (
        (GaussianDiffusion(Plain()), "Expected no conditions, got text. Fix: leave it out"),
        (diffusion("pose"), "Expected conditions pose, got text. Fix: "),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            Trainer(model, data, train_batch_size=4, results_folder=tmp_path / "run")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((torch.rand(1, 4, 4), {"pose": "a cat"}), "Expected vectors.*, got list. Fix: "),
        ((torch.rand(1, 4, 4), {"pose": torch.rand(2)}), r"\[.*2\].* Fix: "),
        ((torch.rand(3, 4, 4), {"pose": torch.rand(3)}), r"samples \[batch, 1, 4, 4\]"),
        ((torch.rand(4, 4, 1), {"pose": torch.rand(3)}), "Fix: put the channels first"),
    ],
    ids=["words", "size", "shape", "channels last"],
)
def test_what_waits_for_statistics_is_checked_before(tmp_path, data, message):
    conditions = {"pose": Vectors(3)}
    model = GaussianDiffusion(ToldByVector(), conditions=conditions, space=Unbounded())
    with pytest.raises(ValueError, match=message) as caught:
        Trainer(model, [data] * 4, train_batch_size=4, results_folder=tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    assert model.space.needs_fit and model.conditions.needs_fit


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (1, 4, 4), (1, 1, 4)])
def test_a_mask_of_ones_and_zeros_of_any_type_selects_the_loss(tmp_path, dtype, shape):
    torch.manual_seed(0)
    kept = torch.rand(4, *shape) < 0.5
    data = [(torch.rand(1, 4, 4), {"mask": one.to(dtype)}) for one in kept]
    model = GaussianDiffusion(Plain(), timesteps=2)
    Trainer(model, data, train_batch_size=4, results_folder=tmp_path, train_num_steps=1, **QUIET)
    images, condition = to_device(as_dataset(data).take(np.arange(4)), CPU)
    losses = []
    for mask in (condition["mask"], None, ~condition["mask"]):
        generator = torch.Generator().manual_seed(1)
        losses.append(model(images, mask=mask, generator=generator, self_condition_draw=1.0))
    torch.testing.assert_close(losses[0] + losses[2], losses[1])
    assert torch.equal(condition["mask"], kept)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.full((1, 4, 4), 255), "True and False, or 1 and 0, got values from 255 to 255. Fix"),
        ("a", "True and False, or 1 and 0, got list. Fix"),
        (torch.ones(4, 4), r"leading dimensions of samples \[1, 4, 4\], got \[4, 4\]. Fix"),
        (torch.ones(1, 4, 4, 1), r"got \[1, 4, 4, 1\]. Fix"),
    ],
)
def test_another_mask_is_refused_before_training(tmp_path, mask, message):
    data = [(torch.rand(1, 4, 4), {"mask": mask})] * 4
    with pytest.raises(ValueError, match=message) as caught:
        Trainer(GaussianDiffusion(Plain()), data, train_batch_size=4, results_folder=tmp_path / "r")
    assert "\n" not in str(caught.value)
