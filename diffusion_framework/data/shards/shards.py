"""Tar files of images as a data set, for more images than a disk holds."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Thread, get_ident
from typing import BinaryIO, Literal

import numpy as np
from beartype import beartype
from filelock import FileLock
from tqdm.auto import tqdm

from diffusion_framework.data.images.encoded import EncodedImages, file_endings
from diffusion_framework.data.loading.cache import cache_folder as default_cache_folder
from diffusion_framework.data.shards.shard_files import ShardFiles, hashed, is_remote, shard_names, side_by_side
from diffusion_framework.data.shards.tar_index import BAD_LABEL, MAX_CLASSES, NO_LABEL, list_images, member_at

_OPEN = 16  # shards that a process holds open: twice the lanes of training.ShardedBatches
_AT_ONCE = 8  # shards to list side by side


class Shards(EncodedImages):
    """Images in tar files of the WebDataset convention: members KEY.jpg (or another picture) and KEY.cls, their label.

    Training reads a few shards at a time, each to its last image; shards and their images come in an order that is new
    in each epoch (see `training.ShardedBatches`). So spread images over shards at random, about as many to each.

    Shards lie on a disk, or behind addresses that fsspec reads (s3://, http://, ...). Of the latter a few are kept in
    the cache folder, whole, and those needed next are fetched ahead. What lies where in a shard is read once and kept
    there too: the first start goes through all shards, which for remote ones means to fetch each. Validation takes
    images from all of its shards, so give it few.

    Attributes:
        names: of the shards.
        shard_lengths: how many images are in each. Images are numbered through all of them.
    """

    shard_lengths: np.ndarray

    @beartype
    def __init__(
        self,
        shards: str | list[str],
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        labels: bool = False,
        crop: Literal["center", "random"] = "center",
        background: tuple[int, int, int] = (255, 255, 255),
        broken: Literal["error", "skip"] = "error",
        convert_image_to: str | None = None,
        seed: int = 0,
        extensions: list[str] | None = None,
        value_range: tuple[int | float, int | float] | None = None,
        bits: Literal[8, 16] | None = None,
        cache_folder: str | os.PathLike | None = None,
        keep: int = 24,
    ):
        """Lists the shards, or reads their lists from the cache folder; decodes nothing yet.

        Args:
            shards: Tar files, as train-{000..099}.tar, 'train-*.tar', s3://bucket/train-{000..099}.tar, or several.
            image_size: Side of the square images, or [height, width]. Cropped to fit, never stretched.
            channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency.
            labels: Give each image with the number in the member KEY.cls.
            crop: Where to crop: center, or random for another place in each epoch.
            background: Red, green and blue (0 to 255) behind transparent pixels, for 1 and 3 channels.
            broken: An image that cannot be decoded is an error, or skip: warn, and take the next one.
            convert_image_to: A Pillow mode that colours go through, such as L for grey pictures in RGB.
            seed: Of the random crops.
            extensions: What images end in after KEY, such as [jpg, png]; null for all pictures that Pillow reads.
            value_range: Smallest and largest value of all pictures of more than 8 bits; null is that of their
                type, or [0, 1] for floats.
            bits: 16 keeps the depth of such pictures, 8 does not; null is 16 if the first picture is one.
            cache_folder: Folder for the lists and copies of shards; null for one in $XDG_CACHE_HOME or ~/.cache.
            keep: Copies of remote shards to keep; training wants up to 24 at a time.

        Raises:
            FileNotFoundError: if a shard does not exist.
            OSError: if a shard cannot be read or fetched, or the cache folder cannot be written to.
            ValueError: if the names are malformed, a shard is no tar file, is damaged, holds no image or two of one
                key, with labels an image has none, or if an option is out of its range.
        """
        super().__init__(image_size, channels, crop, background, broken, convert_image_to, seed, value_range, bits)
        if keep < 1:
            raise ValueError(f"keep must be at least 1; got {keep}")
        self.names, self.with_labels = shard_names(shards), labels
        self.endings = frozenset(file_endings(extensions))
        self.cache = Path(cache_folder) if cache_folder else default_cache_folder()
        self.files = ShardFiles(self.names, self.cache / "shards" / hashed(*self.names)[:16], keep)
        self.shard_lengths, highest = self._lengths_and_classes()
        self._ends = np.cumsum(self.shard_lengths)
        if labels:
            self.class_names = [str(label) for label in range(highest + 1)]
        self._opened: OrderedDict[int, tuple[BinaryIO, np.ndarray]] = OrderedDict()
        self._expected: set[int] = set()

    def __repr__(self) -> str:
        return f"Shards({self.names[0]!r}{f' and {len(self.names) - 1} more' if len(self.names) > 1 else ''})"

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": OrderedDict()}  # a data worker opens its own

    def fingerprint(self) -> str:
        """A hash of the shards' names, without their folders, and of how many images are in each."""
        names = [name.replace(os.sep, "/").rpartition("/")[2] for name in self.names]
        return hashed(*names, *self.shard_lengths.tolist())

    def encoded(self, index: int) -> tuple[BinaryIO, int | None]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        file, images = self._open(shard)
        offset, size, label = images[index - int(self._ends[shard] - self.shard_lengths[shard])].tolist()
        content = os.pread(file.fileno(), size, offset)  # a forked worker would share the place that seek goes to
        return Member(content, partial(self._name, shard, offset)), label if self.with_labels else None

    def prefetch(self, shards: Sequence[int]) -> None:
        """Begin to fetch those shards that are remote and were not named the last time, each in a thread of its own."""
        for shard in set(shards) - self._expected:
            if is_remote(self.names[shard]):
                Thread(target=self._fetch, args=(shard,), daemon=True).start()
        self._expected = set(shards)

    def _fetch(self, shard: int) -> None:
        with suppress(Exception):  # who reads the shard meets the same error
            self.files.open(shard).close()

    def _open(self, shard: int) -> tuple[BinaryIO, np.ndarray]:
        """A shard's file and list of images. The last few stay open."""
        if shard not in self._opened:
            if len(self._opened) == _OPEN:
                self._opened.popitem(last=False)[1][0].close()
            self._opened[shard] = self.files.open(shard), self._images(shard)
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _images(self, shard: int) -> np.ndarray:
        """The list of images of a shard, from the cache folder if it is there."""

        def read() -> np.ndarray:
            with self.files.open(shard) as file:
                return list_images(file, self.names[shard], self.endings)

        return _remembered(self._list_path(self.files.versions[shard]), read)

    def _list_path(self, *versions: str) -> Path:
        return self.cache / "lists" / f"{hashed(*sorted(self.endings), *versions)}.npy"

    def _lengths_and_classes(self) -> tuple[np.ndarray, int]:
        """How many images each shard has, and the highest label; of several processes, one finds it out for all."""
        path = self._list_path("lengths", *self.files.versions)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".lock").touch()
            except OSError as error:
                raise OSError(
                    f"{error}: shards are listed in a folder that can be written to; set cache_folder"
                ) from error
            with FileLock(path.with_suffix(".lock")):
                _remembered(path, self._survey)
        table = _remembered(path, self._survey)
        if self.with_labels and (table[:, 1] < 0).any():
            shard = int(np.argmax(table[:, 1] < 0))
            images = self._images(shard)
            first = images[np.argmax(images["label"] < 0)]
            wrong = {NO_LABEL: "has no label", BAD_LABEL: f"has a label that is no whole number below {MAX_CLASSES}"}[
                int(first["label"])
            ]
            raise ValueError(
                f"image {self._name(shard, first['offset'])!r} {wrong}; write one to its KEY.cls, or set labels: false"
            )
        return table[:, 0], int(table[:, 2].max())

    def _survey(self) -> np.ndarray:
        """[shards, 3]: the number of images, the lowest and the highest label of each shard."""
        numbers = range(len(self.names))
        lists = tqdm(
            side_by_side(self._images, numbers, _AT_ONCE), "listing shards", len(numbers), leave=False, delay=2
        )
        return np.array([(len(images), images["label"].min(), images["label"].max()) for images in lists])

    def _name(self, shard: int, offset: int) -> str:
        with self.files.open(shard) as file:
            return f"{self.names[shard]}/{member_at(file, self.names[shard], offset)}"


class Member(BytesIO):
    """The content of a member of a tar file, whose name is looked for only if somebody asks."""

    def __init__(self, content: bytes, name: Callable[[], str]):
        super().__init__(content)
        self._find_name = name

    @property
    def name(self) -> str:
        return self._find_name()


def _remembered(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in this file; if there is none or it is damaged, what `make` returns, which is put there."""
    with suppress(OSError, ValueError, EOFError):
        return np.load(path, allow_pickle=False)
    array = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{get_ident()}.part")
    try:
        with open(part, "wb") as file:
            np.save(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return array
