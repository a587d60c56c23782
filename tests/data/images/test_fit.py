"""Images are brought to a size by cropping, padding or stretching, and by one's own transform."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from runs import assert_same_run
from toys import QUIET, tiny_diffusion

from diffusion_framework import ImageFolder, Trainer
from diffusion_framework.data import TrainingDataset
from diffusion_framework.data.images.resize import fit_image
from diffusion_framework.parts import Typed, plan


@pytest.mark.parametrize("size", [(8, 8), (8, 16), (24, 8), (1, 1)])
@pytest.mark.parametrize("shape", [(4, 8), (40, 7), (1, 100), (9, 1)])
def test_a_padded_image_is_whole_in_its_proportions_and_centred(size, shape):
    image = Image.new("L", shape[::-1], 50)
    padded = np.asarray(fit_image(image, size, "pad", background=(200, 200, 200)))
    assert padded.shape == size
    inside = padded == 50
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert (padded[~inside] == 200).all() and inside.sum() == len(rows) * len(columns)
    scale = min(size[0] / shape[0], size[1] / shape[1])
    for found, side, whole in ((rows, shape[0], size[0]), (columns, shape[1], size[1])):
        assert abs(len(found) - max(1, side * scale)) <= 0.5
        assert abs(found[0] - (whole - 1 - found[-1])) <= 1
    assert inside.all(0).any() or inside.all(1).any(), "it touches two opposite sides"


def test_padding_has_the_background_of_each_mode():
    for mode, expected in (("RGB", (10, 20, 30)), ("RGBA", (10, 20, 30, 0))):
        image = Image.new(mode, (8, 4))
        corner = fit_image(image, (8, 8), "pad", background=(10, 20, 30)).getpixel((0, 0))
        assert corner == expected
    grey = fit_image(Image.new("F", (8, 4)), (8, 8), "pad", background=(20, 20, 20))
    assert grey.getpixel((0, 0)) == 20 * 257


def test_stretching_keeps_all_columns_and_rows():
    ramp = Image.fromarray(np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(16, 0))
    stretched = np.asarray(fit_image(ramp, (16, 16), "stretch")).astype(float)
    cropped = np.asarray(fit_image(ramp, (16, 16), "crop")).astype(float)
    assert np.ptp(stretched) > 230 and np.ptp(cropped) < 70
    np.testing.assert_allclose(stretched[0], np.linspace(6, 249, 16), atol=3)


def test_only_crops_can_be_random(wide):
    assert ImageFolder(wide, 8, fit="pad")[0].shape == (3, 8, 8)
    with pytest.raises(ValueError, match="Expected fit 'crop' with random crops, got 'pad'"):
        ImageFolder(wide, 8, fit="pad", crop="random")


def darker(image):
    return image.point(lambda value: value // 2)


def noisy(image):
    noise = torch.rand(1, 8, 8) + np.random.rand() + random.random()  # noqa: NPY002
    return noise / 3


def test_an_image_from_a_transform_is_resized_and_a_tensor_is_the_sample(wide):
    plain, halved = ImageFolder(wide, 8)[0], ImageFolder(wide, 8, transform=darker)[0]
    assert halved.dtype == torch.uint8 and halved.shape == (3, 8, 8)
    assert (halved.float() - plain.float() / 2).abs().max() <= 2
    grey = ImageFolder(wide, 8, transform=lambda image: image.convert("L"))[0]
    assert grey.shape == (3, 8, 8) and torch.equal(grey[0], grey[2])
    whole = ImageFolder(wide, 8, transform=lambda image: torch.full((3, 8, 8), 0.25))[0]
    assert whole.dtype == torch.float32 and (whole == 0.25).all()


@pytest.mark.parametrize(("result", "got"), [(torch.zeros(3, 9, 9), r"\[3, 9, 9\]"), (3, "int")])
def test_another_result_of_a_transform_is_refused_with_the_image(wide, result, got):
    message = rf"or a tensor \[3, 8, 8\] from transform, got {got} for image '.*wide.png'. Fix: "
    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(wide, 8, transform=lambda image: result)[0]
    assert "\n" not in str(caught.value)


def test_random_numbers_of_a_transform_are_functions_of_the_image_and_the_epoch(half_broken):
    options = {"image_size": 8, "channels": 1, "broken": "skip", "transform": noisy}
    folder = ImageFolder(half_broken, **options)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    samples = [folder.draw(i, epoch) for i in (1, 2) for epoch in (0, 1)]
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.manual_seed(5)
    random.seed(5)
    again = [ImageFolder(half_broken, **options).draw(i, e) for i in (1, 2) for e in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(samples, again, strict=True))
    assert len({sample.sum().item() for sample in samples}) == 4
    other = ImageFolder(half_broken, **options, seed=1).draw(1, 0)
    assert not torch.equal(other, samples[0])


def test_a_run_with_a_transform_resumes_bit_for_bit(half_broken, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for folder, ends in (("whole", [4]), ("parts", [2, 4])):
        for end in ends:
            torch.manual_seed(0)
            data = ImageFolder(half_broken, 8, 1, broken="skip", transform=noisy)
            run = Trainer(
                tiny_diffusion(),
                data,
                results_folder=results / folder,
                train_num_steps=end,
                train_batch_size=2,
                save_and_sample_every=2,
                num_samples=1,
                **QUIET,
            )
            run.train(resume=end > ends[0])
    assert_same_run(results / "whole", results / "parts")


@pytest.mark.parametrize("kind", [str, Typed])
def test_files_and_flags_name_no_transform(wide, kind):
    folder = {"class_path": "ImageFolder", "init_args": {"folder": str(wide)}}
    folder["init_args"]["transform"] = kind("PIL.ImageOps.invert")
    with pytest.raises(ValueError, match="transform: expected .*null, got 'PIL.ImageOps.invert'"):
        plan(folder, TrainingDataset)


def test_a_resumed_run_tells_that_images_are_fitted_otherwise(half_broken, tmp_path_factory):
    results, moved = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("moved")
    for name in ("1.png", "2.png"):
        (moved / name).write_bytes((half_broken / name).read_bytes())
    options = {"results_folder": results / "run", "train_batch_size": 2, "num_samples": 1, **QUIET}

    def run(folder, steps, **fit):
        data = ImageFolder(folder, 8, 1, **fit)
        Trainer(tiny_diffusion(), data, train_num_steps=steps, **options).train(resume=steps > 1)

    run(moved, 1)
    elsewhere = moved.rename(moved.with_name("elsewhere"))
    with pytest.warns(UserWarning, match="differs from before") as caught:
        run(elsewhere, 2, fit="pad")
    assert "data.fit: crop before, pad now" in str(caught[0].message)
    assert "data.folder" not in str(caught[0].message)
