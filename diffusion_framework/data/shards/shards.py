"""Dataset of images in tar shards, which may exceed the local disk."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Literal

import numpy as np
from beartype import beartype
from tqdm.auto import tqdm

from ..images.encoded import EncodedImages, file_endings
from ..images.resize import Fit
from ..images.transforms import Transform
from ..loading.cache import cache_folder as default_cache_folder
from ..loading.own_files import locked, open_own, read_sealed
from .lists import check_labels, check_told, load_or_make, untold
from .names import is_remote, shard_names
from .shard_files import ShardFiles, hashed, parallel_map, read_at
from .tar_index import RECORD, digest, digest_of, list_images, member_at
from .told import Told

# One row for each shard: number of images, and of those that lack a text or a JSON object; lowest
# and highest label; hash of the images
_SURVEY = np.dtype(
    [("count", "<i8"), ("untold", "<i8"), ("lowest", "<i4"), ("highest", "<i4"), ("content", "<u8")]
)
_LISTS = "lists, version 2"
_MAX_OPEN = 16  # shards that a process keeps open: twice the lanes of ShardedBatches
_LISTING_THREADS = 8


class Shards(EncodedImages):
    """Images in tar files of the WebDataset convention: KEY.jpg (or another ending) and KEY.cls.

    Training reads a few shards at a time, each to its end, in a new order in each epoch (see
    `ShardedBatches`). Therefore, distribute images over shards at random, in about equal numbers.

    Shards are local files, or URLs that fsspec reads (s3://, http://, ...). The cache folder keeps
    copies of a few remote shards, and the next shards are downloaded ahead of time. Each shard is
    listed once and the list is cached, so the first start downloads every remote shard. Validation
    reads from all of its shards, so use few.

    A download has no time limit in all. After 60 seconds without a byte, a lost connection or a
    server error, it goes on where it stopped: six attempts with growing waits, or as the server
    asks. Each start compares ETag, time of change and size of a remote shard; without the first
    two, it reads the whole shard.

    Attributes:
        names: Names of the shards.
        shard_lengths: Number of images in each shard; indices run through all shards in order.
    """

    shard_lengths: np.ndarray

    @beartype
    def __init__(
        self,
        shards: str | list[str],
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        labels: bool | str = False,
        captions: bool | str = False,
        vectors: list[str] | None = None,
        crop: Literal["center", "random"] = "center",
        background: tuple[int, int, int] = (255, 255, 255),
        broken: Literal["error", "skip"] = "error",
        convert_image_to: str | None = None,
        seed: int = 0,
        extensions: list[str] | None = None,
        value_range: tuple[int | float, int | float] | None = None,
        bits: Literal[8, 16] | None = None,
        fit: Fit = "crop",
        transform: Transform | None = None,
        cache_folder: str | os.PathLike | None = None,
        keep: int = 24,
    ):
        """Lists the shards, or reads their lists from the cache folder; images are decoded later.

        Args:
            shards: Tar files, such as train-{000..099}.tar, 'train-*.tar',
                s3://bucket/train-{000..099}.tar, or a list of these.
            image_size: Side of the square images, or [height, width].
            channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency; another number
                for TIFF files with so many channels.
            labels: Whether to load class labels: true for the numbers in the members KEY.cls, or
                the key that holds them in KEY.json. Samples are then (image, label).
            captions: Whether to load texts: true for the members KEY.txt, or keys in KEY.json,
                joined as category,text.
            vectors: Keys in KEY.json whose numbers form a vector for each image.
            crop: Position of the crop: 'center', or 'random', which differs in each epoch.
            background: Red, green and blue in 0..255 behind transparent pixels, for 1 and 3
                channels.
            broken: Reaction to an image that cannot be decoded: 'error', or 'skip', which warns
                and takes the next image.
            convert_image_to: Pillow mode that colours are converted to and back, such as L for
                grey images in RGB.
            seed: Seed for the random crops.
            extensions: Endings of images after KEY, such as [jpg, png]; null for all formats that
                Pillow decodes.
            value_range: Smallest and largest value of all images of more than 8 bits; null for the
                range of their integer type, or [0, 1] for floats.
            bits: Bits per channel of the samples: 16 keeps the depth of images of more than 8 bits,
                8 reduces it. null means 16 if the first image has more than 8 bits, otherwise 8.
            fit: Way to bring images to image_size: 'crop' to its proportions, 'pad' with
                `background`, or 'stretch'.
            transform: Own function of each decoded Pillow image. It returns an image, which is
                then brought to image_size, or the sample as a tensor [channels, height, width].
                Its random numbers are functions of (seed, image, epoch). Not for flags and files.
            cache_folder: Folder of one user for lists and copies of shards; null for
                $XDG_CACHE_HOME/diffusion_framework, or ~/.cache/diffusion_framework.
            keep: Number of copies of remote shards to keep; training uses up to 24 at a time.

        Raises:
            FileNotFoundError: a shard does not exist.
            OSError: a shard cannot be read or downloaded, or the cache folder cannot be written.
            ValueError: malformed names; a shard that is not a tar file, is damaged, or holds no
                image or two images of one key; an image without a label (with labels); or an
                option out of range.
        """
        options = background, broken, convert_image_to, seed, value_range, bits, fit, transform
        super().__init__(image_size, channels, crop, *options)
        if keep < 1:
            raise ValueError(f"Expected keep of at least 1, got {keep}. Fix: take 24.")
        self.names, self.with_labels = shard_names(shards), labels is not False
        self.told = Told(labels, captions, tuple(vectors or ()))
        self.endings = frozenset(file_endings(extensions))
        self.cache = Path(cache_folder) if cache_folder else default_cache_folder()
        self.files = ShardFiles(self.names, self.cache / "shards" / hashed(*self.names)[:16], keep)
        survey = self._surveyed()
        self.shard_lengths, self._contents = survey["count"].copy(), survey["content"].copy()
        self._ends = np.cumsum(self.shard_lengths)
        classes = int(survey["highest"].max()) + 1
        self.class_names = [str(label) for label in range(classes)] if self.with_labels else []
        self._opened: OrderedDict[int, tuple[BinaryIO, np.ndarray]] = OrderedDict()
        self._prefetched: set[int] = set()

    def __repr__(self) -> str:
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"Shards({self.names[0]!r}{more})"

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": OrderedDict()}  # each data worker opens its own files

    def fingerprint(self) -> str:
        """Returns a hash of the shards' names, without their folders, and of their images.

        Images count by their size, their label, and the first and last bytes of their content.
        """
        names = [name.replace(os.sep, "/").rpartition("/")[2] for name in self.names]
        return hashed(*names, *self.shard_lengths.tolist(), *self._contents.tolist())

    def encoded(self, index: int) -> tuple[BinaryIO, dict[str, Any]]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        place = index - int(self._ends[shard] - self.shard_lengths[shard])
        content, members, offset, label = self._content(shard, place)
        name = partial(self._name, shard, offset)
        told = {"labels": label} if self.with_labels else {}
        return Member(content, name), {**told, **self.told.values(members, name)}

    def prefetch(self, shards: Sequence[int]) -> None:
        """Starts to download the remote shards among these, unless the last call named them."""
        for shard in set(shards) - self._prefetched:
            if is_remote(self.names[shard]):
                Thread(target=self._download, args=(shard,), daemon=True).start()
        self._prefetched = set(shards)

    def _download(self, shard: int) -> None:
        with suppress(Exception):  # reading the shard raises the same error
            self.files.open(shard).close()

    def _content(
        self, shard: int, place: int, again: bool = False
    ) -> tuple[bytes, dict[str, bytes], int, int]:
        """Returns the content of an image, that of its other members, its offset and its label.

        A copy that was cut short or damaged is downloaded again, once.

        Raises:
            ValueError: the shard has changed since it was listed.
        """
        file, images = self._open(shard)
        row = images[place]
        offset, size, label, listed = (row[n].item() for n in ("offset", "size", "label", "digest"))
        content = read_at(file, offset, size)
        members = {ending: read_at(file, *row[ending].tolist()) for ending in self.told.needs}
        unchanged = not members or digest_of(members) == row["told"].item()
        if len(content) == size and digest(content, content) == listed and unchanged:
            return content, members, offset, label
        self.files.discard(shard, file)
        self._opened.pop(shard)[0].close()
        if not again:
            return self._content(shard, place, again=True)
        raise ValueError(
            f"Expected an unchanged shard {self.names[shard]!r}, got other content at byte "
            f"{offset}. Fix: restart training, which lists the changed shard again."
        )

    def _open(self, shard: int) -> tuple[BinaryIO, np.ndarray]:
        """Returns the file of a shard and its list of images; the last few files stay open."""
        if shard not in self._opened:
            if len(self._opened) == _MAX_OPEN:
                self._opened.popitem(last=False)[1][0].close()
            self._opened[shard] = self.files.open(shard), self._images(shard)
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _images(self, shard: int) -> np.ndarray:
        """Returns the images of a shard as an array of RECORD, cached in the cache folder."""

        def read() -> np.ndarray:
            with self.files.open(shard) as file:
                return list_images(file, self.names[shard], self.endings, self.told)

        return load_or_make(self._list_path(self.files.key(shard)), RECORD, read)

    def _list_path(self, *keys: str) -> Path:
        return (
            self.cache
            / "lists"
            / f"{hashed(_LISTS, self.told.listed, *sorted(self.endings), *keys)}.list"
        )

    def _surveyed(self) -> np.ndarray:
        """Returns the images, labels and content of each shard in an array of _SURVEY.

        Only one process of a machine lists the shards.

        Raises:
            OSError: the cache folder cannot be written.
            ValueError: an image has no valid label (with labels).
        """
        path = self._list_path("lengths", *map(self.files.key, range(len(self.names))))
        if read_sealed(path) is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(open_own(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT))
            except OSError as error:
                raise OSError(
                    f"Expected a writable cache folder, got {error}. Fix: set cache_folder."
                ) from error
            with locked(path.with_suffix(".lock")):
                load_or_make(path, _SURVEY, self._survey)
        table = load_or_make(path, _SURVEY, self._survey)
        if self.with_labels and (table["lowest"] < 0).any():
            shard = int(np.argmax(table["lowest"] < 0))
            check_labels(self._images(shard), partial(self._name, shard))
        if count := int(table["untold"].sum()):
            shard = int(np.argmax(table["untold"] > 0))
            check_told(self._images(shard), self.told, count, partial(self._name, shard))
        return table

    def _survey(self) -> np.ndarray:
        """Returns the images, labels and content of each shard in an array of _SURVEY."""
        numbers = range(len(self.names))
        lists = tqdm(
            parallel_map(self._images, numbers, _LISTING_THREADS),
            "listing shards",
            len(numbers),
            leave=False,
            delay=2,
        )
        rows = []
        for images in lists:
            labels, content = images["label"], images[["size", "label", "digest"]].tolist()
            if self.told.needs:
                content.append(images["told"].tolist())
            lacking = untold(images, self.told).sum()
            known = int(hashed(content)[:16], 16)
            rows.append((len(images), lacking, labels.min(), labels.max(), known))
        return np.array(rows, _SURVEY)

    def _name(self, shard: int, offset: int) -> str:
        """Returns the name of the member with content at `offset`."""
        with self.files.open(shard) as file:
            return f"{self.names[shard]}/{member_at(file, self.names[shard], offset)}"


class Member(BytesIO):
    """Content of a member of a tar file, with a name that is looked up when first needed."""

    def __init__(self, content: bytes, name: Callable[[], str]):
        super().__init__(content)
        self._find_name = name

    @property
    def name(self) -> str:
        return self._find_name()
