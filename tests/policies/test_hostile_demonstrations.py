"""Demonstrations that claim too much, never end or lead elsewhere are refused in one line."""

import json
import os
import resource
import shutil
import struct
import zipfile

import numpy as np
import pytest
from audit import watched
from zarr_buffers import FORMATS, add_array, new_group

from diffusion_framework.policies import Episodes, load_episodes

ARRAYS = {"state": np.arange(27.0).reshape(9, 3), "action": np.ones((9, 2))}


def refusal(path, names=("state", "action")) -> str:
    """Returns the error of reading a path, which is one line and takes no memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with watched() as seen, pytest.raises((ValueError, OSError), match="Fix: ") as error:
        load_episodes(path, names)
    assert not seen and "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    return str(error.value)


def npz(path):
    np.savez(path, **ARRAYS)
    return path


@pytest.fixture(params=FORMATS)
def buffer(request, tmp_path):
    group = new_group(tmp_path / "demos", request.param)
    for name, values in ARRAYS.items():
        add_array(group, f"data/{name}", values)
    add_array(group, "meta/episode_ends", np.array([4, 9]))
    load_episodes(tmp_path / "demos", ["state", "action"])  # imports everything
    return tmp_path / "demos"


def metadata(array):
    """The file that describes an array."""
    return next(array / name for name in (".zarray", "zarr.json") if (array / name).exists())


def test_the_metadata_of_a_linked_array_is_checked(buffer):
    """The array lies where a search of the buffer for metadata does not look."""
    state = buffer / "data" / "state"
    shutil.move(state, buffer.parent / "elsewhere")
    state.symlink_to(buffer.parent / "elsewhere")
    file = metadata(state)
    codec = {"id": "pickle", "name": "numcodecs.pickle"}
    described = json.loads(file.read_text())
    described["filters" if file.name == ".zarray" else "codecs"] = [codec]
    file.write_text(json.dumps(described))
    assert "got the codec 'pickle'" in refusal(buffer)


@pytest.mark.parametrize("name", ["pipe", "device", "folder"])
def test_files_that_never_end_and_links_to_folders_are_refused(buffer, name):
    state, place = buffer / "data" / "state", buffer / "data" / "state" / "9.9"
    if name == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if name == "device" else "/")
    assert str(place) in refusal(buffer)
    place.unlink()
    file = metadata(state)
    file.unlink()
    os.mkfifo(file)
    assert str(file) in refusal(buffer)


@pytest.mark.parametrize("change", ["shape", "chunks"])
def test_arrays_that_claim_terabytes_take_no_memory(buffer, change):
    file = metadata(buffer / "data" / "state")
    described = json.loads(file.read_text())
    if change == "shape":
        described["shape"] = [10**12, 3]
    elif file.name == ".zarray":
        described["chunks"] = [10**12, 3]
    else:
        described["chunk_grid"]["configuration"]["chunk_shape"] = [10**12, 3]
    file.write_text(json.dumps(described))
    error = refusal(buffer)
    assert str(file.parent) in error and "the free memory of this machine, got 2.4e+04 GB" in error


def test_a_damaged_array_of_a_buffer_is_named(buffer):
    state = buffer / "data" / "state"
    for chunk in state.rglob("*"):
        if chunk.is_file() and chunk != metadata(state):
            chunk.write_bytes(b"noise")
    assert refusal(buffer).startswith(str(state))


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_damaged_blosc_chunks_are_read_or_refused(tmp_path, zarr_format):
    """Blosc's decoder reads and writes beyond its memory if it meets such chunks unchecked."""
    from numcodecs import Blosc
    from zarr import codecs

    compressor = Blosc() if zarr_format == 2 else codecs.BloscCodec()
    group = new_group(tmp_path / "demos", zarr_format)
    values = np.sin(np.arange(4000.0)).reshape(-1, 2)
    for name in ("state", "action"):
        add_array(group, f"data/{name}", values, compressors=compressor, chunks=(500, 2))
    add_array(group, "meta/episode_ends", np.array([900, 2000]))
    whole = load_episodes(tmp_path / "demos", ["state", "action"])
    (chunk, *_) = sorted(p for p in (tmp_path / "demos/data/state").rglob("*0") if p.is_file())
    content, rng, read, refused = chunk.read_bytes(), np.random.default_rng(0), 0, []
    for trial in range(150):
        changed = bytearray(content)
        for place in rng.integers(0, 16 if trial % 2 else len(content), 2):
            changed[place] = rng.integers(256)
        chunk.write_bytes(changed[: rng.integers(len(content))] if trial % 5 == 0 else changed)
        try:
            found = load_episodes(tmp_path / "demos", ["state", "action"])
        except ValueError as error:
            refused.append(str(error))
        else:
            read += found.arrays["state"].shape == whole.arrays["state"].shape
    assert read and refused and read + len(refused) == 150
    assert all("Fix: " in error and "\n" not in error for error in refused)


@pytest.mark.parametrize("zarr_format", [each for each in FORMATS if each == 3])
def test_blosc_within_shards_is_refused(tmp_path, zarr_format):
    from zarr import codecs

    group = new_group(tmp_path / "demos", zarr_format)
    options = {"chunks": (3, 1), "shards": (9, 3), "compressors": codecs.BloscCodec()}
    add_array(group, "data/state", ARRAYS["state"], **options)
    add_array(group, "data/action", ARRAYS["action"])
    add_array(group, "meta/episode_ends", np.array([4, 9]))
    assert "expected Blosc as the last codec" in refusal(tmp_path / "demos")


def test_blosc_below_another_codec_is_refused(tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    numcodecs = pytest.importorskip("numcodecs")
    group = new_group(tmp_path / "demos", 2)
    blosc = numcodecs.Blosc()
    add_array(group, "data/state", ARRAYS["state"], compressors=blosc)
    add_array(group, "data/action", ARRAYS["action"])
    add_array(group, "meta/episode_ends", np.array([4, 9]))
    file = tmp_path / "demos" / "data" / "state" / ".zarray"
    described = json.loads(file.read_text())
    file.write_text(json.dumps({**described, "filters": [blosc.get_config()]}))
    assert "expected Blosc as the last codec" in refusal(tmp_path / "demos")


def test_npz_files_that_claim_terabytes_take_no_memory(tmp_path):
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}).encode()
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + b"0" * 99
    with zipfile.ZipFile(npz(tmp_path / "large.npz"), "w") as file:
        file.writestr("state.npy", content)
        file.writestr("action.npy", content)
    assert refusal(tmp_path / "large.npz").startswith(str(tmp_path / "large.npz"))


def test_an_npz_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", state=np.zeros((10**6, 3)), action=np.zeros((9, 2)))
    assert (tmp_path / "bomb.npz").stat().st_size < 50_000

    class Memory:
        available = 10**6

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert "expected at most 0.001 GB, the free memory of this machine, got 0.024 GB" in refusal(
        tmp_path / "bomb.npz"
    )
    assert "the free memory" not in refusal(tmp_path / "bomb.npz", ["missing"])


def test_a_parquet_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    (tmp_path / "data").mkdir()
    count, index = 10**5, {"episode_index": [0] * 10**5, "frame_index": range(10**5)}
    columns = {"state": [[0.0, 0.0]] * count, "other": [[0.0] * 9] * count}
    parquet.write_table(pyarrow.table({**index, **columns}), tmp_path / "data" / "large.parquet")

    class Memory:
        available = 10**7

    assert len(load_episodes(tmp_path, ["state"])) == 1
    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert "large.parquet: expected at most 0.01 GB" in refusal(tmp_path, ["state"])


def test_pipes_in_place_of_files_are_refused(tmp_path):
    npz(tmp_path / "a.npz")
    os.mkfifo(tmp_path / "b.npz")
    assert "b.npz: expected a regular file, got a folder, pipe or device" in refusal(tmp_path)


def test_of_many_files_the_one_that_differs_is_named(tmp_path):
    for name in "abc":
        npz(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "b.npz", state=np.ones((9, 4)), action=ARRAYS["action"])
    message = r"b.npz: expected 'state' of shape ['steps', 3], as in a.npz, got ['steps', 4]"
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("value", [1e39, -1e39, np.nan, np.inf])
def test_numbers_are_checked_as_the_float32_that_they_become(tmp_path, value):
    state = ARRAYS["state"].copy()
    state[6, 1] = value
    wanted = "above the largest float32" if np.isfinite(value) else "NaN or infinity"
    with pytest.raises(ValueError, match=f"'state', got .*{wanted} in episode 1, step 6"):
        Episodes({**ARRAYS, "state": state}, [4, 9])
    np.savez(tmp_path / "a.npz", **{**ARRAYS, "state": state})
    assert str(tmp_path / "a.npz") in refusal(tmp_path)
