"""Folders of images with classes, texts and numbers in tables or files beside them."""

from __future__ import annotations

import csv
import json
import multiprocessing
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from grey_images import save

from diffusion_framework import ImageFolder
from diffusion_framework.cli.program import run_command
from diffusion_framework.data.held_out import hold_out
from diffusion_framework.data.loading.cache import CachedImages, DecodedImages, file_in_memory
from diffusion_framework.data.loading.cache_file import ImageCache
from diffusion_framework.data.loading.handover import collate

ROWS = [
    {"file_name": "a/0.png", "text": "a cat", "kind": "cat", "width": 1, "place": [0.5, 2]},
    {"file_name": "a/1.png", "text": "a dog, wet", "kind": "dog", "width": 2.5, "place": [1, 3]},
    {"file_name": "b/0.png", "text": "ein Bär", "kind": "bear", "width": -3, "place": [2, 4]},
    {"file_name": "./b/1.png", "text": "cats", "kind": "cat", "width": 4, "place": [3, 5]},
]
ALL = {"labels": "kind", "captions": "kind,text", "vectors": ["width", "place"]}


@pytest.fixture
def folder(tmp_path):
    """A folder of four images without any text."""
    for row in ROWS:
        save(tmp_path / "images" / row["file_name"])
    return tmp_path / "images"


def write_json(folder, rows, name="metadata.jsonl"):
    (folder / name).write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def write_csv(folder, rows):
    with (folder / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, [name for name in rows[0] if name != "place"])
        table.writeheader()
        table.writerows({k: v for k, v in row.items() if k != "place"} for row in rows)


@pytest.mark.parametrize("write", [write_json, write_csv])
def test_columns_become_labels_texts_and_vectors(folder, write):
    write(folder, ROWS[::-1])
    data = ImageFolder(folder, 8, 1, labels="kind", captions="kind,text", vectors=["width"])
    assert data.class_names == ["bear", "cat", "dog"] and data.class_labels().tolist() == [
        1, 2, 0, 1,
    ]  # fmt: skip
    for (_, told), row in zip(data, ROWS, strict=True):
        assert data.class_names[told["labels"]] == row["kind"]
        assert told["text"] == f"{row['kind']}, {row['text']}"
        assert told["vector"].dtype == torch.float32 and told["vector"].tolist() == [row["width"]]
    assert "3 classes (bear, cat, dog), texts, vectors of 1" in data.describe()
    assert not data.notes(), "the table is not left out"


def test_labels_alone_stay_numbers(folder):
    write_json(folder, ROWS)
    assert [ImageFolder(folder, 8, labels="kind")[i][1] for i in range(4)] == [1, 2, 0, 1]


def test_a_column_may_hold_lists_of_numbers(folder):
    write_json(folder, ROWS)
    vectors = [ImageFolder(folder, 8, vectors=["place", "width"])[i][1]["vector"] for i in range(4)]
    assert [v.tolist() for v in vectors] == [[*row["place"], row["width"]] for row in ROWS]


def test_classes_of_numbers_are_sorted_as_numbers(folder):
    write_json(folder, [{**row, "kind": 11 - 3 * i} for i, row in enumerate(ROWS)])
    data = ImageFolder(folder, 8, labels="kind")
    assert data.class_names == ["2", "5", "8", "11"] and data[0][1] == 3


def test_texts_lie_beside_their_images(folder):
    for row in ROWS:
        (folder / row["file_name"]).with_suffix(".txt").write_text(row["text"] + "\n", "utf-8")
    data = ImageFolder(folder, 8, 1, captions=True)
    assert [told["text"] for _, told in data] == [row["text"] for row in ROWS]
    assert data.notes() == ["2 subfolders; --data.labels true --diffusion.model.num_classes 2 "
                            "makes them classes"]  # fmt: skip
    write_json(folder, ROWS)
    with pytest.raises(ValueError, match=r"got \.txt files and the column 'text'.*Fix: set"):
        ImageFolder(folder, 8, captions=True)
    assert ImageFolder(folder, 8, captions="kind")[0][1] == {"text": "cat"}


def test_a_table_in_each_subfolder_serves_its_images(folder):
    for name in "ab":
        rows = [r for r in ROWS if f"{name}/" in r["file_name"]]
        write_json(folder / name, [{**r, "file_name": r["file_name"][-5:]} for r in rows])
    data = ImageFolder(folder, 8, captions=True)
    assert [told["text"] for _, told in data] == [row["text"] for row in ROWS]


def test_only_chosen_classes_are_loaded(folder):
    write_json(folder, ROWS)
    data = ImageFolder(folder, 8, labels="kind", classes=["dog", "cat"], captions=True)
    assert data.class_names == ["cat", "dog"] and data.paths == ["a/0.png", "a/1.png", "b/1.png"]
    assert [told["text"] for _, told in data] == ["a cat", "a dog, wet", "cats"]
    assert ImageFolder(folder, 8, labels=True, classes=["b"]).paths == ["b/0.png", "b/1.png"]
    unlabelled = ImageFolder(folder, 8, classes=["b"])
    assert unlabelled.class_names == [] and unlabelled[0].shape == (3, 8, 8)


def same(one, other):
    """Returns whether two batches are equal."""
    return torch.equal(one[0], other[0]) and same_values(one[1], other[1])


def same_values(one, other):
    pairs = [(one[name], other[name]) for name in one]
    return one.keys() == other.keys() and all(
        a == b if isinstance(a, list) else torch.equal(a, b) and a.dtype == b.dtype
        for a, b in pairs
    )


@pytest.mark.parametrize("broken", [False, True], ids=["good images", "a broken image"])
def test_conditions_follow_their_images_through_every_way_of_loading(folder, broken):
    """Caches, subsets and the replacement of a broken image give what the folder gives."""
    write_json(folder, ROWS)
    if broken:
        (folder / "a" / "1.png").write_bytes(b"no image")
    data = ImageFolder(folder, 8, broken="skip", **ALL)
    order = np.array([3, 1, 0, 1])
    with file_in_memory() as path:
        cached = CachedImages(data, ImageCache(path, len(data), data.row_shape))
        with pytest.warns(UserWarning, match="Skipped") if broken else nullcontext():
            expected = collate([data[i] for i in order])
            taken = [cached.take(order) for _ in range(2)]
            cached.take(np.arange(4))
        resident = DecodedImages(cached, torch.device("cpu")).take(order)
        drawn = collate([cached.draw(i, 0) for i in order])
    for batch in (*taken, resident, drawn):
        assert same(batch, expected)
    if not broken:  # else the next image of the subset takes the place
        assert same(data.subset(order).take(np.arange(4)), expected)
    if broken:
        assert expected[1]["text"][1] == "bear, ein Bär", "that of the image in its place"


def test_a_spawned_data_worker_reads_them(folder):
    write_json(folder, ROWS)
    data = ImageFolder(folder, 8, **ALL)
    with file_in_memory() as path:
        cached = CachedImages(data, ImageCache(path, len(data), data.row_shape))
        arguments = (np.arange(4),)
        worker = multiprocessing.get_context("spawn").Process(target=cached.take, args=arguments)
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0 and cached.cache.full()
        assert same(cached.take(np.arange(4)), data.take(np.arange(4)))


def test_a_share_is_held_out_of_each_class_of_a_column(folder):
    write_json(folder, [{**r, "kind": "xy"[i % 2]} for i, r in enumerate(ROWS)])
    parts = hold_out(ImageFolder(folder, 8, **ALL), 0.5, 0)
    assert all(sorted(part.class_labels().tolist()) == [0, 1] for part in parts)
    texts = sorted(told["text"] for part in parts for _, told in part)
    assert texts == sorted(f"{'xy'[i % 2]}, {row['text']}" for i, row in enumerate(ROWS))


def test_the_fingerprint_follows_what_is_told_and_the_version_does_not(folder):
    write_json(folder, ROWS)
    make = partial(ImageFolder, folder, 8)
    plain, told = make().fingerprint(), make(**ALL).fingerprint()
    version = make(**ALL).version()
    for changed in ({"text": "a Cat"}, {"kind": "dog"}, {"width": 1.5}):
        write_json(folder, [{**ROWS[0], **changed}, *ROWS[1:]])
        assert make(**ALL).fingerprint() != told != plain
        assert make().fingerprint() == plain and make(**ALL).version() == version
    write_json(folder, [{**row, "note": 1} for row in ROWS])
    assert make(**ALL).fingerprint() == told


def edit(number, **changes):
    return [{**row, **changes} if i == number else row for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS[1:], {"captions": "text"}, "a row in metadata.jsonl for each of 4 pictures in .*, "
         "got none for 'a/0.png'. Fix: add it"),
        (ROWS[2:], {"captions": "text"}, r"none for 'a/0.png' \(and 1 more\)"),
        ([*ROWS, ROWS[0]], {"labels": "kind"}, r"line 5: .* a second one for 'a/0.png' \(the first "
         "is metadata.jsonl, line 1"),
        (ROWS, {"labels": "kinds"}, "labels: expected a column of metadata.jsonl .* Fix: write "
         "'kind'"),
        (ROWS, {"captions": "text,texd"}, "got 'texd'. Fix: write 'text'"),
        (ROWS, {"captions": " , "}, "Expected names of columns as captions"),
        (ROWS, {"vectors": ["text"]}, "a finite number in column 'text' .* 'a cat' for 'a/0.png'"),
        (ROWS, {"labels": "kind", "classes": ["cats"]}, "got 'cats'. Fix: write 'cat'"),
        (edit(1, text=" "), {"captions": True}, "an empty one in the metadata for 'a/1.png'"),
        (edit(1, text="\ud800"), {"captions": True}, "Unicode characters, got .* 'a/1.png'"),
        (edit(1, text={}), {"captions": True}, "text in column 'text' .* for 'a/1.png'"),
        (edit(1, kind=None), {"labels": "kind"}, "got None for 'a/1.png'"),
        (edit(1, width=float("nan")), {"vectors": ["width"]}, "got nan for 'a/1.png'"),
        (edit(1, width=1e300), {"vectors": ["width"]}, r"got 1e\+300 for 'a/1.png'"),
        (edit(1, width=None), {"vectors": ["width"]}, "got None for 'a/1.png'"),
        (edit(1, place=[1]), {"vectors": ["place"]}, r"2 finite numbers .* got \[1\] for"),
        (edit(1, file_name="../x.png"), {"captions": True}, "line 2: expected a file_name inside"),
        (edit(1, file_name="/x.png"), {"captions": True}, "line 2: expected a file_name inside"),
        (edit(1, file_name=3), {"captions": True}, "line 2: expected a file_name, got 3"),
        (edit(1, file_name="a/9.png"), {"captions": True}, "line 2: .*'a/9.png', which does not"),
    ],
)  # fmt: skip
def test_wrong_entries_are_named(folder, rows, options, message):
    write_json(folder, rows)
    refused(folder, options, message)


def refused(folder, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(folder, 8, **options)
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a/0.png"}\n{"file', "metadata.jsonl, line 2: .* JSON"),
        ("metadata.jsonl", "[1]", "line 1: expected a JSON object"),
        ("metadata.csv", "file_name,text\na/0.png,a,b", "line 2: .*3 values for 2 columns"),
        ("metadata.csv", 'file_name,text\na/0.png,"a', "line 2: .* got unexpected end of data"),
        ("metadata.csv", "file_name,text,text\n", "line 1: .* two columns of one name"),
        ("metadata.csv", "name,text\na/0.png,a", "line 2: expected a file_name, got None among"),
        ("metadata.csv", b"file_name,text\na/0.png,\xff", "text in UTF-8, got byte 0xff at 23"),
    ],
)
def test_damaged_tables_are_named_with_the_line(folder, name, content, message):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder, {"captions": "text"}, message)


def test_missing_tables_and_files_are_named(folder):
    refused(folder, {"labels": "kind"}, "expected metadata.jsonl or metadata.csv in .* neither")
    refused(folder, {"captions": True}, r"a caption.*none for 'a/0.png' \(and 3 more\)")
    for row in ROWS[1:]:
        (folder / row["file_name"]).with_suffix(".txt").write_text("a cat")
    refused(folder, {"captions": True}, r"a caption, a .txt file, for .*none for 'a/0.png'\.")
    (folder / "a" / "0.txt").write_text("\n")
    refused(folder, {"captions": True}, "an empty one in its .txt file for 'a/0.png'")


def test_a_folder_of_drawings_with_names():
    folder = Path(__file__).parents[4] / "shared" / "data" / "emoji"
    if not folder.is_dir():
        pytest.skip(f"needs the images of {folder.name}")
    data = ImageFolder(folder, 32, labels="category", captions="subcategory,text")
    assert len(data.class_names) == len({*data.class_labels().tolist()}) == 9
    assert data[0][1] == {"labels": 0, "text": "game, mahjong tile red dragon"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.labels", "kinds"], "Fix: write 'kind'"),
        (["--data.captions", "texd,kind"], "Fix: write 'text'"),
        (["--data.vectors", "kind"], "a finite number in column 'kind'"),
        (["--data.pairs", "none"], "Expected an existing folder"),
        (["--data.low_resolution", "99"], "low_resolution of 1 to 8"),
        (["--data.labels", "true", "--data.classes", "a,c"], "got 'c'"),
    ],
)
def test_the_command_refuses_them_and_creates_nothing(
    folder, words, message, tmp_path, monkeypatch, capsys
):
    write_json(folder, ROWS)
    monkeypatch.chdir(tmp_path)
    options = ["--diffusion.model.image_size", "8", "--diffusion.model.dim_mults", "1"]
    with pytest.raises(SystemExit) as ended:
        run_command("train", [str(folder), *options, "--diffusion.model.dim", "8", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()
