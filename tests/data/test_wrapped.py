"""Conversion of other data to a `TrainingDataset`."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.data import Digits
from diffusion_framework.data.loading.loader import to_device
from diffusion_framework.data.wrapped import as_dataset
from diffusion_framework.spaces import ImageSpace
from diffusion_framework.storage.config import to_config

IMAGES = torch.rand(5, 1, 4, 4)


class Named:
    """Samples with a length, but indexed by names."""

    def __len__(self):
        return 2

    def __getitem__(self, key):
        return {"a": 1, "b": 2}[key]


def test_a_training_dataset_is_returned_unchanged():
    digits = Digits()
    assert as_dataset(digits) is digits


class Column(list):
    """The rows of a Hugging Face dataset, which have names of classes in `features`."""

    class Label:
        names = ("cat", "dog")

    features: ClassVar = {"image": None, "label": Label()}

    def take(self, n):
        return Column(self[:n])


IMAGE = Image.fromarray((IMAGES[0, 0] * 255).byte().numpy())
KINDS = {
    "tensor": IMAGES,
    "array": IMAGES.numpy(),
    "read-only array": np.frombuffer(IMAGES.numpy().tobytes(), np.float32).reshape(5, 1, 4, 4),
    "big-endian array": IMAGES.numpy().astype(">f4"),
    "mirrored view": IMAGES.flip(-1).numpy()[..., ::-1],
    "list": list(IMAGES),
    "PyTorch dataset": TensorDataset(IMAGES),
    "pairs": [(image, 3) for image in IMAGES],
    "dictionaries": [{"image": image} for image in IMAGES],
    "dictionaries with labels": [{"pixel_values": image, "label": 3} for image in IMAGES],
    "rows of numbers": [{"data": image.tolist(), "label": 3} for image in IMAGES],
}


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_many_kinds_of_samples_are_collated_into_batches(data):
    dataset = as_dataset(data)
    assert len(dataset) == 5 and dataset.fingerprint() == "5"
    data, condition = to_device(dataset.take(np.array([3, 1])), torch.device("cpu"))
    torch.testing.assert_close(data.float(), IMAGES[[3, 1]], rtol=0, atol=0)
    assert all(value.tolist() == [3, 3] for value in condition.values())
    assert condition.keys() <= {"labels"} and bool(condition) == bool("3" in repr(dataset[0][1:]))
    assert to_config(dataset)["init_args"] is None, "a config holds no data"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "uint16"])
@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_items_of_any_number_type_train_or_are_refused_in_one_line(tmp_path, dtype, make):
    whole = "int" in dtype
    scale = {"uint16": 65535, "float16": 1, "float32": 1, "float64": 1}.get(dtype, 255)
    items = [make((image.double().numpy() * scale).astype(dtype)) for image in IMAGES]
    options = {"train_batch_size": 4, "train_num_steps": 1, "num_samples": 1, **QUIET}
    if dtype == "int64":
        with pytest.raises(ValueError, match=r"got torch.int64. Fix: .*value_range") as caught:
            Trainer(GaussianDiffusion(Plain()), items, results_folder=tmp_path, **options)
        assert "\n" not in str(caught.value)
    space = ImageSpace((0, scale)) if whole else None
    model = GaussianDiffusion(Plain(), timesteps=2, space=space)
    Trainer(model, items, results_folder=tmp_path, **options).train()
    seen = model.encode(as_dataset(items).take(np.arange(5)), {})
    error = {"float16": 2**-10, "float32": 1e-6, "float64": 1e-6}.get(dtype, 2 / scale)
    torch.testing.assert_close(seen, 2 * IMAGES - 1, rtol=0, atol=error)


def test_pillow_images_are_taken_with_the_names_of_their_classes():
    rows = Column([{"image": IMAGE, "label": 1}, {"image": IMAGE.convert("RGB"), "label": 0}])
    dataset = as_dataset(rows)
    image, condition = dataset[0]
    assert image.dtype == torch.uint8 and image.shape == (1, 4, 4) and condition == {"labels": 1}
    assert torch.equal(image[0], (IMAGES[0, 0] * 255).byte())
    assert dataset[1][0].shape == (3, 4, 4)
    assert dataset.class_names == ["cat", "dog"]
    data = TensorDataset(IMAGES, torch.tensor([0, 1, 1, 0, 1]))
    data.classes = ["up", "down"]  # as torchvision's datasets have it
    assert as_dataset(data).class_names == ["up", "down"]


class Stream(IterableDataset):
    """A stream with a length, which PyTorch allows, but without an index."""

    def __len__(self):
        return 5

    def __iter__(self):
        return iter(IMAGES)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (IMAGES[1, :, :3], r"got \[1, 4, 4\] in sample 0 and \[1, 3, 4\] in sample 1. Fix: "),
        ((IMAGES[1], 3), r"got \[1, 4, 4\] in sample 0 and \(\[1, 4, 4\], int\) in sample 1"),
        ("b.png", "got str in sample 1"),
        ((IMAGES[1], {"text": None}), r"and \(\[1, 4, 4\], \{text: NoneType\}\) in sample 1"),
    ],
)
def test_a_sample_of_another_form_is_named(second, message):
    with pytest.raises(ValueError, match=message) as caught:
        as_dataset([IMAGES[0], second]).take(np.arange(2))
    assert "\n" not in str(caught.value)


def test_conditions_are_collated_by_name():
    data = [(image, {"labels": i, "text": f"image {i}"}) for i, image in enumerate(IMAGES)]
    images, condition = as_dataset(data).take(np.array([4, 0]))
    assert torch.equal(images, IMAGES[[4, 0]])
    assert condition["labels"].tolist() == [4, 0] and condition["text"] == ["image 4", "image 0"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((image for image in IMAGES), "a length and an index, got generator. Fix: give a list"),
        (7, "a length and an index, got int"),
        ([], "at least 1 sample, got an empty list"),
        (["a.png"], "each sample as a tensor, array or image, .* got str from list"),
        ([{"image": 1, "label": 2}], "got a dictionary of image, label from list. Fix: "),
        ([{"picture": IMAGES[0]}], "under data, image, .* got a dictionary of picture from list"),
        (DataLoader(IMAGES), "a dataset, got a DataLoader. Fix: give its dataset"),
        (Stream(), "a length and an index, got Stream. Fix: .* shards"),
        (IMAGES.to(torch.complex64), "got Tensor .1, 4, 4. of torch.complex64 from Tensor"),
        (IMAGES[0, 0, 0], r"got Tensor \[\] of torch.float32 from Tensor"),
        ([(IMAGES[0], 1, 2)], "got tuple of Tensor, int, int from list"),
        ([(IMAGES[0], "cat")], "got tuple of Tensor, str from list"),
        (Named(), "samples indexed from 0, got Named"),
    ],
)
def test_other_data_is_a_one_line_error(data, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}") as caught:
        as_dataset(data)
    assert "\n" not in str(caught.value)


def test_lists_of_numbers_are_batched_sample_by_sample():
    data = [(image, {"pose": [i, 10 * i, 0.5], "box": ((i, 1),)}) for i, image in enumerate(IMAGES)]
    _, condition = as_dataset(data).take(np.array([4, 2, 1]))  # as many samples as numbers
    assert condition["pose"].tolist() == [[4, 40, 0.5], [2, 20, 0.5], [1, 10, 0.5]]
    assert condition["box"].tolist() == [[[4, 1]], [[2, 1]], [[1, 1]]]


@pytest.mark.parametrize("form", ["pairs", "dictionaries", "hugging face"])
def test_conditions_of_every_kind_are_batched_by_name(form):
    """Labels, texts, vectors and images beside the data, as lists, tensors or columns."""
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 1), dtype=np.uint8)
    rows = [
        {"labels": i, "text": f"text {i}", "vector": [0.5 * i, 1.0], "low": [[i, 1], [2, 3]]}
        for i in range(3)
    ]
    pictures = [torch.from_numpy(one).permute(2, 0, 1) for one in images]
    data = [*zip(pictures, rows, strict=True)]
    if form != "pairs":
        data = [{"image": one, **row} for one, row in zip(pictures, rows, strict=True)]
    if form == "hugging face":
        datasets = pytest.importorskip("datasets")
        columns = [{**row, "image": one.tolist()} for one, row in zip(pictures, rows, strict=True)]
        data = datasets.Dataset.from_list(columns)
    taken, told = to_device(as_dataset(data).take(np.array([2, 0])), torch.device("cpu"))
    assert torch.equal(taken.to(torch.uint8), torch.stack([pictures[2], pictures[0]]))
    assert told["labels"].tolist() == [2, 0] and told["text"] == ["text 2", "text 0"]
    assert told["vector"].tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert told["low"].tolist() == [[[2, 1], [2, 3]], [[0, 1], [2, 3]]]
