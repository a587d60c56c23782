"""Tests of the values that each conditioner accepts, returns and refuses."""

import math
import re

import numpy as np
import pytest
import torch

from diffusion_framework.conditions import Images, Labels, Observations, Text, Tokens, Vectors
from diffusion_framework.spaces import ImageSpace, Normalizer, Unbounded


@pytest.mark.parametrize(
    "labels",
    [
        [0, 3, 1],
        (0, 3, 1),
        [np.int64(0), np.uint8(3), np.int32(1)],
        np.array([0, 3, 1], dtype=np.uint16),
        np.array([0, 3, 1], dtype=np.uint64),
        torch.tensor([0, 3, 1], dtype=torch.int8),
        torch.tensor([0, 3, 1], dtype=torch.uint8),
        list(torch.tensor([0, 3, 1])),
        torch.tensor([[0], [3], [1]]),
    ],
    ids=lambda v: f"{type(v).__name__} of {getattr(v, 'dtype', type(v[0]).__name__)}",
)
def test_labels_of_every_integer_type(labels):
    encoded = Labels(4)(labels)["labels"]
    assert encoded.dtype == torch.int64 and encoded.tolist() == [0, 3, 1]


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2, dtype=torch.int16), np.array(2)])
def test_one_label_for_a_batch(label):
    assert Labels(4).repeat(label, 3).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=r"Expected labels \[batch\], got \[\]. Fix: pass one"):
        Labels(4)(label)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0], "integer labels, got"),
        (torch.tensor([0.0, 1.0]), "integer labels, got torch.float32"),
        (torch.tensor([True]), "integer labels, got torch.bool"),
        ([True, False], "integer labels, got"),
        ("3", "integer labels, got '3'"),
        (["cat"], "integer labels, got"),
        ([[0], [1, 2]], "integer labels, got"),
        ({"a": 1}, "integer labels, got"),
        (
            torch.eye(4).long(),
            r"labels \[batch\], got \[4, 4\]. Fix: .* labels.argmax",
        ),
        (torch.eye(4), "integer labels, got torch.float32 .* one-hot labels labels.argmax"),
        ([0, 4], r"labels in \[0, 3\], got 4 in sample 1"),
        ([0, 0, -1], r"labels in \[0, 3\], got -1 in sample 2"),
    ],
)
def test_invalid_labels_are_refused(labels, message):
    for training in (True, False):
        with pytest.raises(ValueError, match=message) as error:
            Labels(4).train(training)(labels)
        assert "\n" not in str(error.value) and "Fix: " in str(error.value)


def test_the_none_label_is_valid_only_with_dropout_and_not_in_training():
    labels = Labels(4, dropout=0.1)
    with pytest.raises(ValueError, match=r"labels in \[0, 3\], got 4"):
        labels([4])
    assert labels.eval()([4])["labels"].tolist() == [4]
    with pytest.raises(ValueError, match=r"labels in \[0, 3\] or 4 for none, got 5"):
        labels([5])
    with pytest.raises(ValueError, match=r"labels in \[0, 3\], got 4"):
        Labels(4).eval()([4])
    assert Labels(4).pictures([2, 0]) == ["2", "0"]


def test_images_are_encoded_and_resized_to_the_samples():
    images = Images(space=ImageSpace(value_range=(0, 4)))
    images.build((7, 4, 6))
    same = torch.randint(0, 5, (2, 3, 4, 6))
    assert torch.equal(images(same)["image"], same / 2 - 1)
    flat = torch.full((2, 3, 9, 31), 3)
    torch.testing.assert_close(images(flat)["image"], torch.full((2, 3, 4, 6), 0.5))
    with pytest.raises(ValueError, match=r"data in \[0, 4\], got .* in sample 1"):
        images(torch.stack([torch.zeros(3, 4, 6), torch.full((3, 4, 6), 5)]))
    with pytest.raises(
        ValueError, match=r"images \[batch, channels, height, width\], got \[4, 6\]"
    ):
        images(torch.zeros(4, 6))
    with pytest.raises(
        ValueError, match=r"Expected images of 3 channels, got 1. Fix: use Images\(channels=1\)"
    ):
        images(flat[:, :1])
    with pytest.raises(ValueError, match="Expected images, got"):
        images(["a.png"])
    with pytest.raises(ValueError, match=r"samples \(channels, height, width\) .*, got \(8, 2\)"):
        Images().build((8, 2))
    shown = images.pictures(same)
    assert shown.aminmax() == (0, 1)


def test_images_may_have_statistics_of_their_own():
    images = Images(space=Unbounded())
    images.build((3, 4, 4))
    data = torch.randn(20, 3, 4, 4) * 7 + 100
    assert images.needs_fit
    images.observe(data)
    images.finish()
    assert not images.needs_fit and abs(float(images(data)["image"].std()) - 1) < 0.02


def test_vectors_are_standardised():
    vectors = Vectors(3)
    data = torch.randn(100, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    assert vectors.needs_fit
    with pytest.raises(ValueError, match="Expected statistics of the training data, got none yet"):
        vectors(data)
    vectors.observe(data[:60])
    vectors.observe(data[60:].tolist())
    vectors.finish()
    encoded = vectors(data)["vector"]
    torch.testing.assert_close(encoded.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.std(0, correction=0), torch.ones(3))
    with pytest.raises(ValueError, match=r"Expected vector \[batch, 3\], got \[2, 4\]"):
        vectors(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="Expected vectors, got 'red'"):
        vectors("red")
    with pytest.raises(ValueError, match="finite data, got .* in sample 1"):
        vectors([[0, 0, 0], [0, math.nan, 0]])


def test_tokens_are_padded_to_one_length():
    tokens = Tokens(4, 6, dropout=0.1)
    given = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    encoded = tokens({"tokens": given, "mask": mask})
    assert torch.equal(encoded["token_mask"], torch.nn.functional.pad(mask, (0, 3)))
    assert torch.equal(encoded["tokens"][:, :3], given * mask[:, :, None])
    assert (encoded["tokens"][:, 3:] == 0).all()
    whole = tokens(given)
    assert whole["token_mask"].sum(1).tolist() == [3, 3]
    torch.nn.init.ones_(tokens.nothing)
    none = tokens.none(2)
    assert none["token_mask"].sum(1).tolist() == [1, 1] and none["tokens"].sum().item() == 2 * 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a cat", "a dog"], r"got 'a cat'. Fix: use Text .* encode them first, as text_encoder"),
        ("a cat", r"embeddings \[batch, n, 4\], got 'a cat'"),
        ({"text": ["a"]}, r"embeddings \[batch, n, 4\], got None"),
        (torch.zeros(2, 7, 4), r"embeddings \[batch, at most 6, 4\], got \[2, 7, 4\]"),
        (torch.zeros(2, 5), r"embeddings \[batch, at most 6, 4\], got \[2, 5\]"),
        (
            {"tokens": torch.zeros(2, 3, 4), "mask": torch.ones(2, 3)},
            r"a mask \[2, 3\] of torch.bool, got \[2, 3\]",
        ),
        (
            {"tokens": torch.zeros(2, 3, 4), "mask": torch.tensor([[True] * 3, [False] * 3])},
            "token, .* in sample 1",
        ),
        (torch.full((1, 2, 4), math.nan), "finite embeddings, got .* in sample 0"),
    ],
)
def test_invalid_tokens_are_refused(value, message):
    with pytest.raises(ValueError, match=message) as error:
        Tokens(4, 6)(value)
    assert "\n" not in str(error.value) and "Fix: " in str(error.value)


@pytest.mark.parametrize("units", ["words", "bytes"])
def test_texts_are_encoded_each_by_itself(units):
    text = Text(8, 40, units=units, dropout=0.1)
    texts = ["a red heart", "keycap: *", "A  Red HEART", "ein rotes Herz \u2764"]
    encoded = text(texts)
    numbers = [[len(re.findall(r"\w+|[^\w\s]", t)), len(t.lower().encode())] for t in texts]
    counts = [n[units == "bytes"] for n in numbers]
    assert encoded["token_mask"].sum(1).tolist() == counts
    assert (encoded["tokens"][~encoded["token_mask"]] == 0).all()
    for i, one in enumerate(texts):
        alone = text([one])["tokens"][0]
        torch.testing.assert_close(alone, encoded["tokens"][i], atol=1e-5, rtol=0)
    same = torch.allclose(encoded["tokens"][0], encoded["tokens"][2], atol=1e-5)
    assert same == (units == "words")  # as words, only the number of spaces differs
    order = text(["red a heart"])["tokens"]
    assert not torch.allclose(order.sum(1), encoded["tokens"][:1].sum(1), atol=1e-3)
    longer = Text(8, 50, units=units, dropout=0.1)
    weights = text.state_dict() | {"positions": longer.positions.detach().clone()}
    weights["positions"][:40] = text.positions.detach()
    longer.load_state_dict(weights)
    padded = longer(texts)["tokens"][:, :40]
    torch.testing.assert_close(padded, encoded["tokens"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "Expected a list of texts, got none. Fix: pass one text for each sample"),
        ("a heart", "Expected a list of texts, got 'a heart'"),
        ([3], r"Expected a list of texts, got \[3\]"),
        (["a heart", ""], "Expected a text of 1 to 4 words, got 0 in ''"),
        (["one two three four five"], "got 5 in 'one two three four five'. Fix: shorten it"),
    ],
)
def test_invalid_texts_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        Text(8, 4)(value)
    with pytest.raises(ValueError, match="Expected units words or bytes, got 'letters'"):
        Text(8, units="letters")
    with pytest.raises(ValueError, match="Expected sizes of at least 1 and a dim divisible"):
        Text(9)


def test_observations_are_normalised_and_concatenated():
    """Limits map to [-1, 1], in the order of names, with angles last as sine and cosine."""
    observations = Observations({"b": 1, "a": 2}, steps=2, normalizer=Normalizer(angles={"a": [0]}))
    a = torch.rand(10, 2, 2) * 6
    b = torch.rand(10, 2, 1) * 50 - 7
    assert observations.needs_fit
    with pytest.raises(ValueError, match="Expected statistics of the observations, got none yet"):
        observations({"a": a, "b": b})
    for part in (slice(0, 4), slice(4, 10)):
        observations.observe({"a": a[part], "b": b[part]})
    observations.finish()
    context = observations({"b": b, "a": a})["context"]
    limits = lambda x: (2 * x - x.amin((0, 1)) - x.amax((0, 1))) / (x.amax((0, 1)) - x.amin((0, 1)))  # noqa: E731
    expected = torch.cat([limits(a[..., 1:]), a[..., :1].sin(), a[..., :1].cos(), limits(b)], dim=2)
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=0)
    assert observations.numbers == 4
    assert torch.equal(observations({"b": b, "a": a, "task": ["push"] * 10})["context"], context)


def test_images_are_encoded_to_features():
    observations = Observations(
        {"state": 3}, {"camera": 3}, keypoints=4, crop=40, normalizer=Normalizer("gaussian")
    )
    value = {
        "state": torch.randn(2, 2, 3),
        "camera": torch.randint(0, 256, (2, 2, 3, 48, 48), dtype=torch.uint8),
    }
    observations.observe(value)
    observations.finish()
    observations.eval()
    context = observations(value)["context"]
    assert context.shape == (2, 2, observations.numbers) == (2, 2, 8 + 3)
    floats = {**value, "camera": value["camera"] / 255}
    assert torch.equal(observations(floats)["context"], context)
    observations.train()
    assert not torch.equal(observations(value)["context"], context)  # cut anywhere
    context.sum().backward()
    assert observations.networks[0][0].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=r"'camera' in \[0, 1\], got .*255"):
        observations({**value, "camera": value["camera"].float()})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"arm": torch.zeros(1, 2, 3)}, r"Expected observations \['state'\], got \['arm'\]"),
        (torch.zeros(1, 2, 3), r"Expected observations \['state'\], got \['Tensor'\]"),
        ({"state": torch.zeros(1, 3, 3)}, r"'state' \[batch, 2, 3\], got \[1, 3, 3\]"),
        ({"state": torch.zeros(1, 2, 3, 8, 8)}, r"'state' \[batch, 2, 3\], got"),
        (
            {"state": torch.full((1, 2, 3), math.inf)},
            "finite numbers in 'state', got .* in sample 0",
        ),
    ],
)
def test_invalid_observations_are_refused(value, message):
    observations = Observations({"state": 3}, steps=2)
    observations.observe({"state": torch.randn(5, 2, 3)})
    observations.finish()
    with pytest.raises(ValueError, match=message) as error:
        observations(value)
    assert "\n" not in str(error.value) and "Fix: " in str(error.value)


def test_streams_need_different_names():
    for make in (
        lambda: Observations(),
        lambda: Observations({"a": 1}, {"a": 3}),
        lambda: Observations({"a": 1}, steps=0),
    ):
        with pytest.raises(ValueError, match="at least 1 step and streams of different names"):
            make()
