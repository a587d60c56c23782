import json
import random
from pathlib import Path

import pytest
import torch
from runs import reseal, rewrite, write

from diffusion_framework.storage.checkpoint import (
    Checkpoint,
    list_checkpoints,
    newest_whole_checkpoint,
)
from diffusion_framework.storage.manifest import DamagedCheckpoint
from diffusion_framework.storage.writing import write_checkpoint


def test_a_checkpoint_reads_as_it_was_written(tmp_path):
    write(tmp_path, 7)
    checkpoint = Checkpoint.find(tmp_path)
    assert (checkpoint.step, checkpoint.config, checkpoint.state) == (7, {"a": [1, 2]}, {"n": 1})
    assert torch.equal(checkpoint.tensors("model")["w"], torch.full((3,), 7.0))


def test_the_newest_checkpoint_is_found_and_older_ones_are_deleted(tmp_path):
    for step in (5, 99_999_999, 100_000_000):
        write(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-99999999", "step-100000000"]
    assert Checkpoint.find(tmp_path).step == 100_000_000
    assert Checkpoint.find(tmp_path / "checkpoints" / "step-99999999").step == 99_999_999


def test_the_checkpoint_just_written_is_never_deleted(tmp_path):
    """A run that resumed before a damaged checkpoint writes earlier steps than that one."""
    write(tmp_path, 3)
    write(tmp_path, 6)
    write(tmp_path, 4, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize("size", [0, 10, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    file = write(tmp_path, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"damage: model\.safetensors is missing or truncated"):
        Checkpoint.find(tmp_path)


def test_a_flipped_bit_is_refused(tmp_path):
    file = write(tmp_path, 1) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="damage: "):
        Checkpoint.find(tmp_path).tensors("model")


@pytest.mark.parametrize("name", ["config.yaml", "state.json"])
def test_an_edited_text_file_is_refused(tmp_path, name):
    file = write(tmp_path, 1) / name
    file.write_text(file.read_text().replace("1", "3"))
    with pytest.raises(ValueError, match="damage: the checksum of .* differs"):
        getattr(Checkpoint.find(tmp_path), name.split(".")[0])


def test_a_newer_format_is_refused_with_advice_to_upgrade(tmp_path):
    write(tmp_path, 1)
    newer = write(tmp_path, 2) / "manifest.json"
    reseal(newer, {**json.loads(newer.read_text()), "format_version": 99})
    for find in (Checkpoint.find, newest_whole_checkpoint):  # no fall back to an older one
        with pytest.raises(ValueError, match="format 99.*upgrade"):
            find(tmp_path)


def test_a_checkpoint_of_a_newer_format_is_neither_deleted_nor_overwritten(tmp_path):
    newer = [write(tmp_path, step) for step in (1, 5)]
    for folder in newer:
        manifest = folder / "manifest.json"
        reseal(manifest, {**json.loads(manifest.read_text()), "format_version": 99})
    write(tmp_path, 2, keep=1)
    write(tmp_path, 3, keep=1)
    with pytest.raises(ValueError, match="step-00000005: expected a checkpoint of this version"):
        write(tmp_path, 5, keep=1)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-00000001", "step-00000003", "step-00000005"]
    assert all("99" in (folder / "manifest.json").read_text() for folder in newer)


def test_any_changed_byte_of_a_manifest_is_damage(tmp_path):
    file = write(tmp_path, 1) / "manifest.json"
    data = file.read_bytes()
    draw = random.Random(0)
    for place in range(len(data)):
        other = draw.choice([byte for byte in range(256) if byte != data[place]])
        file.write_bytes(data[:place] + bytes([other]) + data[place + 1 :])
        with pytest.raises(DamagedCheckpoint):
            Checkpoint.find(tmp_path)
    for damaged in (data[:-1], data[:50], b"", data + b" ", data.replace(b"\n", b"\r\n")):
        file.write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint):
            Checkpoint.find(tmp_path)


@pytest.mark.parametrize("damage", ["edited", "missing"])
def test_before_a_damaged_manifest_the_previous_checkpoint_is_used(tmp_path, damage):
    write(tmp_path, 1)
    file = write(tmp_path, 2) / "manifest.json"
    if damage == "edited":
        file.write_text(file.read_text().replace('"step": 2', '"step": 3'))
    else:
        file.unlink()
    with pytest.warns(UserWarning, match="damage: .* The previous checkpoint is used"):
        assert newest_whole_checkpoint(tmp_path).step == 1


def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    write(tmp_path, 1)
    unreadable = write(tmp_path, 2) / "manifest.json"
    read = Path.read_bytes

    def refuse(path):
        if path == unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        newest_whole_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": "1"},
        {"format_version": True},
        {"step": -1},
        {"step": 10**400},
        {"format_version": 10**400},
        {"step": 2},
        {"step": None},
        {"files": []},
        {"files": {"model.safetensors": {"size": "1", "sha256": "x"}}},
        {"files": {"model.safetensors": 3}},
        {"files": {"a\0b": {"size": 1, "sha256": "x"}}},
    ],
    ids=str,
)
def test_a_sealed_manifest_of_another_form_is_damage(tmp_path, change):
    file = write(tmp_path, 1) / "manifest.json"
    reseal(file, {**json.loads(file.read_text()), **change})
    with pytest.raises(DamagedCheckpoint):
        Checkpoint.find(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "read"),
    [
        ("config.yaml", b"[1, 2]", lambda checkpoint: checkpoint.config),
        ("config.yaml", b"{", lambda checkpoint: checkpoint.config),
        ("state.json", b"[1]", lambda checkpoint: checkpoint.state),
        ("state.json", b"[" * 100_000, lambda checkpoint: checkpoint.state),
        ("model.safetensors", b"x" * 99, lambda checkpoint: checkpoint.tensors("model")),
    ],
)
def test_sealed_files_of_another_form_are_refused_in_one_line(tmp_path, name, data, read):
    rewrite(write(tmp_path, 1), name, data)
    with pytest.raises(ValueError, match=r"\A[^\n]+ Fix: [^\n]+\Z"):
        read(Checkpoint.find(tmp_path))


def test_a_failed_write_leaves_only_the_earlier_checkpoint(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(TypeError):
        write_checkpoint(
            tmp_path, 2, {"model": {"w": torch.zeros(1)}}, {}, {"not plain": object()}, 9
        )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_remains_of_a_killed_write_are_ignored_and_then_deleted(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "checkpoints" / ".tmp-00000002").mkdir()
    (tmp_path / "checkpoints" / ".tmp-00000002" / "model.safetensors").write_bytes(b"half")
    assert Checkpoint.find(tmp_path).step == 1
    write(tmp_path, 3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000003",
    ]


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_a_path_without_checkpoint_is_refused(tmp_path, what):
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    if what == "file":
        path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="got no checkpoint"):
        Checkpoint.find(path)
