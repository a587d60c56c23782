"""Texts, classes and vectors in the members of a shard beside its images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tar_shards import open_shards, png, write_tar

ROWS = [
    {"text": "a cat", "kind": "cat", "number": 2, "age": 1.5},
    {"text": "ein Bär", "kind": "bear", "number": 0, "age": -3},
    {"text": "a dog, wet", "kind": "dog", "number": 4, "age": 7},
]


def members(rows=ROWS, order=("png", "txt", "json")):
    """Returns the members of samples, of which each text is the row's kind."""
    found = {}
    for i, row in enumerate(rows):
        told = {"png": png(i), "txt": row["kind"].encode(), "json": json.dumps(row).encode()}
        found |= {f"d/{i}.{ending}": told[ending] for ending in order}
    return found


@pytest.mark.parametrize("order", [("png", "txt", "json"), ("json", "txt", "png")])
def test_members_of_one_key_are_the_conditions_of_an_image(tmp_path, order):
    path = str(write_tar(tmp_path / "a.tar", members(order=order)))
    options = {"labels": "number", "captions": "kind, text", "vectors": ["age", "number"]}
    data = open_shards(path, tmp_path, **options)
    assert data.class_names == ["0", "1", "2", "3", "4"]
    for i, row in enumerate(ROWS):
        image, told = data[i]
        assert (image == i).all() and told["labels"] == row["number"]
        assert told["text"] == f"{row['kind']}, {row['text']}"
        assert told["vector"].tolist() == [row["age"], row["number"]]
    batch = data.take(np.array([2, 0]))[1]
    assert batch["text"] == ["dog, a dog, wet", "cat, a cat"] and batch["labels"].tolist() == [4, 2]
    assert batch["vector"].dtype == torch.float32
    texts = [told["text"] for _, told in open_shards(path, tmp_path, captions=True)]
    assert texts == ["cat", "bear", "dog"]
    assert open_shards(path, tmp_path, labels="number")[2][1] == 4
    assert open_shards(path, tmp_path)[2].shape == (1, 8, 8)


def test_the_fingerprint_follows_texts_of_equal_length(tmp_path):
    path = tmp_path / "a.tar"
    prints = []
    for text in ("cat", "cow"):
        write_tar(path, members([{**ROWS[0], "kind": text}, *ROWS[1:]]))
        plain = open_shards(str(path), tmp_path).fingerprint()
        prints.append((plain, open_shards(str(path), tmp_path, captions=True).fingerprint()))
    assert prints[0][0] == prints[1][0] and prints[0][1] != prints[1][1]


def test_a_shard_that_changes_in_training_is_an_error(tmp_path):
    path = write_tar(tmp_path / "a.tar", members())
    data = open_shards(str(path), tmp_path, captions=True)
    assert data[0][1]["text"] == "cat"
    content = path.read_bytes().replace(b"bear", b"bean")
    with path.open("r+b") as file:
        file.write(content)
    with pytest.raises(ValueError, match="Expected .*shard.*Fix: restart training"):
        data[1]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"d/1.txt": None}, {"captions": True}, r"KEY.txt .* none for '.*a.tar/d/1.png'\. Fix"),
        ({"d/1.json": None, "d/2.json": None}, {"vectors": ["age"]}, r"d/1.png' \(and 1 more\)"),
        ({"d/1.txt": b"x" * 2**21}, {"captions": True}, "KEY.txt of at most 1 MB"),
        ({"d/1.json": b"{}"}, {"labels": "number"}, "label of image '.*d/1.png', got no label"),
        ({"d/1.json": b"[1]"}, {"labels": "number"}, "d/1.png', got other text"),
        ({"d/1.json": b'{"number": "x"}'}, {"labels": "number"}, "d/1.png', got other text"),
    ],
)
def test_missing_members_are_named_before_training(tmp_path, changes, options, message):
    kept = {k: v for k, v in (members() | changes).items() if v is not None}
    path = str(write_tar(tmp_path / "a.tar", kept))
    with pytest.raises(ValueError, match=message) as caught:
        open_shards(path, tmp_path, **options)
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"d/1.txt": b" \n"}, {"captions": True}, "d/1.png: Expected a caption, got an empty one"),
        ({"d/1.txt": b"\xff"}, {"captions": True}, "d/1.png: Expected text in UTF-8"),
        ({"d/1.json": b"{"}, {"captions": "text"}, "d/1.png: Expected text in UTF-8 and an object"),
        ({"d/1.json": b"[]"}, {"captions": "text"}, "d/1.png: Expected .*not an object"),
        ({"d/1.json": b'{"texd": 1}'}, {"captions": "text"}, "d/1.png: captions: .*Fix: write"),
        ({"d/1.json": b'{"age": NaN}'}, {"vectors": ["age"]}, "d/1.png: Expected a finite number"),
    ],
)
def test_a_wrong_member_is_named_when_it_is_drawn(tmp_path, changes, options, message):
    data = open_shards(str(write_tar(tmp_path / "a.tar", members() | changes)), tmp_path, **options)
    assert data[0][1]
    with pytest.raises(ValueError, match=message) as caught:
        data[1]
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)
