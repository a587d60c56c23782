"""Tests of reading demonstrations in each layout, from files written by hand."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from diffusion_framework.policies import Episodes, load_episodes

RNG = np.random.default_rng(0)
ARRAYS = {
    "state": RNG.normal(size=(9, 3)).astype(np.float32),
    "action": RNG.normal(size=(9, 2)).astype(np.float32),
}
ENDS = [4, 9]


def assert_read(episodes: Episodes) -> None:
    assert episodes.ends.tolist() == ENDS and episodes.starts.tolist() == [0, 4]
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(episodes.arrays[name], values)


def test_npz_files_of_one_episode_each_or_of_several(tmp_path):
    for i, (begin, end) in enumerate(((0, 4), (4, 9))):
        np.savez(
            tmp_path / f"{i:03d}.npz",
            **{name: values[begin:end] for name, values in ARRAYS.items()},
        )
    assert_read(load_episodes(tmp_path, ["state", "action"]))
    several = tmp_path / "together"
    several.mkdir()
    np.savez(several / "demos.npz", **ARRAYS, episode_ends=np.array(ENDS))
    assert_read(load_episodes(several, ["state", "action"]))
    assert_read(load_episodes(several / "demos.npz", ["state", "action"]))


def write_zarr_array(folder, values, chunk):
    """Writes an uncompressed zarr array of version 2, with one file a chunk and padding."""
    folder.mkdir(parents=True)
    description = {
        "zarr_format": 2,
        "shape": values.shape,
        "chunks": [chunk, *values.shape[1:]],
        "dtype": values.dtype.str,
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (folder / ".zarray").write_text(json.dumps(description))
    for i, first in enumerate(range(0, len(values), chunk)):
        part = np.zeros((chunk, *values.shape[1:]), values.dtype)
        part[: len(values[first : first + chunk])] = values[first : first + chunk]
        (folder / ".".join([str(i), *["0"] * (values.ndim - 1)])).write_bytes(part.tobytes())


def test_a_zarr_replay_buffer_in_the_published_layout(tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    for group in ("", "data", "meta"):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / ".zgroup").write_text('{"zarr_format": 2}')
    for name, values in ARRAYS.items():
        write_zarr_array(tmp_path / "data" / name, values, chunk=4)
    write_zarr_array(tmp_path / "meta" / "episode_ends", np.array(ENDS, dtype=np.int64), chunk=2)
    assert_read(load_episodes(tmp_path, ["state", "action"]))
    with pytest.raises(ValueError, match="expected arrays named img, got only action, state. Fix"):
        load_episodes(tmp_path, ["img", "action"])


def test_a_lerobot_dataset(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v2.1"}')
    (tmp_path / "data" / "chunk-000").mkdir(parents=True)
    for episode, (begin, end) in enumerate(((0, 4), (4, 9))):
        order = np.arange(end - begin)[::-1]  # the frame index decides, not the order of rows
        columns = {
            "observation.state": list(ARRAYS["state"][begin:end][order]),
            "action": list(ARRAYS["action"][begin:end][order]),
            "episode_index": np.full(end - begin, episode),
            "frame_index": order,
        }
        parquet.write_table(
            pyarrow.table(columns),
            tmp_path / "data" / "chunk-000" / f"episode_{episode:06d}.parquet",
        )
    episodes = load_episodes(tmp_path, ["observation.state", "action"])
    episodes.arrays["state"] = episodes.arrays.pop("observation.state")
    assert_read(episodes)


def test_invalid_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected demonstrations, got none. Fix: give a folder"):
        load_episodes(tmp_path, ["action"])
    broken = {**ARRAYS, "state": np.where(np.arange(9)[:, None] == 6, np.nan, ARRAYS["state"])}
    with pytest.raises(ValueError, match="'state', got NaN or infinity in episode 1, step 6. Fix"):
        Episodes(broken, ENDS)
    with pytest.raises(ValueError, match="Expected 8 steps in 'state', .*, got 9. Fix"):
        Episodes(ARRAYS, [4, 8])
    with pytest.raises(ValueError, match=r"ends that increase from above 0, got \[4, 4, 9\]. Fix"):
        Episodes(ARRAYS, [4, 4, 9])
    np.savez(tmp_path / "objects.npz", action=np.array([{"code": "runs"}], dtype=object))
    with pytest.raises(ValueError, match=r"objects.npz: .*pickle.* Fix: "):  # nothing is unpickled
        load_episodes(tmp_path, ["action"])


def refusal(path) -> str:
    """Returns the error, which is one line and begins with the path."""
    with pytest.raises(ValueError, match="Fix: ") as error:
        load_episodes(path, ["action"])
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return str(error.value)


def test_damaged_npz_files_are_refused_with_their_path(tmp_path):
    np.savez(tmp_path / "good.npz", **ARRAYS)
    for cut in (0, 10, 500, -5):
        (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:cut])
        refusal(tmp_path / "cut.npz")
    np.savez(tmp_path / "short.npz", **ARRAYS, episode_ends=np.array([4, 8]))
    assert "where the last episode ends, got 9" in refusal(tmp_path / "short.npz")
    np.savez(tmp_path / "scalar.npz", action=np.array(3.0))
    refusal(tmp_path / "scalar.npz")


def test_a_zarr_buffer_without_ends_is_refused_with_its_path(tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    write_zarr_array(tmp_path / "data" / "action", ARRAYS["action"], 4)
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    assert "array meta/episode_ends, got none" in refusal(tmp_path)


def test_a_lerobot_dataset_with_a_broken_description_is_refused_with_its_path(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{broken")
    assert "info.json: expected a JSON file" in refusal(tmp_path)


def lerobot(folder, columns, features="{}"):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(f'{{"features": {features}}}')
    (folder / "data").mkdir()
    index = {"episode_index": [0, 0], "frame_index": [0, 1]}
    parquet.write_table(pyarrow.table({**index, **columns}), folder / "data" / "episode.parquet")
    return folder


def png(pixels, mode=None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_encoded_images_of_lerobot_are_decoded(tmp_path, mode):
    pixels = RNG.integers(0, 2, (2, 6, 5, 3)).astype(np.uint8) * 255
    frames = [Image.fromarray(one).convert(mode) for one in pixels]
    encoded = [{"bytes": png(one, mode), "path": None} for one in pixels]
    data = lerobot(tmp_path / "demos", {"camera": encoded, "task": ["push", "push"]})
    read = load_episodes(data, ["camera"]).arrays["camera"]  # the texts are not asked for
    expected = [np.asarray(one if mode == "L" else one.convert("RGB")) for one in frames]
    np.testing.assert_array_equal(read, np.reshape(expected, (2, 6, 5, -1)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([{"bytes": None, "path": "a.png"}] * 2, "'camera', got only its path"),
        ([{"bytes": b"noise", "path": None}] * 2, "cannot identify image file"),
        (["push", "pull"], "numbers or encoded images in 'camera', got str"),
        ([[1.0], [1.0, 2.0]], "cannot be read"),
        ([1.0, None], "numbers or encoded images in 'camera', got float"),
    ],
)
def test_other_columns_of_lerobot_are_refused_when_loading(tmp_path, column, message):
    with pytest.raises(ValueError, match=message) as error:
        load_episodes(lerobot(tmp_path / "demos", {"camera": column}), ["camera"])
    assert "Fix: " in str(error.value) and str(tmp_path) in str(error.value)


def test_videos_of_lerobot_are_refused(tmp_path):
    data = lerobot(tmp_path / "demos", {}, '{"camera": {"dtype": "video"}}')
    with pytest.raises(ValueError, match="in 'camera', got a video. Fix: export"):
        load_episodes(data, ["camera"])


def test_the_fingerprint_distinguishes_data():
    one = Episodes(ARRAYS, ENDS).fingerprint()
    assert (
        one
        == Episodes({name: values.copy() for name, values in ARRAYS.items()}, ENDS).fingerprint()
    )
    assert one != Episodes(ARRAYS, [5, 9]).fingerprint()
    assert one != Episodes({**ARRAYS, "action": ARRAYS["action"] + 1e-6}, ENDS).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "Pickle", "protocol": 5}]},
        {"compressor": {"id": "json2"}},
        {"filters": [{"id": "vlen-utf8"}], "dtype": "|O"},
        {"dtype": "|O"},
        {"dtype": [["a", "|O"]]},
        {
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {"codecs": [{"name": "numcodecs.pickle"}]},
                }
            ]
        },
        {"data_type": "variable_length_bytes"},
    ],
    ids=str,
)
@pytest.mark.parametrize("file", [".zarray", "zarr.json"])
def test_arrays_whose_reading_may_run_code_are_refused_unread(tmp_path, change, file):
    for name in ("data/state", "data/action", "meta/episode_ends"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text(json.dumps({"zarr_format": 2, "shape": [9], **change}))
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(
        ValueError, match=r"got the (codec|dtype) .*Fix: store numbers only"
    ) as error:
        load_episodes(tmp_path, ["state", "action"])
    assert "\n" not in str(error.value)


def test_user_attributes_are_not_codecs(tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    import zarr

    root = zarr.open_group(str(tmp_path / "demos"), mode="w")
    root.attrs["codecs"] = [{"name": "pickle"}]
    for name, values in {
        **{f"data/{k}": v for k, v in ARRAYS.items()},
        "meta/episode_ends": np.array(ENDS),
    }.items():
        root[name] = values
    assert_read(load_episodes(tmp_path / "demos", ["state", "action"]))
