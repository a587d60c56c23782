"""sample.py --overwrite deletes the files that the index of its folder lists, and no others."""

import os

import pytest
import torch
from audit import watched

from diffusion_framework.cli.outputs import Outputs
from diffusion_framework.storage.images import png, save_picture
from diffusion_framework.storage.replacing import replacing

OTHERS = ["notes.txt", "00007.jpg", "photo.png", "sub/00001.png", ".00001.png", "1.png", "a.npy"]


def written(folder, names, overwrite=False, shade=0.0):
    outputs = Outputs(folder, overwrite)
    for name in names:
        outputs.write(name, png(torch.full((1, 2, 2), shade)))


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path):
    written(tmp_path / "out", [f"{i:05d}.png" for i in range(5)] + ["00003.npy", "grid.png"])
    return tmp_path / "out"


def test_fewer_images_replace_all_earlier_ones_and_nothing_else(folder):
    for name in OTHERS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    written(folder, ["00000.png", "grid.png"], overwrite=True, shade=1.0)
    found = files(folder)
    assert {name for name in found if name not in OTHERS} == {"00000.png", "grid.png", "index.csv"}
    assert all(found[name] == b"mine" for name in OTHERS)
    assert found["00000.png"] == png(torch.ones(1, 2, 2))


def refused(folder, name):
    before = files(folder)
    with (
        watched() as seen,
        pytest.raises(ValueError, match=rf"--output: .*{name}\. Fix: move it"),
    ):
        Outputs(folder, overwrite=True)
    assert not seen and before == files(folder)


def test_images_of_others_are_neither_deleted_nor_overwritten(folder, tmp_path):
    save_picture(torch.zeros(1, 2, 2), folder / "00001.png")  # equal content: still ours
    Outputs(folder, overwrite=True)
    (folder / "00001.png").write_bytes(b"edited")
    refused(folder, "00001.png")
    (folder / "00001.png").unlink()
    Outputs(folder, overwrite=True)
    (folder / "00009.png").write_bytes(b"mine")
    refused(folder, "00009.png")
    (folder / "00009.png").unlink()
    (tmp_path / "copy.png").write_bytes((folder / "00000.png").read_bytes())
    (folder / "00000.png").unlink()
    (folder / "00000.png").symlink_to(tmp_path / "copy.png")
    refused(folder, "00000.png")


@pytest.mark.parametrize(
    "row",
    ["../victim.png", "/{victim}", "sub/../../victim.png", "victim.png", "..", "", "00000.png/."],
)
def test_an_index_cannot_name_files_elsewhere(folder, tmp_path, row):
    victim = tmp_path / "victim.png"
    victim.write_bytes((folder / "00000.png").read_bytes())
    (folder / "victim.png").write_bytes(victim.read_bytes())
    digest = (folder / "index.csv").read_text().splitlines()[1].partition(",")[2]
    with open(folder / "index.csv", "a") as index:
        index.write(f"{row.format(victim=victim)},{digest}\n")
    written(folder, ["00000.png"], overwrite=True)
    assert victim.exists() and (folder / "victim.png").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\0\n" * 9, b"name,label\n1,2\n", None, "link"])
def test_another_file_in_place_of_the_index_is_refused(folder, tmp_path, content):
    index = folder / "index.csv"
    (tmp_path / "elsewhere").write_bytes(index.read_bytes())
    index.unlink()
    if content is None:
        os.mkfifo(index)
    elif content == "link":
        index.symlink_to(tmp_path / "elsewhere")
    else:
        index.write_bytes(content)
    refused(folder, "0000[0-9].png")
    for path in folder.glob("[0g]*"):
        path.unlink()
    refused(folder, "index.csv")


def test_a_killed_run_leaves_only_files_that_the_index_lists(folder):
    """The row of a file is there before the file, so that the file is deleted later."""
    child = os.fork()
    if not child:
        try:
            outputs = Outputs(folder, overwrite=True)
            outputs.write("00000.png", b"one")
            os.replace = lambda *paths: os._exit(9)
            outputs.write("00001.png", b"two")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (folder / "index.csv").read_text().count("\n") == 3
    written(folder, ["00000.png", "00001.png"], overwrite=True)
    assert len(files(folder)) == 3, "the temporary file of the killed run is gone"


def test_links_in_place_of_temporary_files_are_not_followed(folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / ".00000.png.tmp").symlink_to(victim)
    written(folder, ["00000.png"], overwrite=True)
    assert victim.read_text() == "mine" and not (folder / "00000.png").is_symlink()


def write_half(path):
    with replacing(path) as file:
        file.write(b"half")
        raise OSError("full")


def test_an_error_while_writing_leaves_no_part_of_a_file(tmp_path):
    (tmp_path / "a").write_text("old")
    for name in "ab":
        with pytest.raises(OSError, match="full"):
            write_half(tmp_path / name)
    assert files(tmp_path) == {"a": b"old"}
