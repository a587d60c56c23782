import json

import pytest
import torch
from runs import write

from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
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
    file = write(tmp_path, 1) / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    with pytest.raises(ValueError, match="format 99.*upgrade"):
        Checkpoint.find(tmp_path)


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
