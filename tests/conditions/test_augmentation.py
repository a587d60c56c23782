"""Non-leaky augmentation: what is done to an image is what the network is told."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from runs import assert_same_run
from scipy.ndimage import map_coordinates
from toys import QUIET, Plain, tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.conditions import Augmentation, Images, Labels, Vectors
from diffusion_framework.spaces import LatentSpace, Unbounded
from diffusion_framework.training import Previews

NONE = [0.0] * 9


def drawn(probability=0.5, batch=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Augmentation(probability).draw(batch, torch.device("cpu"), generator)


def forward(numbers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and shift in pixels that nine numbers describe, as the docstring reads."""
    mirror_x, mirror_y, scale, cos, sin, along, across, right, down = numbers
    mirror = np.diag([1 - 2 * mirror_x, 1 - 2 * mirror_y])
    turn = np.array([[cos + 1, sin], [-sin, cos + 1]])  # counter-clockwise, where y points down
    angle, stretch = math.atan2(across, along) / 2, math.hypot(along, across)
    axes = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
    )
    longer = axes @ np.diag([2 ** (stretch / 5), 2 ** (-stretch / 5)]) @ axes.T
    matrix = longer @ turn @ mirror * 2 ** (scale / 5)
    return matrix, np.array([right * width / 8, down * height / 8])


def reference(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The transformed image [height, width], by linear interpolation of its reflected plane."""
    height, width = image.shape
    matrix, shift = forward(numbers, height, width)
    y, x = np.mgrid[:height, :width]
    centred = np.stack([x - (width - 1) / 2 - shift[0], y - (height - 1) / 2 - shift[1]])
    before = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), centred)
    places = before[1] + (height - 1) / 2, before[0] + (width - 1) / 2
    return map_coordinates(image, places, order=1, mode="reflect")


@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
def test_each_image_is_transformed_as_its_numbers_say(size):
    warp, images = drawn(), torch.rand(64, 2, *size, dtype=torch.float64)
    warped = warp(images)
    assert (warp.numbers != 0).any(0).all(), "the draws must contain each transformation"
    for image, after, numbers in zip(images, warped, warp.numbers.double().numpy(), strict=True):
        for channel in range(2):
            expected = reference(image[channel].numpy(), numbers)
            np.testing.assert_allclose(after[channel].numpy(), expected, atol=1e-4)


def test_each_transformation_alone_agrees_with_pillow():
    """On a smooth picture, and where Pillow, which fills with black, sees the picture."""
    size, warp = 64, drawn(0.2, 600)
    y, x = np.mgrid[:size, :size] / size
    picture = (np.sin(5 * x + 2) + np.cos(7 * y - x)).astype(np.float32)
    warped = warp(torch.from_numpy(picture).expand(600, 1, size, size))[:, 0].numpy()
    numbers = warp.numbers.numpy()
    kinds = {"x": [0], "y": [1], "scale": [2], "turn": [3, 4], "stretch": [5, 6], "shift": [7, 8]}
    image = Image.fromarray(picture)
    for kind, used in kinds.items():
        only = (numbers[:, used] != 0).all(1) & (np.delete(numbers, used, axis=1) == 0).all(1)
        chosen = np.flatnonzero(only)
        assert len(chosen) >= 3, kind
        for i in chosen[:3]:
            if kind in "xy":
                flip = Image.Transpose.FLIP_LEFT_RIGHT if kind == "x" else 1
                expected, seen = np.asarray(image.transpose(flip)), np.ones((size, size), bool)
            elif kind == "turn":
                degrees = math.degrees(math.atan2(numbers[i, 4], numbers[i, 3] + 1))
                turned = image.rotate(degrees, Image.Resampling.BILINEAR)
                expected, seen = np.asarray(turned), np.hypot(x - 0.5, y - 0.5) < 0.4
            else:
                matrix, shift = forward(numbers[i], size, size)
                inverse = np.linalg.inv(matrix)
                offset = size / 2 - inverse @ (size / 2 + shift)
                data = [*inverse[0], offset[0], *inverse[1], offset[1]]
                white = Image.new("F", (size, size), 1.0)
                how = ((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
                seen = np.asarray(white.transform(*how)) == 1
                seen[[0, -1]] = seen[:, [0, -1]] = False
                expected = np.asarray(image.transform(*how))
            assert seen.mean() > 0.1
            np.testing.assert_allclose(warped[i][seen], expected[seen], atol=0.02, err_msg=kind)


def test_images_that_are_told_nothing_are_the_same_bit_for_bit():
    warp, images = drawn(0.12, 500), torch.randn(500, 3, 7, 5)
    same = (warp.numbers == 0).all(1)
    share = 0.88**4 * 0.94**2  # a mirroring is undone by half of its coins
    assert abs(same.float().mean() - share) < 5 * math.sqrt(share * (1 - share) / 500)
    assert torch.equal(warp(images)[same], images[same])
    assert images.min() <= warp(images).min() and warp(images).max() <= images.max()


def test_the_numbers_have_the_moments_of_their_distributions():
    count, p = 40_000, 0.12
    numbers = drawn(p, count).numbers.double()
    means = torch.tensor([p / 2, p / 2, 0, -p, 0, 0, 0, 0, 0])
    squares = torch.tensor([p / 2, p / 2, p, 1.5 * p, p / 2, p / 2, p / 2, p, p])
    for found, expected in ((numbers, means), (numbers**2, squares)):
        error = found.std(0) / math.sqrt(count)
        assert ((found.mean(0) - expected).abs() < 5 * error).all()
    assert torch.equal(numbers[:, 7] != 0, numbers[:, 8] != 0), "both shifts belong together"
    with pytest.raises(ValueError, match=r"probability of augmentation in \[0, 1\], got 1.5. Fix"):
        Augmentation(1.5)


NETWORKS = pytest.mark.parametrize("make", [tiny_unet, tiny_dit, tiny_rin])


def loud(make, **options):
    """A network in which every condition has an effect, and training sees the last estimate."""
    torch.manual_seed(0)
    network = make(**options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def loss_and_gradients(model, data, **told):
    model.zero_grad()
    loss = model(data, generator=torch.Generator().manual_seed(1), **told)
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@NETWORKS
def test_a_probability_of_0_trains_bit_for_bit_as_without(make):
    data, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    told = GaussianDiffusion(loud(make, augmentation=True, num_classes=3), augmentation=0.0)
    plain = GaussianDiffusion(make(num_classes=3))
    extra = set(told.state_dict()) - set(plain.state_dict())
    assert extra == {"model.embed_conditions.augmentation.weight"}
    plain.load_state_dict({k: v for k, v in told.state_dict().items() if k not in extra})
    draw = {"labels": labels, "self_condition_draw": 0.0}
    (one, ours), (two, theirs) = (loss_and_gradients(m, data, **draw) for m in (told, plain))
    assert torch.equal(one, two) and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert not ours[extra.pop()].any(), "it takes part in each step, as several processes need"


@NETWORKS
def test_samples_are_those_of_zeros_and_training_is_told(make):
    model = GaussianDiffusion(loud(make, augmentation=True), augmentation=0.5, timesteps=4)
    options = {"seed": 3, "steps": 2, "show_progress": False}
    plain = model.sample(2, **options)
    assert torch.equal(plain, model.sample(2, augmentation=torch.zeros(2, 9), **options))
    mirrored = model.sample(2, augmentation=[1.0, *NONE[1:]], **options)
    assert not torch.equal(plain, mirrored)
    x, at = torch.randn(2, 1, 8, 8), model.schedule.at(0.5)
    zeros = model.denoiser(augmentation=torch.zeros(2, 9))
    assert torch.equal(model.denoiser()(x, at).x0, zeros(x, at).x0)
    data = torch.rand(6, 1, 8, 8)
    _, gradients = loss_and_gradients(model, data)
    assert gradients["model.embed_conditions.augmentation.weight"].any()
    once, again = (
        model.eval().validation_metrics(data, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert torch.equal(once["validation_loss"], again["validation_loss"])
    with pytest.raises(ValueError, match="Expected no value of augmentation in training.* Fix: l"):
        model.train()(data, augmentation=torch.zeros(6, 9))


class Told(Plain):
    """A network that records what it is told."""

    def forward(self, x, time, augmentation, image=None, labels=None, vector=None):
        self.seen.append((augmentation, image))
        return self.conv(x)


def seen_in_training(monkeypatch, data, conditions, mask=None, **told):
    """The encoded data and mask that the loss gets, and what the network is told."""
    model = GaussianDiffusion(Told(data.shape[1], data.shape[-1]), conditions=conditions)
    batches = []
    kind = type(model.loss)
    call = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, to, batch: batches.append(batch) or call(self, to, batch)
    )
    model(data, generator=torch.Generator().manual_seed(0), mask=mask, **told)
    (batch,), ((numbers, image),) = batches, model.model.seen
    return batch, numbers, image


def test_an_image_its_conditions_and_its_mask_are_transformed_alike(monkeypatch):
    data = torch.rand(40, 1, 8, 8)
    conditions = {
        "augmentation": Augmentation(0.5),
        "sketch": Images(1, keyword="image"),
        "labels": Labels(3),
        "pose": Vectors(2, statistics=Unbounded(0.0, 1.0), keyword="vector"),
    }
    mask = torch.rand(40, 1, 8, 8) < 0.8
    told = {"sketch": 1 - data, "labels": torch.arange(40) % 3, "pose": torch.randn(40, 2)}
    batch, numbers, image = seen_in_training(monkeypatch, data, conditions, mask, **told)
    torch.testing.assert_close(image, -batch.x0)
    moved = (numbers != 0).any(1)
    assert 0.2 < moved.float().mean() < 1
    assert torch.equal(batch.mask[~moved], mask[~moved])
    for i in moved.nonzero()[:, 0].tolist():
        kept = reference(mask[i, 0].double().numpy(), numbers[i].double().numpy())
        found = batch.mask[i, 0].numpy()
        assert (kept[found] > 0.99).all() and (kept[~found] < 1).all()


@pytest.mark.parametrize("shape", [(), (1,), (1, 8), (1, 8, 1)])
def test_a_mask_of_fewer_dimensions_keeps_its_meaning(monkeypatch, shape):
    """A mask of rows becomes one of pixels, since rotated rows are not rows."""
    data, mask = torch.rand(400, 1, 8, 8), torch.rand(400, *shape) < 0.7
    conditions = {"augmentation": Augmentation(0.3)}
    batch, numbers, _ = seen_in_training(monkeypatch, data, conditions, mask)
    if len(shape) < 2:
        assert batch.mask is mask or torch.equal(batch.mask, mask)
        return
    whole = mask.reshape(400, 1, 8, 1).expand(400, 1, 8, 8)
    same = (numbers == 0).all(1)
    assert torch.equal(batch.mask[same], whole[same])
    mirrored = (numbers[:, 1] != 0) & (numbers[:, 2:] == 0).all(1)
    assert mirrored.any()
    assert torch.equal(batch.mask[mirrored], whole[mirrored].flip(-2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GaussianDiffusion(tiny_unet(augmentation=True), space=Unbounded()),
            "images in ImageSpace for augmentation, got Unbounded",
        ),
        (
            lambda: GaussianDiffusion(
                tiny_unet(augmentation=True), space=LatentSpace(torch.nn.Identity())
            ),
            "images in ImageSpace for augmentation, got LatentSpace",
        ),
        (
            lambda: GaussianDiffusion(
                Told(), sample_shape=(4, 2), conditions={"augmentation": Augmentation()}
            ),
            r"samples \(channels, height, width\) for augmentation, got \(4, 2\)",
        ),
        (
            lambda: GaussianDiffusion(tiny_unet(), augmentation=0.1),
            "a network that is told of augmentation=0.1, got UNet without.*augmentation true",
        ),
        (
            lambda: GaussianDiffusion(
                tiny_unet(augmentation=True),
                conditions={"augmentation": Augmentation()},
                augmentation=0.2,
            ),
            r"no augmentation beside conditions, got 0.2. Fix: add Augmentation\(prob",
        ),
        (
            lambda: GaussianDiffusion(tiny_unet(augmentation=True), condition_dropout=0.2),
            "a network with conditions for condition_dropout=0.2, got UNet without",
        ),
        (
            lambda: tiny_unet()(
                torch.rand(2, 1, 8, 8), torch.rand(2), augmentation=torch.ones(2, 9)
            ),
            "no augmentation, as the network is built without",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)


def test_autocast_does_not_round_where_pixels_come_from():
    warp, images = drawn(), torch.rand(64, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, again = warp(images), drawn()
    assert torch.equal(rounded, warp(images)) and torch.equal(again.inverse, warp.inverse)


@NETWORKS
def test_a_training_step_waits_for_no_device(make):
    model = GaussianDiffusion(make(augmentation=True, image_channels=1), augmentation=0.5)
    model.to("meta")
    data = torch.rand(4, 1, 8, 8, device="meta")
    mask = torch.ones(4, 1, 8, 8, dtype=torch.bool, device="meta")
    loss = model(data, image=data, mask=mask)
    loss.backward()
    assert loss.is_meta


def test_a_run_resumes_exactly_and_its_previews_are_not_transformed(tmp_path):
    data = torch.rand(10, 1, 8, 8)

    def trainer(folder):
        torch.manual_seed(0)
        model = GaussianDiffusion(
            tiny_unet(augmentation=True, num_classes=2), timesteps=4, augmentation=0.5
        )
        pairs = [(image, {"labels": i % 2}) for i, image in enumerate(data)]
        options = {"train_batch_size": 4, "train_num_steps": 4, "save_and_sample_every": 2}
        options |= {"num_samples": 2, "previews": Previews(sampling_steps=1), **QUIET}
        return Trainer(model, pairs, results_folder=tmp_path / folder, **options)

    trainer("whole").train()
    cut = trainer("cut")
    cut.num_steps = 2
    cut.train()
    trainer("cut").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    opened = GaussianDiffusion.from_pretrained(tmp_path / "cut")
    assert [*opened.conditions] == ["labels", "augmentation"]
    assert opened.conditions["augmentation"].probability == 0.5
    again = copy.deepcopy(opened).sample(2, labels=[0, 1], seed=0, steps=1, guidance=2.0)
    assert torch.isfinite(again).all()
