"""Names of shards, and the download of remote ones."""

import os
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from grey_images import greys
from tar_shards import open_shards, png, upload_to_memory, write_shards, write_tar

from diffusion_framework import Shards
from diffusion_framework.data.loading.shard_order import ShardedBatches
from diffusion_framework.data.shards import remote
from diffusion_framework.data.shards.names import expand_braces
from diffusion_framework.data.shards.remote import Remote


@pytest.fixture
def downloads(monkeypatch):
    """The names of the downloaded shards, in order."""
    names, download = [], Remote.download
    monkeypatch.setattr(
        Remote, "download", lambda self, *rest: names.append(self.name) or download(self, *rest)
    )
    return names


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash to compare with")
@pytest.mark.parametrize(
    "pattern",
    [
        "a-{000..012}.tar",
        "a-{8..11}.tar",
        "{0..2}-{07..10}.tar",
        "{train,val-{0..2}}.tar",
        "x{a,b}{c,}y",
        "a-{9..010}",
    ],
)
def test_braces_expand_as_in_the_shell(pattern):
    shell = subprocess.run(
        ["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True
    )
    assert expand_braces(pattern) == shell.stdout.split()


def test_shards_are_named_by_a_pattern_a_list_or_a_wildcard(tmp_path):
    pattern = write_shards(tmp_path / "in")
    expanded = open_shards(pattern, tmp_path)
    assert len(expanded) == 30 and greys(expanded[i] for i in range(30)) == list(range(30))
    for where in (
        [f"{tmp_path}/in/part-{{00..03}}.tar", f"file://{tmp_path}/in/part-0[4-6].tar"],
        f"{tmp_path}/in/*",
    ):
        assert open_shards(where, tmp_path).names == expanded.names
    odd = write_tar(tmp_path / "[odd] {name}.tar", {"0.png": png()})
    assert open_shards(str(odd), tmp_path).names == [str(odd)]


@pytest.mark.parametrize("name", ["ü ñ 图", "a\nb", "space and 'quote'", "percent%20"])
def test_shards_and_their_cache_lie_in_any_folder(tmp_path, name):
    where = write_shards(tmp_path / name, [3])
    remote = upload_to_memory(where, "any folder")
    for _ in range(2):
        for shards in (where, f"local://{where}", remote):
            assert greys(open_shards(shards, tmp_path / name)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "train-{0..}.tar",
            r"Expected braces such as \{000..099\} or \{a,b\}, got 'train-\{0..\}.tar'. Fix",
        ),
        ("train-{9..0}.tar", "Expected braces such as"),
        ("train-{a}.tar", "Expected braces such as"),
        ("train-{}.tar", "Expected braces such as"),
        ("train-{0..9.tar", "Expected braces such as"),
        ("train-0..9}.tar", "Expected braces such as"),
        ("a}{0..9}", "Expected braces such as"),
        ([], "Expected names of shards, got none"),
        ("no/such/*.tar", r"Expected shards named 'no/such/\*\.tar', got no match"),
        ("nonsense://a.tar", r"got 'nonsense://a.tar' \(ValueError Protocol not known"),
        ("memory://no/such.tar", "Expected an existing shard, got 'memory://no/such.tar'"),
    ],
)
def test_bad_names_are_one_line_errors(tmp_path, where, message):
    with pytest.raises((ValueError, OSError), match=message):
        open_shards(where, tmp_path)


def test_a_shard_that_changes_during_a_run_is_an_error(tmp_path):
    dataset = open_shards(write_shards(tmp_path / "in"), tmp_path)
    write_tar(Path(dataset.names[0]), {f"{i}.png": png() for i in range(30)})
    with pytest.raises(
        ValueError, match=r"Expected 10240 bytes in shard '.*part-00\.tar', got .* Fix: restart"
    ):
        dataset[0]


def test_remote_shards_are_downloaded_once_an_epoch_and_deleted(tmp_path, downloads):
    counts = [40] * 12
    where = upload_to_memory(write_shards(tmp_path / "in", counts), "downloads")
    local = open_shards(str(tmp_path / "in" / "*.tar"), tmp_path)
    remote = open_shards(where, tmp_path, keep=8)
    assert remote.fingerprint() == local.fingerprint()
    copies = tmp_path / "cache" / "shards"
    assert sorted(downloads) == remote.names and len(list(copies.rglob("*.tar"))) == 8
    downloads.clear()
    epochs = 5
    for keys in islice(ShardedBatches(local.shard_lengths, 4, seed=3), epochs * sum(counts) // 4):
        images = [remote.draw(*key) for key in keys]
        assert greys(images) == greys(local.draw(*key) for key in keys)
        assert len(list(copies.rglob("*.tar"))) <= 8
    assert len(downloads) <= epochs * len(counts), "each shard at most once an epoch"
    assert not list(copies.rglob("*.part"))


def test_a_truncated_copy_is_downloaded_again(tmp_path, downloads):
    """A power failure may leave a file of the right name with part of its content."""
    where = upload_to_memory(write_shards(tmp_path / "in", [3, 4]), "cut")
    open_shards(where, tmp_path)
    (copy, _) = (tmp_path / "cache" / "shards").rglob("*.tar")
    copy.write_bytes(copy.read_bytes()[:700])
    downloads.clear()
    assert greys(open_shards(where, tmp_path)[i] for i in range(7)) == list(range(7))
    assert len(downloads) == 1


def cut(path):
    os.truncate(path, 700)


def write_over(path):
    content = path.read_bytes()
    with open(path, "r+b") as file:  # the same inode
        file.write(content.replace(png(1), png(99)))


def link(path):
    path.rename(path.with_name("victim"))
    path.symlink_to(path.with_name("victim"))


def open_to_all(path):
    path.chmod(0o666)


@pytest.mark.parametrize("fault", [cut, write_over, Path.unlink, link, open_to_all])
def test_a_copy_that_is_damaged_under_a_run_is_downloaded_again(tmp_path, downloads, fault):
    where = upload_to_memory(write_shards(tmp_path / "in", [3]), "damaged")
    running = open_shards(where, tmp_path)
    assert greys([running[0]]) == [0]
    (copy,) = (tmp_path / "cache" / "shards").rglob("*.tar")
    fault(copy)
    downloads.clear()
    assert greys(running) == [0, 1, 2], "read by the process that has it open"
    assert greys(open_shards(where, tmp_path)) == [0, 1, 2]
    assert len(downloads) == 1
    if fault is link:
        victim = copy.with_name("victim")
        assert victim.is_file() and len(victim.read_bytes()) == 10240
    assert copy.stat().st_mode & 0o777 == 0o600 and not copy.is_symlink()


def test_a_local_shard_written_over_in_place_is_an_error(tmp_path):
    dataset = open_shards(write_shards(tmp_path / "in", [3]), tmp_path)
    assert greys(dataset) == [0, 1, 2]
    write_over(Path(dataset.names[0]))
    with pytest.raises(ValueError, match=r"part-00\.tar', got another file of this size\. Fix"):
        dataset[1]


def test_locks_and_lists_are_not_written_through_links(tmp_path):
    """A lock is opened with truncation, which would empty the file behind a link."""
    where, victim = write_shards(tmp_path / "in", [3]), tmp_path / "victim"
    open_shards(where, tmp_path)
    victim.write_bytes(b"precious")
    for path in (tmp_path / "cache" / "lists").iterdir():
        path.unlink()
        path.symlink_to(victim)
    with pytest.raises(OSError, match=r"Expected a cache file of this user, got .*\.lock"):
        open_shards(where, tmp_path)
    for path in (tmp_path / "cache" / "lists").glob("*.lock"):
        path.unlink()
    assert greys(open_shards(where, tmp_path)) == [0, 1, 2]
    assert victim.read_bytes() == b"precious"


def is_copied(dataset: Shards, shard: int) -> bool:
    """Returns whether a local copy of the shard exists."""
    return (dataset.files.folder / f"{dataset.files.key(shard)}.tar").exists()


def test_the_next_shards_are_downloaded_ahead_of_time(tmp_path, downloads):
    where = upload_to_memory(write_shards(tmp_path / "in", [3] * 9), "ahead")
    dataset = open_shards(where, tmp_path, keep=4)
    assert greys([dataset[0]]) == [0], "the first image tells the depth"
    missing = [shard for shard in range(9) if not is_copied(dataset, shard)]
    downloads.clear()
    dataset.prefetch(missing[:3])
    dataset.prefetch(missing[:3])
    deadline = time.monotonic() + 20
    while not all(is_copied(dataset, shard) for shard in missing[:3]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(downloads) == [dataset.names[shard] for shard in missing[:3]]
    for shard in missing[:3]:
        assert greys([dataset[3 * shard]]) == [3 * shard]
    assert len(downloads) == 3


def test_a_failed_download_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    where = upload_to_memory(write_shards(tmp_path / "in", [3]), "failing")
    cat_file, starts, pauses = MemoryFileSystem.cat_file, [], []

    def get_part(self, path, start=None, end=None, **options):
        block = cat_file(self, path, start=start, end=end, **options)
        starts.append(start)
        if len(starts) == 2:
            raise RuntimeError("connection\nreset")
        return block[:700] if len(starts) < 4 else block

    monkeypatch.setattr(MemoryFileSystem, "cat_file", get_part)
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    dataset = open_shards(where, tmp_path)
    assert greys(dataset[i] for i in range(3)) == list(range(3))
    assert starts == [0, 700, 700, 1400]
    assert all(1 <= pause / 2**i <= 1.5 for i, pause in enumerate(pauses)) and len(pauses) == 3
    starts.clear()
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)
    with pytest.raises(
        OSError, match=r"got 'memory://failing/part-00\.tar' \(the connection closed after 700 of"
    ) as caught:
        open_shards(where, tmp_path / "other")
    assert "\n" not in str(caught.value)


def test_without_fsspec_local_shards_work_and_remote_ones_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert len(open_shards(write_shards(tmp_path / "in"), tmp_path)) == 30
    with pytest.raises(
        ValueError, match=r"Expected the package fsspec for shard 's3://bucket/a\.tar'.*\[shards\]"
    ):
        open_shards("s3://bucket/a.tar", tmp_path)
