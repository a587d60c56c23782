"""Tar shards: the same images as in a folder, in an order that needs few shards at a time."""

import io
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import faulty
import numpy as np
import pytest
import soak
import torch
from PIL import Image

from diffusion_framework import ImageFolder, Shards, cli
from diffusion_framework.data import BrokenImageError
from diffusion_framework.data.loading.loader import loaded_batches, shuffled_batches
from diffusion_framework.data.loading.shard_order import ShardedBatches
from diffusion_framework.data.shards import shard_files, shards
from diffusion_framework.data.shards.shard_files import expand_braces
from diffusion_framework.storage.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[3]


def png(value: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def write(path: Path, members: dict[str, bytes], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make(folder: Path, counts=(3, 5, 4, 6, 3, 4, 5)) -> str:
    """Shards of so many images, all of different grey; the label is the number of the shard. Returns their pattern."""
    values = itertools.count()
    for shard, count in enumerate(counts):
        members = {}
        for i in range(count):
            members |= {f"{i:03}.png": png(next(values)), f"{i:03}.cls": b"%d\n" % shard, f"{i:03}.json": b"{}"}
        write(folder / f"part-{shard:02}.tar", members)
    return f"{folder}/part-{{00..{len(counts) - 1:02}}}.tar"


def open_shards(where, tmp_path, **options) -> Shards:
    return Shards(where, 8, 1, cache_folder=tmp_path / "cache", **options)


def greys(images) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


@pytest.fixture
def fetches(monkeypatch):
    """Names of the shards that were fetched, in order."""
    fetched, fetch = [], shard_files._fetch
    monkeypatch.setattr(shard_files, "_fetch", lambda name, *rest: fetched.append(name) or fetch(name, *rest))
    return fetched


def in_memory(where: str, name: str) -> str:
    fsspec = pytest.importorskip("fsspec", reason="remote shards need fsspec")
    for path in expand_braces(where):
        fsspec.filesystem("memory").put_file(path, f"/{name}/{Path(path).name}")
    return f"memory://{name}/{Path(where).name}"


FOLDER_OPTIONS = [{}, {"crop": "random", "seed": 3}, {"channels": 4}, {"channels": 1, "convert_image_to": "L"}]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("options", FOLDER_OPTIONS, ids=str)
def test_images_are_those_of_a_folder_bit_for_bit(tmp_path, layout, options):
    """In members of long names and of others, where the layout has them."""
    rng = np.random.default_rng(0)
    long = "x" * (1 if layout == tarfile.USTAR_FORMAT else 300)
    odd = "" if layout == tarfile.USTAR_FORMAT else "ü 图"
    members: dict[str, bytes] = {}
    for i, kind in enumerate(["png", "jpg", "JPEG", "webp", "gif", "tiff", "bmp"]):
        size = (300, 200) if i < 3 else (20 + i, 31)
        pixels = rng.integers(0, 256, (*size, 4 if kind in ("png", "webp", "tiff") else 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(kind.lower(), kind))
        for folder in "ab" if long == "x" else ("a" * 200, "b" * 200):
            path = tmp_path / "folder" / folder / f"{i}{odd}{long[:100]}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
    folder = ImageFolder(tmp_path / "folder", (16, 24), **options)
    for path in folder.paths:
        members |= {path: (tmp_path / "folder" / path).read_bytes(), path.partition(".")[0] + ".cls": b"1"}
    names = list(members)
    for number, part in enumerate((names[:8], names[8:])):
        write(tmp_path / f"{number}.tar", {name: members[name] for name in part}, format=layout)
    dataset = Shards(f"{tmp_path}/{{0..1}}.tar", (16, 24), cache_folder=tmp_path / "cache", **options)
    assert len(dataset) == len(folder) == 14
    for index in range(14):
        for epoch in range(2):
            assert torch.equal(dataset.draw(index, epoch), folder.draw(index, epoch))
    for index in (-1, 14):
        with pytest.raises(IndexError):
            dataset[index]


def test_members_by_the_convention_of_webdataset(tmp_path):
    """The key ends at the first dot of the last part; labels stand anywhere; what is neither is passed over."""
    write(
        tmp_path / "a.tar",
        {
            "./0.cls": b" 7\n",
            "dir.d/0.png": png(10),
            "dir.d/0.cls": b"3",
            "dir.d/0.json": b"{}",
            "dir.d/0.seg.png": png(99),
            "dir.d/._0.png": b"of a Mac",
            ".hidden.png": png(98),
            "png": png(97),
            "README.md": b"",
            "./0.PNG": png(11),
            "1.jpg": png(12),
            "1.cls": b"0",
        },
    )
    dataset = open_shards(str(tmp_path / "a.tar"), tmp_path, labels=True)
    assert [(int(image[0, 0, 0]), label) for image, label in map(dataset.__getitem__, range(3))] == [
        (10, 3),
        (11, 7),
        (12, 0),
    ]
    assert dataset.class_names == [str(i) for i in range(8)]
    chosen = open_shards([str(tmp_path / "a.tar")], tmp_path, extensions=["seg.png"])
    assert greys([*chosen][:1]) == [99] and len(chosen) == 1 and chosen.class_names == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash to compare with")
@pytest.mark.parametrize(
    "pattern",
    ["a-{000..012}.tar", "a-{8..11}.tar", "{0..2}-{07..10}.tar", "{train,val-{0..2}}.tar", "x{a,b}{c,}y", "a-{9..010}"],
)
def test_braces_expand_as_in_the_shell(pattern):
    shell = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(pattern) == shell.stdout.split()


def test_names_are_a_pattern_a_list_or_a_wildcard(tmp_path):
    pattern = make(tmp_path / "in")
    whole = open_shards(pattern, tmp_path)
    assert len(whole) == 30 and greys(whole[i] for i in range(30)) == list(range(30))
    for where in ([f"{tmp_path}/in/part-{{00..03}}.tar", f"file://{tmp_path}/in/part-0[4-6].tar"], f"{tmp_path}/in/*"):
        assert open_shards(where, tmp_path).names == whole.names
    odd = write(tmp_path / "[odd] {name}.tar", {"0.png": png()})
    assert open_shards(str(odd), tmp_path).names == [str(odd)]


def test_fingerprint_is_that_of_names_and_counts(tmp_path):
    before = open_shards(make(tmp_path / "a"), tmp_path).fingerprint()
    assert open_shards(make(tmp_path / "b"), tmp_path).fingerprint() == before
    assert open_shards(make(tmp_path / "c", (3, 5, 4, 6, 3, 5, 4)), tmp_path).fingerprint() != before
    assert open_shards(make(tmp_path / "d", (3, 5)), tmp_path).fingerprint() != before


# the order


def order(lengths, batch_size=12, count=100, **options):
    return [keys for _, keys in zip(range(count), ShardedBatches(lengths, batch_size, 3, **options), strict=False)]


LENGTHS = np.array([3, 5, 4, 6, 3, 4, 5, 7, 1])


@pytest.mark.parametrize("batch_size", [1, 3, 12, 40, 7])
def test_each_epoch_of_a_lane_covers_its_shards_one_after_the_other(batch_size):
    batches = order(LENGTHS, batch_size, 1600 // batch_size)
    lanes = {1: 1, 3: 3, 12: 6, 40: 8, 7: 7}[batch_size]
    shard_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    width = batch_size // lanes
    orders = set()
    for lane in range(lanes):
        draws = [key for batch in batches for key in batch[lane * width : (lane + 1) * width]]
        assert {int(shard_of[index]) % lanes for index, _ in draws} == {lane}
        own = np.flatnonzero(shard_of % lanes == lane)
        for epoch in range(len(draws) // len(own)):
            indices = [index for index, _ in draws[epoch * len(own) : (epoch + 1) * len(own)]]
            assert {e for _, e in draws[epoch * len(own) : (epoch + 1) * len(own)]} == {epoch}
            assert sorted(indices) == own.tolist()
            visits = [shard for shard, _ in itertools.groupby(shard_of[indices].tolist())]
            assert len(visits) == len(set(visits)), "a shard is read to its end before the next"
            orders.add(tuple(indices))
    assert len(orders) > 30 or batch_size == 1


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_processes_share_each_batch_of_one_order(world):
    shares = zip(*(order(LENGTHS, rank=rank, world=world) for rank in range(world)), strict=True)
    assert [[key for share in shares for key in share] for shares in shares] == order(LENGTHS)


def test_the_order_starts_anywhere():
    whole = order(LENGTHS, count=400)
    for start in (1, 84, 85, 86, 390):
        assert order(LENGTHS, count=10, start=start) == whole[start : start + 10]
    lengths = np.full(10_000, 100_000)  # a billion images
    (batch,) = order(lengths, 1000, 1, start=10**9)
    assert all(0 <= index < 10**9 and epoch == 1000 for index, epoch in batch)
    assert len({index // 100_000 for index, _ in batch}) == 8


def test_a_process_reads_shards_of_its_own_and_few_at_a_time():
    lengths = np.full(40, 50)
    told = [[] for _ in range(4)]
    reads = []
    for rank, now in enumerate(told):
        batches = order(lengths, 16, 100, rank=rank, world=4, prefetch=now.append)
        reads.append([{index // 50 for index, _ in batch} for batch in batches])
        assert max(map(len, reads[-1])) <= 4, "2 lanes, and rarely the next shard of each"
        assert all(len(shards) == 4 for shards in now)
    read = [set.union(*shards) for shards in reads]
    assert all(not a & b for a, b in itertools.combinations(read, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_data_workers_hand_out_the_order(tmp_path, workers):
    pattern = make(tmp_path / "in")
    dataset = open_shards(pattern, tmp_path, labels=True)
    dataset[0]  # a shard that is open already when the workers are forked
    batches = shuffled_batches(dataset, 4, 5, 2, 1, 2)
    assert isinstance(batches, ShardedBatches)
    expected = [keys for _, keys in zip(range(40), batches, strict=False)]
    with loaded_batches(dataset, batches, workers, torch.device("cpu")) as loaded:
        for keys, (images, labels) in zip(expected, loaded, strict=False):
            assert greys(images) == [index for index, _ in keys]
            shards_of = np.searchsorted(np.cumsum(dataset.shard_lengths), [index for index, _ in keys], side="right")
            assert labels.tolist() == shards_of.tolist()


def test_few_shards_are_open(tmp_path):
    dataset = open_shards(make(tmp_path / "in", [1] * 40), tmp_path)
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs Linux")
    before = len(list(folder.iterdir()))
    assert greys(dataset[i] for i in range(40)) == list(range(40))
    assert len(list(folder.iterdir())) <= before + 16
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[39], dataset[39])


# lists and copies


def test_shards_are_listed_once_and_again_when_they_change(tmp_path, monkeypatch):
    pattern = make(tmp_path / "in")
    listed, list_images = [], shards.list_images
    monkeypatch.setattr(shards, "list_images", lambda file, *rest: listed.append(rest[0]) or list_images(file, *rest))
    names = open_shards(pattern, tmp_path).names
    assert sorted(listed) == names
    for option in ({}, {"labels": True}):
        assert greys([open_shards(pattern, tmp_path, broken="skip").draw(29, 0)]) == [29], option
    assert len(listed) == 7
    write(Path(names[2]), {"0.png": png(200)})
    os.utime(names[2], (1, 1))
    changed = open_shards(pattern, tmp_path)
    assert listed[7:] == [names[2]]
    assert len(changed) == 27 and greys([changed[8]]) == [200]
    for path in (tmp_path / "cache" / "lists").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-5])
    assert greys([open_shards(pattern, tmp_path)[8]]) == [200]
    assert not list((tmp_path / "cache" / "lists").glob("*.part"))


def test_a_shard_that_changes_under_a_run_is_an_error(tmp_path):
    dataset = open_shards(make(tmp_path / "in"), tmp_path)
    write(Path(dataset.names[0]), {f"{i}.png": png() for i in range(30)})
    with pytest.raises(ValueError, match=r"part-00\.tar' had 10240 bytes and has .* now; start again"):
        dataset[0]


def test_remote_shards_are_fetched_one_after_the_other_and_dropped(tmp_path, fetches):
    counts = [40] * 12
    where = in_memory(make(tmp_path / "in", counts), "fetched")
    local = open_shards(str(tmp_path / "in" / "*.tar"), tmp_path)
    remote = open_shards(where, tmp_path, keep=8)
    assert remote.fingerprint() == local.fingerprint()
    copies = tmp_path / "cache" / "shards"
    assert sorted(fetches) == remote.names and len(list(copies.rglob("*.tar"))) == 8
    fetches.clear()
    epochs = 5
    for keys in order(local.shard_lengths, 4, epochs * sum(counts) // 4):
        images = [remote.draw(*key) for key in keys]
        assert greys(images) == greys(local.draw(*key) for key in keys)
        assert len(list(copies.rglob("*.tar"))) <= 8
    assert len(fetches) <= epochs * len(counts), "each shard once in an epoch"
    assert not list(copies.rglob("*.part"))


def test_a_copy_that_is_cut_off_is_fetched_again(tmp_path, fetches):
    """As after a loss of power, which may leave a file of the right name without its content."""
    where = in_memory(make(tmp_path / "in", [3, 4]), "cut")
    open_shards(where, tmp_path)
    (copy, _) = (tmp_path / "cache" / "shards").rglob("*.tar")
    copy.write_bytes(copy.read_bytes()[:700])
    fetches.clear()
    assert greys(open_shards(where, tmp_path)[i] for i in range(7)) == list(range(7))
    assert len(fetches) == 1


def test_the_next_shards_are_fetched_ahead(tmp_path, fetches):
    where = in_memory(make(tmp_path / "in", [3] * 9), "ahead")
    dataset = open_shards(where, tmp_path, keep=4)
    gone = [shard for shard in range(9) if not has_copy(dataset, shard)]
    fetches.clear()
    dataset.prefetch(gone[:3])
    dataset.prefetch(gone[:3])
    until = time.monotonic() + 20
    while not all(has_copy(dataset, shard) for shard in gone[:3]):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert sorted(fetches) == [dataset.names[shard] for shard in gone[:3]]
    for shard in gone[:3]:
        assert greys([dataset[3 * shard]]) == [3 * shard]
    assert len(fetches) == 3


def has_copy(dataset: Shards, shard: int) -> bool:
    return (dataset.files.folder / f"{shard_files.hashed(dataset.files.versions[shard])}.tar").exists()


def test_a_failing_connection_is_tried_again(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    where = in_memory(make(tmp_path / "in", [3]), "failing")
    get_file, failures, pauses = MemoryFileSystem.get_file, [], []

    def get_half(self, remote, local, **options):
        get_file(self, remote, local, **options)
        if len(failures) < 3:
            failures.append(remote)
            Path(local).write_bytes(Path(local).read_bytes()[:700])
            if len(failures) == 2:
                raise RuntimeError("connection\nreset")

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_half)
    monkeypatch.setattr(shard_files.time, "sleep", pauses.append)
    dataset = open_shards(where, tmp_path)
    assert greys(dataset[i] for i in range(3)) == list(range(3))
    assert len(failures) == 3 and pauses == [1, 2, 4]
    monkeypatch.setattr(shard_files, "_ATTEMPTS", 1)
    failures.clear()
    with pytest.raises(OSError, match=r"shard 'memory://failing/part-00\.tar' came with 700 bytes of 10240") as caught:
        open_shards(where, tmp_path / "other")
    assert "\n" not in str(caught.value)


def test_without_fsspec_local_shards_work_and_remote_ones_say_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert len(open_shards(make(tmp_path / "in"), tmp_path)) == 30
    with pytest.raises(ValueError, match=r"s3://bucket/a\.tar' needs fsspec; .*\[shards\]"):
        open_shards("s3://bucket/a.tar", tmp_path)


# faults


def damaged(tmp_path: Path) -> dict[str, Path]:
    """Files that are no shards, by what is wrong."""
    good = write(tmp_path / "good.tar", {f"{i}.png": png(i) * 20 for i in range(4)})
    content = good.read_bytes()
    paths = {
        name: tmp_path / f"{name}.tar" for name in ("text", "nothing", "zeros", "member", "header", "changed", "gz")
    }
    paths["text"].write_bytes(b"these are not the shards you are looking for" * 40)
    paths["nothing"].write_bytes(b"")
    paths["zeros"].write_bytes(bytes(10240))
    second = 512 + -(-len(png(0)) * 20 // 512) * 512
    paths["member"].write_bytes(content[: second + 700])
    paths["header"].write_bytes(content[: second + 100])
    paths["changed"].write_bytes(content[: second + 148] + b"nonsense" + content[second + 156 :])
    with tarfile.open(paths["gz"], "w:gz") as archive:
        archive.add(good)
    paths["folder"] = tmp_path / "folder.tar"
    paths["folder"].mkdir()
    paths["missing"] = tmp_path / "missing.tar"
    paths["imageless"] = write(tmp_path / "imageless.tar", {"a.txt": b"x", "a.cls": b"1"})
    paths["twins"] = write(tmp_path / "twins.tar", {"a.png": png(), "a.jpg": png()})
    paths["unlabelled"] = write(tmp_path / "unlabelled.tar", {"a.png": png(), "a.cls": b"1", "b.png": png()})
    paths["word"] = write(tmp_path / "word.tar", {"d/a.png": png(), "d/a.cls": b"cat"})
    paths["many"] = write(tmp_path / "many.tar", {"a.png": png(), "a.cls": b"9" * 12})
    return paths


FAULTS = {
    "text": "is no tar file",
    "nothing": "is no tar file .*empty",
    "zeros": "holds no image",
    "member": "is cut off or damaged",
    "header": "is cut off or damaged",
    "changed": "is cut off or damaged",
    "gz": "is no tar file .*none that are compressed",
    "folder": "there is no shard .*folder.tar",
    "missing": "there is no shard .*missing.tar",
    "imageless": "holds no image; looked for members KEY.jpg",
    "twins": "holds two images of the key 'a'; .*extensions",
    "unlabelled": r"image '.*unlabelled\.tar/b\.png' has no label; .*set labels: false",
    "word": r"image '.*word\.tar/d/a\.png' has a label that is no whole number",
    "many": "no whole number",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_shards_are_one_line_that_names_them(tmp_path, fault):
    path = damaged(tmp_path)[fault]
    good = write(tmp_path / "fine.tar", {"a.png": png(), "a.cls": b"0"})
    with pytest.raises((ValueError, OSError), match=FAULTS[fault]) as caught:
        open_shards([str(good), str(path)], tmp_path, labels=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    if fault in ("unlabelled", "word", "many"):
        assert open_shards(str(path), tmp_path)[0].shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("train-{0..}.tar", "malformed braces in 'train-{0..}.tar'; write a range such as {000..099}"),
        ("train-{9..0}.tar", "malformed braces"),
        ("train-{a}.tar", "malformed braces"),
        ("train-{}.tar", "malformed braces"),
        ("train-{0..9.tar", "malformed braces"),
        ("train-0..9}.tar", "malformed braces"),
        ("a}{0..9}", "malformed braces"),
        ([], "no shards given"),
        ("no/such/*.tar", r"no shard matches 'no/such/\*\.tar'"),
        ("nonsense://a.tar", "'nonsense://a.tar' cannot be read: ValueError Protocol not known"),
        ("memory://no/such.tar", "there is no shard 'memory://no/such.tar'"),
    ],
)
def test_names_that_are_none(tmp_path, where, message):
    with pytest.raises((ValueError, OSError), match=message):
        open_shards(where, tmp_path)


def test_options_out_of_range(tmp_path):
    where = make(tmp_path / "in")
    for options in ({"keep": 0}, {"seed": -1}, {"background": (0, 0, 256)}, {"convert_image_to": "Foo"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            open_shards(where, tmp_path, **options)


def test_a_cache_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=f"{tmp_path}/cache.*set cache_folder"):
        open_shards(make(tmp_path / "in"), tmp_path)


def test_broken_images_are_named_with_their_shard_or_skipped(tmp_path):
    write(tmp_path / "a.tar", {"d/0.png": png(0), "d/1.png": png(1)[:40], "d/2.png": b""})
    write(tmp_path / "b.tar", {"3.png": png(3), "4.png": png(4), "5.png": png(5)})
    where = f"{tmp_path}/{{a,b}}.tar"
    with pytest.raises(BrokenImageError, match=r"a\.tar/d/1\.png': .*broken: skip") as caught:
        open_shards(where, tmp_path)[1]
    assert "\n" not in str(caught.value)
    skipping = open_shards(where, tmp_path, broken="skip")
    with pytest.warns(UserWarning, match=r"a\.tar/d/[12]\.png"):
        assert greys(skipping[i] for i in range(6)) == [0, 3, 3, 3, 4, 5]


# training


def test_a_run_that_was_killed_ends_as_a_whole_one(tmp_path):
    """Of two processes with a data worker each, from copies, as of remote shards; fewer are kept than there are."""
    pytest.importorskip("fsspec", reason="remote shards need fsspec")
    where = "local://" + make(tmp_path / "in", [5, 9, 7, 8, 9, 6, 5, 7, 8])
    runs = {name: {"data": open_shards(where, tmp_path / name, keep=5)} for name in ("whole", "cut")}
    for options in runs.values():
        options |= {"workers": 1, "train_batch_size": 4, "train_num_steps": 16}
    assert soak.end(soak.start(tmp_path / "run of whole", 2, **runs["whole"])) == [0, 0]
    started = soak.start(tmp_path / "run of cut", 2, target=faulty.killed_in_third_save, **runs["cut"])
    started[0].join(60)
    started[1].kill()  # it waits for its dead mate
    assert soak.end(started) == [-9, -9]
    assert Checkpoint.find(tmp_path / "run of cut").step == 8
    assert soak.end(soak.start(tmp_path / "run of cut", 2, **runs["cut"])) == [0, 0]
    assert not soak.difference(tmp_path / "run of whole", tmp_path / "run of cut")
    for name in runs:
        assert 1 <= len(list((tmp_path / name / "cache").rglob("*.tar"))) <= 5


SMALL = (
    "--diffusion.model.dim=8 --diffusion.model.dim_mults=[1,2] --diffusion.model.image_size=8 --diffusion.timesteps=4 "
)
SMALL += "--trainer.train_num_steps=2 --trainer.train_batch_size=4 --trainer.num_samples=4 "
SMALL += (
    "--trainer.previews.sampling_steps=2 --trainer.loading.num_workers=0 --trainer.logging.progress=false --data=Shards"
)


def train(*words):
    cli.train([*SMALL.split(), *map(str, words)], ROOT / "unused.yaml")


def test_the_command_line_trains_on_shards_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    where = make(tmp_path / "in")
    words = ["--data.labels=true", "--diffusion.model.num_classes=7", f"--data.shards={where}"]
    words += ["--validation=Shards", "--validation.labels=true", f"--validation.shards=['{where}']"]
    train(*words, f"--trainer.results_folder={tmp_path / 'run'}")
    words = [f"--trainer.results_folder={tmp_path / 'run'}", "--resume", "--trainer.train_num_steps=3"]
    cli.train(words, ROOT / "configs" / "digits.yaml")
    config = Checkpoint.find(tmp_path / "run").config
    assert config["data"]["class_path"] == "diffusion_framework.Shards"
    assert config["data"]["init_args"]["shards"] == where
    assert config["trainer"]["train_num_steps"] == 3
    assert list((tmp_path / "caches" / "diffusion_framework" / "lists").glob("*.npy"))


@pytest.mark.parametrize("fault", [*FAULTS, "{0..x}"])
def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    path = damaged(tmp_path).get(fault, fault)
    with pytest.raises(SystemExit) as end:
        train(f"--data.shards={path}", "--data.labels=true", f"--trainer.results_folder={tmp_path / 'run'}")
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and len(error) < 400
    assert not (tmp_path / "run").exists()
