"""Tar shards for tests: intact, remote and damaged."""

import io
import itertools
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from diffusion_framework import Shards
from diffusion_framework.data.shards.names import expand_braces


def png(value: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    """Returns a PNG file of one grey."""
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], **options) -> Path:
    """Writes a tar file with these contents by name; passes options to `tarfile.open`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, counts=(3, 5, 4, 6, 3, 4, 5)) -> str:
    """Writes shards with `counts` images and returns their pattern.

    Image number i has the value i; its label is the number of its shard.
    """
    values = itertools.count()
    for shard, count in enumerate(counts):
        members = {}
        for i in range(count):
            members |= {
                f"{i:03}.png": png(next(values)),
                f"{i:03}.cls": b"%d\n" % shard,
                f"{i:03}.json": b"{}",
            }
        write_tar(folder / f"part-{shard:02}.tar", members)
    return f"{folder}/part-{{00..{len(counts) - 1:02}}}.tar"


def open_shards(where, tmp_path, **options) -> Shards:
    """Opens shards of 8 x 8 grey images with a cache folder of their own."""
    return Shards(where, 8, 1, cache_folder=tmp_path / "cache", **options)


def upload_to_memory(where: str, name: str) -> str:
    """Copies shards into the folder `name` of fsspec's file system in memory; returns their URL."""
    fsspec = pytest.importorskip("fsspec", reason="remote shards need fsspec")
    for path in expand_braces(where):
        fsspec.filesystem("memory").put_file(path, f"/{name}/{Path(path).name}")
    return f"memory://{name}/{Path(where).name}"


def write_damaged(tmp_path: Path) -> dict[str, Path]:
    """Writes one shard for each of FAULTS; returns their paths."""
    good = write_tar(tmp_path / "good.tar", {f"{i}.png": png(i) * 20 for i in range(4)})
    content = good.read_bytes()
    paths = {
        name: tmp_path / f"{name}.tar"
        for name in (
            "text",
            "nothing",
            "zeros",
            "member",
            "header",
            "changed",
            "gz",
            "endless",
            "half",
            "two",
        )
    }
    paths["text"].write_bytes(b"these are not the shards you are looking for" * 40)
    paths["nothing"].write_bytes(b"")
    paths["zeros"].write_bytes(bytes(10240))
    second = 512 + -(-len(png(0)) * 20 // 512) * 512  # offset of the second header
    paths["member"].write_bytes(content[: second + 700])
    paths["header"].write_bytes(content[: second + 100])
    paths["changed"].write_bytes(content[: second + 148] + b"nonsense" + content[second + 156 :])
    end = content.rstrip(b"\0")
    end = end + bytes(-len(end) % 512)  # the two blocks of zeros follow
    paths["endless"].write_bytes(end)
    paths["half"].write_bytes(end + bytes(512))
    paths["two"].write_bytes(content + content)
    with tarfile.open(paths["gz"], "w:gz") as archive:
        archive.add(good)
    paths["folder"] = tmp_path / "folder.tar"
    paths["folder"].mkdir()
    paths["missing"] = tmp_path / "missing.tar"
    paths["imageless"] = write_tar(tmp_path / "imageless.tar", {"a.txt": b"x", "a.cls": b"1"})
    paths["twins"] = write_tar(tmp_path / "twins.tar", {"a.png": png(), "a.jpg": png()})
    paths["unlabelled"] = write_tar(
        tmp_path / "unlabelled.tar", {"a.png": png(), "a.cls": b"1", "b.png": png()}
    )
    paths["word"] = write_tar(tmp_path / "word.tar", {"d/a.png": png(), "d/a.cls": b"cat"})
    paths["many"] = write_tar(tmp_path / "many.tar", {"a.png": png(), "a.cls": b"9" * 12})
    return paths


FAULTS = {  # fault -> pattern of the error
    "text": "Expected an uncompressed tar file",
    "nothing": "Expected an uncompressed tar file, .*empty",
    "zeros": "Expected images in shard .*zeros.tar', got none",
    "member": "got the truncated or damaged shard",
    "header": "got the truncated or damaged shard",
    "changed": "got the truncated or damaged shard",
    "endless": "got the truncated or damaged shard .*no end of two blocks of zeros",
    "half": "got the truncated or damaged shard .*no end of two blocks of zeros",
    "two": "got the truncated or damaged shard .*further content after its end",
    "gz": "Expected an uncompressed tar file, .*Fix: decompress it",
    "folder": "Expected an existing shard, got .*folder.tar",
    "missing": "Expected an existing shard, got .*missing.tar",
    "imageless": "Expected images in shard .*, got none. Fix: name the members KEY.jpg",
    "twins": "Expected one image for each key, got two of the key 'a' .*extensions",
    "unlabelled": r"of image '.*unlabelled\.tar/b\.png', got no label. .*set --data.labels false",
    "word": r"Expected an integer below .* image '.*word\.tar/d/a\.png', got other text",
    "many": "Expected an integer below 1000000 .*, got other text",
}
